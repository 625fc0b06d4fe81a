//! One thread's side of a scan: it walks part after part, reads what it meets there, judges it, and tells.

mod files;
mod judging;
mod looking;

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread::{Scope, ScopedJoinHandle};

use drift::TreePath;
use drift::compare::{CompareError, Finding, Merge, Met};
use drift::coverage::Gap;
use drift::entry::Entry;
use drift::manifest::Part;
use drift::observation::Found;
use driftmark_kernel::Stat;

use super::ahead::Ahead;
use super::order::{Rank, rank};
use super::portrait::Sketch;
use super::read::From;
use super::shared::{PartQueue, Shared};
use super::tally::Count;
use super::verified::{Marks, Share};
use super::walk::{Visit, Walk, directory_entry, group, other_entry, unreadable};
use super::{Order, Pass, Reader, ScanError};
use crate::baseline::ManifestFile;

/// After so many files that were on the disk alone a thread says that more hands are of use.
const COLD_FILES: u64 = 16;

/// What a thread tells the one that waits for all of them.
#[allow(clippy::large_enum_variant, reason = "nearly all are findings")]
pub(super) enum Told {
    Finding(Finding),
    /// Much is on the disk alone: more hands are of use, and tell what they find there.
    Cold(SyncSender<Told>),
}

/// A thread of a scan.
pub(super) struct Worker<'s> {
    shared: &'s Shared<'s>,
    told: SyncSender<Told>,
    reader: Reader<'s>,
    ahead: Ahead,
    /// How the part looks that it goes through.
    sketch: Sketch,
    count: Count,
    walking: Option<Walking<'s>>,
    /// Long files are left for the end.
    leaves_long: bool,
}

/// A thread that walks, or will. However it ends, the others are not left to wait for it.
struct Walking<'s>(&'s Shared<'s>);

impl<'s> Walking<'s> {
    fn begin(shared: &'s Shared<'s>) -> Self {
        shared.walks();
        Walking(shared)
    }
}

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.over.store(true, Ordering::Relaxed);
        }
        self.0.walked();
    }
}

impl<'s> Worker<'s> {
    pub(super) fn new(
        shared: &'s Shared<'s>,
        at_work: &'s (dyn Fn(u64) + Sync),
        rest: &'s (dyn Fn(u64) + Sync),
        told: SyncSender<Told>,
    ) -> Self {
        let (names, inodes) = (shared.names_of_image, &shared.inodes);
        let reader = Reader::new(shared.interrupt, names, at_work, inodes);
        let mut reader = reader.resting(rest);
        if shared.pass == Pass::Disk {
            reader.read_from(From::Disk);
        }
        Worker {
            shared,
            told,
            reader,
            ahead: Ahead::of(shared.hands, shared.pace),
            sketch: Sketch::default(),
            count: Count::default(),
            walking: Some(Walking::begin(shared)),
            leaves_long: shared.hands > 1,
        }
    }

    /// Has a thread run it.
    ///
    /// # Errors
    /// There may be no more threads.
    pub(super) fn begin<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        parts: &'scope PartQueue<'_>,
    ) -> io::Result<ScopedJoinHandle<'scope, Result<Count, ScanError>>>
    where
        's: 'scope,
    {
        std::thread::Builder::new().spawn_scoped(scope, || self.run(parts))
    }

    /// Until nothing is left to do, or the scan is over for another reason.
    fn run(mut self, parts: &PartQueue<'_>) -> Result<Count, ScanError> {
        let mut outcome = self.parts(parts);
        self.walking = None;
        if outcome.is_ok() {
            outcome = self.long_files();
        }
        if outcome.is_err() {
            self.shared.over.store(true, Ordering::Relaxed);
        }
        self.shared.tell(&mut self.count);
        self.shared.read_until(self.count.read_until);
        self.count.cached = self.reader.cached;
        outcome.map(|()| self.count)
    }

    fn parts(&mut self, parts: &PartQueue<'_>) -> Result<(), ScanError> {
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(Share {
                part, mut marks, ..
            }) = next
            else {
                return Ok(());
            };
            self.part(&part, &mut marks)?;
        }
    }

    fn part(&mut self, part: &Part, marks: &mut Marks<'_>) -> Result<(), ScanError> {
        let manifest = self.shared.manifest;
        let is_urgent = self.shared.order == Order::RunsFirst && rank(part) != Rank::Later;
        self.leaves_long = self.shared.hands > 1 && !is_urgent;
        self.sketch.restart();
        let mut merge = Merge::part(manifest, part);
        let mut walk = Walk::new(self.shared.filesystems, manifest.rules())
            .between(part.start.as_ref(), part.end.as_ref());
        if let Err(error) = walk.run(&mut |visit| self.visit(part, &mut merge, marks, visit))? {
            self.gap(part, &mut merge, unreadable(&TreePath::root(), &error))?;
        }
        while let Some(coming) = self.ahead.pop() {
            self.has_come(coming, marks)?;
        }
        let finished = merge.finish(&mut |entry| self.missing(&entry));
        finished.map_err(CompareError::from)?;
        self.shared.drawn(self.sketch.finish(&part.ordinals));
        Ok(())
    }

    fn visit(
        &mut self,
        part: &Part,
        merge: &mut Merge<'_, ManifestFile>,
        marks: &mut Marks<'_>,
        visit: Visit<'_>,
    ) -> Result<(), ScanError> {
        self.shared.rest(0);
        self.shared.go_on()?;
        let path = match &visit {
            Visit::Gap(_) => None,
            Visit::Directory { path, .. } => Some(path),
            Visit::Other { at, .. } | Visit::File { at, .. } => Some(at.path()),
        };
        let met = match path {
            Some(path) => merge.meet(path, &mut |entry| self.missing(&entry))?,
            None => None,
        };
        match visit {
            Visit::Gap(gap) => self.gap(part, merge, gap),
            visit => self.met(met, marks, visit),
        }
    }

    /// What the walk has met, with the entry that it meets.
    fn met(
        &mut self,
        met: Option<Met>,
        marks: &mut Marks<'_>,
        visit: Visit<'_>,
    ) -> Result<(), ScanError> {
        match visit {
            Visit::Gap(gap) => {
                self.count.unverified += u64::from(met.is_some());
                self.cover(met.as_ref());
                self.tell(Finding::Gap(gap));
            }
            Visit::Directory {
                path,
                dir,
                stat,
                looked_at,
                holding,
            } => {
                self.sketch.directory(&path, &stat);
                let entry = |path| directory_entry(path, dir, &stat, holding);
                self.plain(&path, (&stat, looked_at), met, marks, &entry);
            }
            Visit::Other {
                at,
                stat,
                looked_at,
                place,
            } => {
                self.sketch.name(&at, &stat);
                let entry = |path| other_entry(path, &stat, place);
                self.plain(at.path(), (&stat, looked_at), met, marks, &entry);
            }
            Visit::File { at, place, rule } => {
                self.file(at, place, rule, met, marks)?;
                self.tell_if_cold();
            }
        }
        Ok(())
    }

    /// Something without content.
    fn plain(
        &mut self,
        path: &TreePath,
        (stat, looked_at): (&Stat, i64),
        met: Option<Met>,
        marks: &mut Marks<'_>,
        entry: &dyn Fn(TreePath) -> io::Result<Entry>,
    ) {
        if met.is_none() {
            self.sketch.spoil();
        }
        if self.is_trusted(stat, None, met.as_ref(), marks) {
            return;
        }
        match entry(path.clone()) {
            Ok(entry) => {
                let found = Found {
                    group: group(stat),
                    ..Found::plain(entry)
                };
                self.found(met, found, stat, looked_at, Some(marks));
            }
            Err(error) => {
                self.unverified(met.as_ref(), Some(marks));
                self.cover(met.as_ref());
                self.tell(Finding::Gap(unreadable(path, &error)));
            }
        }
    }

    /// A gap covers its path and everything below it. Of one that lies above several parts each is told, and one tells.
    fn gap(
        &mut self,
        part: &Part,
        merge: &mut Merge<'_, ManifestFile>,
        gap: Gap,
    ) -> Result<(), ScanError> {
        self.sketch.miss();
        let mut linked = Vec::new();
        let mut entries = 0;
        let missing = &mut |entry| self.missing(&entry);
        merge.cover(&gap.path, missing, &mut |covered| {
            entries += 1;
            linked.extend(covered.links.is_some().then_some(covered));
        })?;
        self.count.unverified += entries;
        if !linked.is_empty() {
            let mut groups = self.shared.groups();
            linked.iter().for_each(|entry| groups.cover(entry));
        }
        let edges = [&part.start, &part.end];
        let reaches_out = edges
            .into_iter()
            .flatten()
            .any(|edge| edge.is_within(&gap.path));
        if !reaches_out || self.shared.is_new(&gap) {
            self.tell(Finding::Gap(gap));
        }
        Ok(())
    }

    fn tell(&self, finding: Finding) {
        // Nobody hangs up before the last thread has.
        let _ = self.told.send(Told::Finding(finding));
    }

    /// Says so once, of all threads the first.
    fn tell_if_cold(&mut self) {
        if self.reader.cold >= COLD_FILES && self.shared.turns_cold() {
            let _ = self.told.send(Told::Cold(self.told.clone()));
        }
    }

    fn tell_progress(&mut self) {
        if self.count.is_due() {
            self.shared.tell(&mut self.count);
        }
    }
}
