//! Walk, merge, read and judge, side by side with bounded queues between them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use drift::compare::{
    CompareError, Expectation, Finding, LinkGroups, Merge, Met, judge, judge_cover, judge_missing,
    judge_unread,
};
use drift::coverage::{Gap, GapReason};
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::manifest::Manifest;
use drift::observation::Found;
use drift::rules::RuleType;
use drift::{Blake3, TreePath};
use driftmark_kernel::{Stat, boot};

use super::filesystems::{Filesystems, Holding, is_absent};
use super::tally::Tally;
use super::walk::{Place, Visit, Walk};
use super::{
    Digests, Pass, Progress, Read, Reader, ScanError, ScanRequest, ScanSummary, Sink, Verified,
    Wants, mounts,
};
use crate::baseline::ManifestFile;

/// Files go to the readers in batches of this many: one at a time, the queue would cost more than a small file.
const BATCH: usize = 32;
/// Batches waiting for a reader, or for the judge: the walk never runs further ahead than this.
const QUEUED_BATCHES: usize = 8;

/// A file of this length that drifted by its size alone is not read: see [`Walker::is_enough`].
const HUGE_BYTES: u64 = 1 << 30;

/// A file to be read, with the entry that it met.
struct Job {
    path: TreePath,
    stat: Stat,
    place: Place,
    met: Option<Met>,
    wants: Wants,
}

/// What comes of one path, to be judged.
#[allow(
    clippy::large_enum_variant,
    reason = "a few batches at a time; a box each would be an allocation per path"
)]
enum Outcome {
    Found {
        met: Option<Met>,
        found: Found,
        stat: Stat,
        read_at: i64,
    },
    /// A quick pass trusts what was verified before.
    Trusted,
    Missing(Entry),
    /// A gap covers so many entries, among them these names of link groups.
    Gap {
        gap: Gap,
        entries: u64,
        linked: Vec<Entry>,
    },
    /// A file that was not read: what is known of it without opening it, and why not, unless that is enough.
    Unread {
        expected: Option<Entry>,
        seen: Entry,
        gap: Option<Gap>,
    },
    Failed(CompareError),
    Interrupted,
}

/// Scans, telling `sink` every finding. Blocks until it is done; findings come in no particular order.
///
/// # Errors
/// A root that cannot be opened, a manifest that cannot be read, or an interrupt. What was told until then stands for
/// nothing.
pub fn scan(request: ScanRequest<'_>, sink: &mut Sink<'_>) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let manifest = &request.baseline.manifest;
    let root = request
        .root
        .canonicalize()
        .unwrap_or_else(|_| request.root.to_owned());
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

/// What the threads share of a request.
struct Parts<'a, 'v> {
    pass: Pass,
    threads: usize,
    verified: &'a Mutex<&'v mut Verified>,
    held_length: &'a (dyn Fn(&TreePath) -> Option<u64> + Sync),
    interrupt: &'a std::sync::atomic::AtomicBool,
    progress: &'a (dyn Fn(Progress) + Sync),
    told: Mutex<Progress>,
}

impl Parts<'_, '_> {
    /// How far the judge is.
    fn tell(&self, entries: u64, bytes: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entries = entries;
        told.bytes = told.bytes.max(bytes);
        (self.progress)(*told);
    }

    /// A reader got further in a long file, of which the judge knows nothing yet: that is progress too.
    fn at_work(&self, bytes: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.bytes += bytes;
        (self.progress)(*told);
    }
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

/// The walk's side: which entry each path meets, and what has to be read.
struct Walker<'a, 'v> {
    manifest: &'a Manifest<ManifestFile>,
    parts: &'a Parts<'a, 'v>,
    jobs: SyncSender<Vec<Job>>,
    outcomes: SyncSender<Vec<Outcome>>,
    batch: Vec<Job>,
    told: Vec<Outcome>,
}

/// The other side has hung up: the scan is over.
struct HungUp;

impl Walker<'_, '_> {
    fn run(mut self, filesystems: &Filesystems) {
        let mut merge = Merge::new(self.manifest);
        let walked = Walk::new(filesystems, self.manifest.rules())
            .run(&mut |visit| self.visit(&mut merge, visit));
        if let Ok(opened) = walked {
            if let Err(error) = opened {
                let gap = super::walk::unreadable(&TreePath::root(), &error);
                let entries = merge.skip_within(&TreePath::root()).unwrap_or_default();
                let linked = Vec::new();
                self.told.push(Outcome::Gap {
                    gap,
                    entries,
                    linked,
                });
            }
            let (told, outcomes) = (&mut self.told, &self.outcomes);
            if let Err(error) = merge.finish(&mut |missing| tell_missing(told, outcomes, missing)) {
                self.told.push(Outcome::Failed(error.into()));
            }
        }
        let _ = self.jobs.send(self.batch);
        let _ = self.outcomes.send(self.told);
    }

    fn visit(&mut self, merge: &mut Merge<'_, ManifestFile>, visit: Visit) -> Result<(), HungUp> {
        if self
            .parts
            .interrupt
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            self.told.push(Outcome::Interrupted);
            return Err(HungUp);
        }
        let step = match visit {
            Visit::Gap(gap) => self.gap(merge, gap),
            Visit::Other { entry, stat, group } => self.meet(merge, &entry.path).map(|met| {
                let found = Found {
                    group,
                    ..Found::plain(entry)
                };
                self.told.push(Outcome::Found {
                    met,
                    found,
                    stat,
                    read_at: 0,
                });
            }),
            Visit::File { path, stat, place } => self
                .meet(merge, &path)
                .map(|met| self.file(path, &stat, place, met)),
        };
        if let Err(error) = step {
            self.told.push(Outcome::Failed(error));
        }
        self.flush()
    }

    fn meet(
        &mut self,
        merge: &mut Merge<'_, ManifestFile>,
        path: &TreePath,
    ) -> Result<Option<Met>, CompareError> {
        let (told, outcomes) = (&mut self.told, &self.outcomes);
        merge.meet(path, &mut |missing| tell_missing(told, outcomes, missing))
    }

    fn gap(&mut self, merge: &mut Merge<'_, ManifestFile>, gap: Gap) -> Result<(), CompareError> {
        let (mut entries, mut linked) = (0, Vec::new());
        let (told, outcomes) = (&mut self.told, &self.outcomes);
        let missing = &mut |missing| tell_missing(told, outcomes, missing);
        merge.cover(&gap.path, missing, &mut |covered| {
            entries += 1;
            linked.extend(covered.links.is_some().then_some(covered));
        })?;
        self.told.push(Outcome::Gap {
            gap,
            entries,
            linked,
        });
        Ok(())
    }

    fn file(&mut self, path: TreePath, stat: &Stat, place: Place, met: Option<Met>) {
        let trusted = self.parts.pass == Pass::Quick
            && met.as_ref().is_some_and(|met| {
                self.parts
                    .verified
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .trusts(met.ordinal, stat)
            });
        if trusted {
            self.told.push(Outcome::Trusted);
            return;
        }
        if self.is_enough(&path, stat, met.as_ref()) {
            self.told.push(Outcome::Unread {
                seen: unread(path, stat, place.holding),
                expected: met.map(|met| met.entry),
                gap: None,
            });
            return;
        }
        let wants = self.wants(&path, met.as_ref());
        self.batch.push(Job {
            path,
            stat: *stat,
            place,
            met,
            wants,
        });
    }

    /// Whether a huge file need not be read, because it drifted already: it is not in the image, or has another size,
    /// and no rule has anything to say about it. Else one sparse file would keep a scan busy for hours, and everything
    /// else that it found untold.
    fn is_enough(&self, path: &TreePath, stat: &Stat, met: Option<&Met>) -> bool {
        stat.size > HUGE_BYTES
            && met.is_none_or(|met| met.entry.size() != stat.size)
            && self.manifest.rules().first_match(path).is_none()
    }

    fn wants(&self, path: &TreePath, met: Option<&Met>) -> Wants {
        match self
            .manifest
            .rules()
            .first_match(path)
            .map(|(_, rule)| rule.rule_type)
        {
            Some(RuleType::AppendOnly) => Wants {
                prefix: met.and_then(|met| match met.entry.node {
                    Node::File { size, .. } => Some(size),
                    _ => None,
                }),
                held: (self.parts.held_length)(path),
                shape: None,
            },
            Some(RuleType::Shape(shape)) => Wants {
                shape: Some(shape),
                ..Wants::default()
            },
            _ => Wants::default(),
        }
    }

    fn flush(&mut self) -> Result<(), HungUp> {
        if self.batch.len() >= BATCH {
            self.jobs
                .send(std::mem::take(&mut self.batch))
                .map_err(|_| HungUp)?;
        }
        if self.told.len() >= BATCH {
            self.outcomes
                .send(std::mem::take(&mut self.told))
                .map_err(|_| HungUp)?;
        }
        Ok(())
    }
}

/// Where a whole directory is gone, there are more than should be held at once.
fn tell_missing(told: &mut Vec<Outcome>, outcomes: &SyncSender<Vec<Outcome>>, missing: Entry) {
    told.push(Outcome::Missing(missing));
    if told.len() >= BATCH {
        // Nobody listens any more: the next flush notices.
        let _ = outcomes.send(std::mem::take(told));
    }
}

/// What is known of a regular file without opening it; its content is a placeholder that nobody looks at.
fn unread(path: TreePath, stat: &Stat, holding: Holding) -> Entry {
    let node = Node::File {
        size: stat.size,
        content: Blake3::of(b""),
    };
    super::walk::entry(path, stat, holding, node, Xattrs::NONE, FileFlags::NONE)
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
