//! Opens what is scanned, has threads work through it ([`super::worker`]), and settles what only the whole can tell.

use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use drift::TreePath;
use drift::compare::{CompareError, Expectation, Settled, judge, judge_cover};
use drift::manifest::{Manifest, Part};
use drift::observation::Found;
use driftmark_kernel::boot;

use super::filesystems::{Filesystems, canonical};
use super::shared::{Judged, Led, PartQueue, Shared, Waits};
use super::tally::{Count, Tally};
use super::verified::{Context, Marks};
use super::worker::{Told, Worker};
use super::{
    Order, Pass, ScanError, ScanRequest, ScanSummary, Sink, Verified, glance, mounts, order,
    verity_roots,
};
use crate::baseline::ManifestFile;

/// Findings that wait for the caller.
const QUEUED_FINDINGS: usize = 256;
/// As many parts for each thread: few enough that the directories above their first paths need not be listed too often,
/// enough that no thread is left with the last one alone for long, and that little is gone through where little has changed.
const PARTS_EACH: u64 = 32;

/// Scans, telling `sink` every finding; what was `verified` before is brought up to date. Blocks until it is done;
/// findings come in no particular order.
///
/// # Errors
/// A root that cannot be opened, a manifest that cannot be read, or an interrupt. What was told until then stands for
/// nothing.
pub fn scan(
    request: &ScanRequest<'_>,
    verified: &mut Verified,
    sink: &mut Sink<'_>,
) -> Result<ScanSummary, ScanError> {
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
    if let Ok(table) = &table {
        match verity_roots::roots(table, &root, &manifest.header().filesystems) {
            Ok(roots) => tally.coverage.verity_roots = Some(roots),
            Err((point, error)) => tally.coverage.limits.push(format!(
                "whether {point} is mounted from a dm-verity device was not verified: {error}"
            )),
        }
    }
    let context = Context {
        manifest: Some(manifest.identity().blake3),
        // One that is not known is like no other.
        boot_id: boot::boot_id().unwrap_or_else(|_| boot::realtime_ns().to_string()),
        mounts: filesystems.mounts().to_vec(),
    };
    let entries = manifest.header().entry_count;
    // A sweep of the disk trusts nothing and marks nothing.
    if request.pass != Pass::Disk {
        verified.prepare(context, entries, boot::realtime_ns());
    }
    run_threads(request, &filesystems, verified, &mut tally, sink)?;
    Ok(tally.finish(started))
}

/// Has all threads work through all parts; then judges what had to wait for the last of them.
fn run_threads(
    request: &ScanRequest<'_>,
    filesystems: &Filesystems,
    verified: &mut Verified,
    tally: &mut Tally,
    sink: &mut Sink<'_>,
) -> Result<(), ScanError> {
    let manifest = &request.baseline.manifest;
    let names_of_image = |path: &TreePath| matches!(manifest.lookup(path), Ok(Some(_)));
    let led = Led {
        manifest,
        filesystems,
        names_of_image: &names_of_image,
    };
    let shared = Shared::new(&led, request);
    let at_work = |bytes| shared.at_work(bytes);
    let rest = |bytes| shared.rest(bytes);
    let parts = parts(manifest, &shared, request.order);
    // A sweep of the disk draws none.
    let portraits = match request.pass {
        Pass::Disk => Vec::new(),
        Pass::Full | Pass::Quick => verified.take_portraits(),
    };
    let shares = verified.shared_out(parts, &portraits);
    let (mut left, unchanged) = glance::unchanged(&shared, shares)?;
    if request.order == Order::RunsFirst {
        // In the order of the paths among their like.
        left.sort_by_key(|share| order::rank(&share.part));
    }
    for portrait in unchanged {
        tally.unchanged(&portrait);
        shared.drawn(portrait);
    }
    let queue: PartQueue<'_> = Mutex::new(left.into_iter());
    let counts = std::thread::scope(|scope| {
        let (findings, results) = sync_channel(QUEUED_FINDINGS);
        // All of them before the first begins: each counts as one that walks.
        let workers: Vec<_> = (0..shared.threads)
            .map(|_| Worker::new(&shared, &at_work, &rest, findings.clone()))
            .collect();
        drop(findings);
        let (begun, refused): (Vec<_>, Vec<_>) = workers
            .into_iter()
            .map(|one| one.begin(scope, &queue))
            .partition(Result::is_ok);
        let mut workers: Vec<_> = begun.into_iter().filter_map(Result::ok).collect();
        if workers.is_empty() {
            let refused = refused.into_iter().filter_map(Result::err);
            return refused
                .map(|error| Err(ScanError::Threads(error)))
                .collect();
        }
        for told in results {
            match told {
                Told::Finding(finding) => {
                    tally.count(&finding);
                    sink(finding);
                }
                Told::Cold(findings) => {
                    // Where no more threads may be, those that there are do it all.
                    let more = (shared.threads..shared.hands).filter_map(|_| {
                        let one = Worker::new(&shared, &at_work, &rest, findings.clone());
                        one.begin(scope, &queue).ok()
                    });
                    workers.extend(more);
                }
            }
        }
        let ended = workers.into_iter().map(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<Vec<_>>()
    });
    drop(queue);
    let (later, read_until) = shared.finish();
    verified.read_until(read_until);
    for count in ended(counts)? {
        tally.add(&count);
    }
    let mut marks = verified.all();
    later
        .forgotten
        .iter()
        .for_each(|ordinal| marks.forget(*ordinal));
    later
        .judged
        .iter()
        .for_each(|judged| judged.note(&mut marks));
    for settled in later.settled {
        judge_settled(manifest, settled, &mut marks, &mut |finding| {
            tally.count(&finding);
            sink(finding);
        })?;
    }
    if request.pass != Pass::Disk {
        verified.keep(later.portraits);
    }
    Ok(())
}

/// Judges a name of a link group, once its links are known.
pub(super) fn judge_settled(
    manifest: &Manifest<ManifestFile>,
    settled: Settled<Waits>,
    marks: &mut Marks<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), ScanError> {
    let expectation = Expectation::new(manifest.header());
    let (mut expected, mut found, judged) = match settled.waited {
        Waits::Whole(whole) => (whole.expected, whole.found, Ok(whole.judged)),
        Waits::AsExpected(ordinal) => {
            let entry = manifest.nth(ordinal).map_err(CompareError::from)?;
            let Some(entry) = entry else { return Ok(()) };
            (Some(entry.clone()), Found::plain(entry), Err(ordinal))
        }
    };
    if let Some(entry) = &mut expected {
        entry.links = settled.expected;
    }
    found.entry.links = Some(settled.links);
    let mut told = false;
    judge(&expectation, expected.as_ref(), &found, &mut |finding| {
        told = true;
        sink(finding);
    });
    match judged {
        Ok(judged) => judged
            .iter()
            .for_each(|judged| Judged { told, ..*judged }.note(marks)),
        // It was marked when it was read.
        Err(ordinal) if told => marks.forget(ordinal),
        Err(_) => {}
    }
    Ok(())
}

/// What all threads counted. Of those that did not come to their end, the one that others ended for is named.
fn ended(counts: Vec<Result<Count, ScanError>>) -> Result<Vec<Count>, ScanError> {
    let (ended, failed): (Vec<_>, Vec<_>) = counts.into_iter().partition(Result::is_ok);
    let mut failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    failed.sort_by_key(|error| matches!(error, ScanError::Interrupted));
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(ended.into_iter().filter_map(Result::ok).collect()),
    }
}

fn parts(manifest: &Manifest<ManifestFile>, shared: &Shared<'_>, order: Order) -> Vec<Part> {
    let parts_each = match order {
        Order::OfPaths => PARTS_EACH,
        // The less else is in a part, the less else comes first with it.
        Order::RunsFirst => 2 * PARTS_EACH,
    };
    let blocks = manifest.block_count() / (parts_each * shared.threads as u64);
    manifest.parts(blocks.max(1))
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
