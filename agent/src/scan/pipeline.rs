//! Walk ([`super::lead`]), read and judge, side by side with bounded queues ([`super::queues`]) between them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use drift::TreePath;
use drift::compare::{
    CompareError, Expectation, Finding, LinkGroups, Met, judge, judge_cover, judge_missing,
    judge_unread,
};
use drift::coverage::GapReason;
use drift::entry::{FileFlags, Node, Xattrs};
use drift::manifest::Manifest;
use drift::observation::Found;
use driftmark_kernel::boot;

use super::filesystems::{Filesystems, canonical, is_absent};
use super::lead::{Walker, unread};
use super::queues::{Job, Outcome, Parts, QUEUED_BATCHES};
use super::tally::Tally;
use super::{Digests, Read, Reader, ScanError, ScanRequest, ScanSummary, Sink, mounts};
use crate::baseline::ManifestFile;

/// Scans, telling `sink` every finding. Blocks until it is done; findings come in no particular order.
///
/// # Errors
/// A root that cannot be opened, a manifest that cannot be read, or an interrupt. What was told until then stands for
/// nothing.
pub fn scan(request: ScanRequest<'_>, sink: &mut Sink<'_>) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let manifest = &request.baseline.manifest;
    let root = canonical(request.root).map_err(|source| ScanError::Root {
        root: request.root.to_owned(),
        source,
    })?;
    let table = mounts::table(&root);
    let opened = Filesystems::open(
        &root,
        &manifest.header().filesystems,
        table.as_deref().unwrap_or_default(),
    );
    let filesystems = opened.map_err(|source| ScanError::Root {
        root: root.clone(),
        source,
    })?;
    let mut tally = Tally::new(manifest, request.pass);
    if !filesystems.sees_beneath_mounts() {
        tally
            .coverage
            .limits
            .push("what lies beneath mounts was not verified (this needs CAP_SYS_ADMIN)".into());
    }
    match &table {
        Ok(table) => judge_covers(
            manifest,
            &mounts::covers(table, &root, &manifest.header().filesystems),
            &mut |found| {
                tally.count(&found);
                sink(found);
            },
        )?,
        Err(error) => tally
            .coverage
            .limits
            .push(format!("mounts over the image were not verified: {error}")),
    }
    request.verified.prepare(
        manifest.identity().blake3,
        &boot::boot_id().unwrap_or_default(),
        boot::realtime_ns(),
    );
    let verified = Mutex::new(request.verified);
    run_threads(
        &request.baseline.manifest,
        &filesystems,
        &Parts {
            pass: request.pass,
            threads: request.threads.max(1),
            verified: &verified,
            held_length: request.held_length,
            interrupt: request.interrupt,
            progress: request.progress,
            told: Mutex::default(),
        },
        &mut tally,
        sink,
    )?;
    Ok(tally.finish(started))
}

fn run_threads(
    manifest: &Manifest<ManifestFile>,
    filesystems: &Filesystems,
    parts: &Parts<'_, '_>,
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> Result<(), ScanError> {
    let (jobs, queued) = sync_channel::<Vec<Job>>(QUEUED_BATCHES);
    let (outcomes, results) = sync_channel::<Vec<Outcome>>(QUEUED_BATCHES);
    // It is the readers' alone: once the last of them is gone, whoever still walks is told and does not wait for ever.
    let queued = Arc::new(Mutex::new(queued));
    let names_of_image = |path: &TreePath| matches!(manifest.lookup(path), Ok(Some(_)));
    let at_work = |bytes| parts.at_work(bytes);
    std::thread::scope(|scope| {
        for _ in 0..parts.threads {
            let (queued, outcomes) = (Arc::clone(&queued), outcomes.clone());
            let reader = Reader::new(parts.interrupt, &names_of_image, &at_work);
            scope.spawn(move || read_batches(reader, &queued, &outcomes));
        }
        drop(queued);
        scope.spawn(move || {
            Walker {
                manifest,
                parts,
                jobs,
                outcomes,
                batch: Vec::new(),
                told: Vec::new(),
            }
            .run(filesystems);
        });
        let results = results.into_iter().flatten();
        let results = results.map(|outcome| confirmed(filesystems, outcome));
        judge_all(manifest, parts, results, tally, sink)
    })
}

/// A reader's side: batch after batch until the walk is over.
fn read_batches(
    mut reader: Reader<'_>,
    queued: &Mutex<Receiver<Vec<Job>>>,
    outcomes: &SyncSender<Vec<Outcome>>,
) {
    loop {
        let next = queued.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        let told: Vec<Outcome> = batch
            .into_iter()
            .filter_map(|job| read_one(&mut reader, job))
            .collect();
        if outcomes.send(told).is_err() {
            return;
        }
    }
}

fn read_one(reader: &mut Reader<'_>, job: Job) -> Option<Outcome> {
    let read_at = boot::realtime_ns();
    Some(
        match reader.read(&job.path, &job.place, Digests::Blake3, &job.wants) {
            Read::Found { found, stat, .. } => Outcome::Found {
                met: job.met,
                found,
                stat,
                read_at,
            },
            Read::Gone => Outcome::Missing(job.met?.entry),
            Read::Gap(gap) => Outcome::Unread {
                seen: unread(job.path, &job.stat, job.place.holding),
                expected: job.met.map(|met| met.entry),
                gap: Some(gap),
            },
            Read::Interrupted => Outcome::Interrupted,
        },
    )
}

fn judge_all(
    manifest: &Manifest<ManifestFile>,
    parts: &Parts<'_, '_>,
    results: impl Iterator<Item = Outcome>,
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> Result<(), ScanError> {
    let expectation = Expectation::new(manifest.header());
    let tell = &|entries, bytes| parts.tell(entries, bytes);
    let mut groups = LinkGroups::default();
    for outcome in results {
        match outcome {
            Outcome::Found {
                met,
                found,
                stat,
                read_at,
            } => {
                tally.found(&found, tell);
                let ordinal = met.as_ref().map(|met| met.ordinal);
                let found = as_held(met.as_ref(), found);
                let Some(settled) = groups.hold_or_settle(met.map(|met| met.entry), found) else {
                    continue;
                };
                let mut drifted = false;
                judge(
                    &expectation,
                    settled.expected.as_ref(),
                    &settled.found,
                    &mut |finding| {
                        drifted = true;
                        tally.count(&finding);
                        sink(finding);
                    },
                );
                if let (Some(ordinal), Node::File { .. }) = (ordinal, &settled.found.entry.node) {
                    let mut verified = parts
                        .verified
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    if drifted {
                        verified.forget(ordinal);
                    } else {
                        verified.mark(ordinal, &stat, read_at);
                    }
                }
            }
            Outcome::Trusted => tally.trusted(tell),
            Outcome::Missing(entry) => judge_missing(&expectation, &entry, &mut |finding| {
                tally.count(&finding);
                sink(finding);
            }),
            Outcome::Gap {
                gap,
                entries,
                linked,
            } => {
                linked.iter().for_each(|entry| groups.cover(entry));
                tally.unverified += entries;
                let finding = Finding::Gap(gap);
                tally.count(&finding);
                sink(finding);
            }
            Outcome::Unread {
                expected,
                seen,
                gap,
            } => {
                expected.iter().for_each(|entry| groups.cover(entry));
                let mut told = |finding: Finding| {
                    tally.count(&finding);
                    sink(finding);
                };
                judge_unread(&expectation, expected.as_ref(), &seen, &mut told);
                if let Some(gap) = gap {
                    told(Finding::Gap(gap));
                    tally.unverified += u64::from(expected.is_some());
                }
            }
            Outcome::Failed(error) => return Err(error.into()),
            Outcome::Interrupted => return Err(ScanError::Interrupted),
        }
    }
    for settled in groups.settle() {
        judge(
            &expectation,
            settled.expected.as_ref(),
            &settled.found,
            &mut |finding| {
                tally.count(&finding);
                sink(finding);
            },
        );
    }
    Ok(())
}

/// What its directory does not list is gone only if it cannot be looked up either: ext4 passes over a damaged block of
/// a directory without a word, and what hides from a listing is not gone.
fn confirmed(filesystems: &Filesystems, outcome: Outcome) -> Outcome {
    let Outcome::Missing(entry) = outcome else {
        return outcome;
    };
    let gap = match filesystems.look_up(&entry.path) {
        Err(error) if is_absent(&error) => return Outcome::Missing(entry),
        Err(error) => super::walk::unreadable(&entry.path, &error),
        Ok(_) => super::walk::gap(
            &entry.path,
            GapReason::Changing,
            "its directory does not list it",
        ),
    };
    let linked = entry.links.is_some().then_some(entry);
    Outcome::Gap {
        gap,
        entries: 1,
        linked: linked.into_iter().collect(),
    }
}

/// What describes the image was not there yet when it was baked: its kind, owner and mode are all that is held of it,
/// and a label or flag that it was given since is none of the image's.
fn as_held(met: Option<&Met>, mut found: Found) -> Found {
    if met.is_some_and(|met| met.entry.node == Node::SelfFile) {
        found.entry.xattrs = Xattrs::NONE;
        found.entry.flags = FileFlags::NONE;
        found.group = None;
    }
    found
}

fn judge_covers(
    manifest: &Manifest<ManifestFile>,
    covers: &[mounts::Cover],
    sink: &mut Sink<'_>,
) -> Result<(), ScanError> {
    let expectation = Expectation::new(manifest.header());
    for cover in covers {
        let expected = manifest.lookup(&cover.path).map_err(CompareError::from)?;
        judge_cover(
            &expectation,
            &cover.path,
            expected.as_ref(),
            &cover.what,
            sink,
        );
    }
    Ok(())
}
