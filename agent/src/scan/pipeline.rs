//! Walk, merge, read and judge, side by side with bounded queues between them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use drift::TreePath;
use drift::compare::{
    CompareError, Expectation, Finding, LinkGroups, Merge, Met, judge, judge_cover, judge_missing,
};
use drift::coverage::{Coverage, Gap, GapReason, ScanRecord};
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::manifest::Manifest;
use drift::observation::Found;
use drift::rules::RuleType;
use driftmark_kernel::{Stat, boot};

use super::filesystems::{Filesystems, is_absent};
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
/// Progress is told after this many paths.
const PROGRESS_EVERY: u64 = 512;

/// A file to be read, with the entry that it met.
struct Job {
    path: TreePath,
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
        let wants = self.wants(&path, met.as_ref());
        self.batch.push(Job {
            path,
            place,
            met,
            wants,
        });
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
            Read::Gap(gap) => Outcome::Gap {
                gap,
                entries: u64::from(job.met.is_some()),
                linked: job.met.into_iter().map(|met| met.entry).collect(),
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
    let mut groups = LinkGroups::default();
    for outcome in results {
        match outcome {
            Outcome::Found {
                met,
                found,
                stat,
                read_at,
            } => {
                tally.found(&found, parts);
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
            Outcome::Trusted => tally.trusted(parts),
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

/// Counts what a scan comes to.
struct Tally {
    pass: Pass,
    coverage: Coverage,
    entries: u64,
    bytes: u64,
    drifts: u64,
    files_read: u64,
    unverified: u64,
}

impl Tally {
    fn new(manifest: &Manifest<ManifestFile>, pass: Pass) -> Self {
        let header = manifest.header();
        let coverage = Coverage {
            expected_entries: header.entry_count,
            not_held: header
                .not_held
                .iter()
                .map(|attribute| attribute.word().to_owned())
                .collect(),
            ..Coverage::default()
        };
        Tally {
            pass,
            coverage,
            entries: 0,
            bytes: 0,
            drifts: 0,
            files_read: 0,
            unverified: 0,
        }
    }

    fn found(&mut self, found: &Found, parts: &Parts<'_, '_>) {
        if let Some((size, _)) = found.content() {
            self.bytes += size;
            self.files_read += 1;
        }
        self.trusted(parts);
    }

    fn trusted(&mut self, parts: &Parts<'_, '_>) {
        self.entries += 1;
        if self.entries.is_multiple_of(PROGRESS_EVERY) {
            parts.tell(self.entries, self.bytes);
        }
    }

    fn count(&mut self, finding: &Finding) {
        match finding {
            Finding::Drift(_) => self.drifts += 1,
            Finding::Held(_) => {}
            Finding::Gap(gap) => {
                self.coverage.gap_count += 1;
                if self.coverage.gaps.len() < Coverage::MAX_GAPS {
                    self.coverage.gaps.push(gap.clone());
                }
            }
        }
    }

    fn finish(mut self, started: Instant) -> ScanSummary {
        let elapsed = started.elapsed();
        let rehashed = if self.pass == Pass::Quick {
            self.files_read
        } else {
            0
        };
        let record = ScanRecord {
            age_seconds: 0,
            took_milliseconds: elapsed.as_millis() as u64,
            entries: self.entries,
            bytes: self.bytes,
            rehashed,
        };
        match self.pass {
            Pass::Full => self.coverage.seen = Some(record),
            Pass::Quick => self.coverage.quick = Some(record),
        }
        self.coverage.gaps.sort_by(|a, b| a.path.cmp(&b.path));
        self.coverage.verified_entries = self
            .coverage
            .expected_entries
            .saturating_sub(self.unverified);
        ScanSummary {
            entries: self.entries,
            bytes: self.bytes,
            drifts: self.drifts,
            gaps: self.coverage.gap_count,
            rehashed,
            elapsed,
            coverage: self.coverage,
        }
    }
}
