//! One thread's side of a scan: it walks part after part, reads what it meets there, judges it, and tells.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use drift::compare::{
    CompareError, Finding, Merge, Met, judge, judge_disk, judge_missing, judge_unread,
};
use drift::coverage::{Gap, GapReason};
use drift::entry::{Device, Entry, FileFlags, Node, Xattrs};
use drift::manifest::Part;
use drift::observation::Found;
use drift::rules::{Rule, RuleType};
use drift::{Blake3, TreePath};
use driftmark_kernel::{FileKind, Stat, boot};

use super::ahead::{Ahead, Coming};
use super::filesystems::{Holding, is_absent};
use super::long::{Hashed, Long};
use super::order::{Rank, rank};
use super::read::{From, HugeOnlyIf, Known};
use super::shared::{Judged, PartQueue, Shared};
use super::tally::Count;
use super::verified::{Marks, is_settled};
use super::walk::{
    Place, Visit, Walk, directory_entry, entry, gap, group, other_entry, unreadable,
};
use super::{Digests, Order, Pass, Read, Reader, ScanError, Wants};
use crate::baseline::ManifestFile;

/// A file of this length that drifted by its size alone is not read: see [`Worker::wants`].
const HUGE_BYTES: u64 = 1 << 30;

/// A thread of a scan.
pub(super) struct Worker<'s> {
    shared: &'s Shared<'s>,
    findings: SyncSender<Finding>,
    reader: Reader<'s>,
    ahead: Ahead,
    count: Count,
    walking: Option<Walking<'s>>,
    /// Long files are left for the end.
    leaves_long: bool,
}

/// A thread that walks, or will. However it ends, the others are not left to wait for it.
struct Walking<'s>(&'s Shared<'s>);

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
        findings: SyncSender<Finding>,
    ) -> Self {
        let (names, inodes) = (shared.names_of_image, &shared.inodes);
        let reader = Reader::new(shared.interrupt, names, at_work, inodes);
        let mut reader = reader.resting(rest);
        if shared.pass == Pass::Disk {
            reader.read_from(From::Disk);
        }
        Worker {
            shared,
            findings,
            reader,
            ahead: Ahead::of(shared.threads),
            count: Count::default(),
            walking: Some(Walking(shared)),
            leaves_long: shared.threads > 1,
        }
    }

    /// Until nothing is left to do, or the scan is over for another reason.
    pub(super) fn run(mut self, parts: &PartQueue<'_>) -> Result<Count, ScanError> {
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
            let Some((part, mut marks)) = next else {
                return Ok(());
            };
            self.part(&part, &mut marks)?;
        }
    }

    fn part(&mut self, part: &Part, marks: &mut Marks<'_>) -> Result<(), ScanError> {
        let manifest = self.shared.manifest;
        let is_urgent = self.shared.order == Order::RunsFirst && rank(part) != Rank::Later;
        self.leaves_long = self.shared.threads > 1 && !is_urgent;
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
        Ok(finished.map_err(CompareError::from)?)
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
        match visit {
            Visit::Gap(gap) => self.gap(part, merge, gap)?,
            Visit::Directory {
                path,
                dir,
                stat,
                looked_at,
                holding,
            } => {
                let met = merge.meet(&path, &mut |entry| self.missing(&entry))?;
                let entry = |path| directory_entry(path, dir, &stat, holding);
                self.plain(&path, (&stat, looked_at), met, marks, &entry);
            }
            Visit::Other {
                path,
                stat,
                looked_at,
                place,
            } => {
                let met = merge.meet(&path, &mut |entry| self.missing(&entry))?;
                let entry = |path| other_entry(path, &stat, place);
                self.plain(&path, (&stat, looked_at), met, marks, &entry);
            }
            Visit::File { path, place, rule } => {
                let met = merge.meet(&path, &mut |entry| self.missing(&entry))?;
                self.file(path, place, rule, met, marks)?;
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
                self.count.unverified += u64::from(met.is_some());
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

    fn file(
        &mut self,
        path: TreePath,
        place: Place<'_>,
        rule: Option<&Rule>,
        met: Option<Met>,
        marks: &mut Marks<'_>,
    ) -> Result<(), ScanError> {
        if self.shared.pass == Pass::Quick
            && let Ok(stat) = place.stat()
            && self.is_trusted(&stat, rule, met.as_ref(), marks)
        {
            return Ok(());
        }
        let mut wants = self.wants(&path, rule, met.as_ref());
        wants.leave_long = wants.is_plain() && self.leaves_long;
        wants.leave_cold = self.shared.pass != Pass::Disk;
        let read_at = boot::realtime_ns();
        let read = match self.reader.read(&path, place, Digests::Blake3, &wants) {
            Read::Long { file, stat } if self.shared.takes_long() => {
                let place = place.hold();
                self.shared
                    .add_long(Long::new(path, place, met, file, stat, read_at));
                return Ok(());
            }
            Read::Long { .. } => {
                wants.leave_long = false;
                wants.leave_cold = false;
                self.reader.read(&path, place, Digests::Blake3, &wants)
            }
            Read::Coming { file, stat } => {
                wants.leave_cold = false;
                self.ahead.push(Coming {
                    path,
                    place: place.hold(),
                    met,
                    file,
                    stat,
                    wants,
                    read_at,
                });
                while self.ahead.is_full()
                    && let Some(coming) = self.ahead.pop()
                {
                    self.has_come(coming, marks)?;
                }
                return Ok(());
            }
            read => read,
        };
        let read = self.beside_cache(&path, place, met.as_ref(), read, read_at);
        self.judge_read(path, place, met, read, read_at, Some(marks))
    }

    /// A sweep of the disk that finds other content than the image's looks at what processes see too. What holds still
    /// and differs from that is the disk's alone, and is told; all else is judged by what processes see.
    fn beside_cache(
        &mut self,
        path: &TreePath,
        place: Place<'_>,
        met: Option<&Met>,
        on_disk: Read,
        read_at: i64,
    ) -> Read {
        let Read::Found { found, stat, .. } = &on_disk else {
            return on_disk;
        };
        let is_expected = met.is_some_and(|met| match &met.entry.node {
            Node::File { size, content, .. } => found.content() == Some((*size, *content)),
            node => *node == found.entry.node,
        });
        if self.shared.pass != Pass::Disk || is_expected {
            return on_disk;
        }
        let rule = self.shared.manifest.rules().first_match(path);
        let wants = self.wants(path, rule.map(|(_, rule)| rule), met);
        self.reader.read_from(From::Cache);
        let seen = self.reader.read(path, place, Digests::Blake3, &wants);
        self.reader.read_from(From::Disk);
        if let Read::Found {
            found: seen_as,
            stat: seen_then,
            ..
        } = &seen
            && seen_then == stat
            && is_settled(stat, read_at)
            && seen_as.content() != found.content()
        {
            let expected = met.map(|met| &met.entry);
            judge_disk(&self.shared.expectation, expected, found, &mut |finding| {
                self.tell(finding);
            });
        }
        seen
    }

    /// Reads and judges a file that was asked for a while ago.
    fn has_come(&mut self, coming: Coming, marks: &mut Marks<'_>) -> Result<(), ScanError> {
        self.shared.go_on()?;
        let Coming {
            path,
            place,
            met,
            file,
            stat,
            wants,
            read_at,
        } = coming;
        let place = place.place();
        let read = self
            .reader
            .read_coming(&path, place, (&file, &stat), &wants);
        self.judge_read(path, place, met, read, read_at, Some(marks))
    }

    /// Whether a path is known to be as the manifest says, because nothing about it has moved since that was seen.
    fn is_trusted(
        &mut self,
        stat: &Stat,
        rule: Option<&Rule>,
        met: Option<&Met>,
        marks: &Marks<'_>,
    ) -> bool {
        let Some(met) = met.filter(|_| self.shared.pass == Pass::Quick) else {
            return false;
        };
        let same_size = match met.entry.node {
            // A rule may let it have any.
            Node::File { size, .. } => stat.size == size || rule.is_some(),
            _ => true,
        };
        let trusted = same_size && marks.trust(met.ordinal, stat);
        if trusted {
            self.hold_trusted(met, stat);
            self.count.entries += 1;
            self.tell_progress();
        }
        trusted
    }

    /// A name of a link group is as it was, and its links may still be others: a directory above another name has moved.
    fn hold_trusted(&self, met: &Met, stat: &Stat) {
        let Some(group) = group(stat).filter(|_| met.entry.node != Node::SelfFile) else {
            return;
        };
        let as_it_was = Entry {
            links: None,
            ..met.entry.clone()
        };
        let found = Found {
            group: Some(group),
            ..Found::plain(as_it_was)
        };
        let judged = Judged {
            ordinal: met.ordinal,
            stat: *stat,
            read_at: boot::realtime_ns(),
            told: false,
        };
        self.shared
            .hold(Some(met.entry.clone()), found, Some(judged));
    }

    /// What came of reading a file.
    fn judge_read(
        &mut self,
        path: TreePath,
        place: Place<'_>,
        met: Option<Met>,
        read: Read,
        read_at: i64,
        marks: Option<&mut Marks<'_>>,
    ) -> Result<(), ScanError> {
        match read {
            Read::Found {
                found, stat, by, ..
            } => {
                self.count.content(&found, by);
                self.found(met, found, &stat, read_at, marks);
            }
            Read::Gone => {
                met.into_iter().for_each(|met| self.missing(&met.entry));
            }
            Read::Enough(stat) => self.unread(path, place.holding, met, &stat),
            Read::Gap(gap) => {
                self.count.unverified += u64::from(met.is_some());
                match place.stat() {
                    Ok(stat) => self.unread(path, place.holding, met, &stat),
                    Err(_) => self.cover(met.as_ref()),
                }
                self.tell(Finding::Gap(gap));
            }
            Read::Interrupted => return Err(ScanError::Interrupted),
            Read::Long { .. } | Read::Coming { .. } => {
                unreachable!("only a file that may wait is left unread")
            }
        }
        Ok(())
    }

    fn found(
        &mut self,
        met: Option<Met>,
        found: Found,
        stat: &Stat,
        read_at: i64,
        marks: Option<&mut Marks<'_>>,
    ) {
        self.count.entries += 1;
        self.tell_progress();
        let found = as_held(met.as_ref(), found);
        let (ordinal, expected) = met.map(|met| (met.ordinal, met.entry)).unzip();
        // What is on the disk says nothing about what processes see, which is what a quick pass trusts.
        let marked = ordinal.filter(|_| self.shared.pass != Pass::Disk);
        if self.shared.pass != Pass::Disk {
            self.count.read_until = self.count.read_until.max(read_at);
        }
        let judged = marked.map(|ordinal| Judged {
            ordinal,
            stat: *stat,
            read_at,
            told: false,
        });
        if found.group.is_some() {
            self.shared.hold(expected, found, judged);
            return;
        }
        let mut told = false;
        judge(
            &self.shared.expectation,
            expected.as_ref(),
            &found,
            &mut |finding| {
                told = true;
                self.tell(finding);
            },
        );
        match (judged.map(|judged| Judged { told, ..judged }), marks) {
            (Some(judged), Some(marks)) => judged.note(marks),
            (Some(judged), None) => self.shared.note_later(judged),
            (None, _) => {}
        }
    }

    /// A file that was not read is judged by what is known of it without opening it.
    fn unread(&mut self, path: TreePath, holding: Holding, met: Option<Met>, stat: &Stat) {
        self.cover(met.as_ref());
        let seen = unread(path, stat, holding);
        let expected = met.map(|met| met.entry);
        judge_unread(
            &self.shared.expectation,
            expected.as_ref(),
            &seen,
            &mut |finding| self.tell(finding),
        );
    }

    /// A name that could not be read may still be one of its group.
    fn cover(&self, met: Option<&Met>) {
        if let Some(met) = met.filter(|met| met.entry.links.is_some()) {
            self.shared.groups().cover(&met.entry);
        }
    }

    /// What its directory does not list is gone only if it cannot be looked up either: ext4 passes over a damaged block
    /// of a directory without a word, and what hides from a listing is not gone.
    fn missing(&mut self, entry: &Entry) {
        let gap = match self.shared.filesystems.look_up(&entry.path) {
            Err(error) if is_absent(&error) => {
                let expectation = &self.shared.expectation;
                return judge_missing(expectation, entry, &mut |finding| self.tell(finding));
            }
            Err(error) => unreadable(&entry.path, &error),
            Ok(_) => gap(
                &entry.path,
                GapReason::Changing,
                "its directory does not list it",
            ),
        };
        self.count.unverified += 1;
        if entry.links.is_some() {
            self.shared.groups().cover(entry);
        }
        self.tell(Finding::Gap(gap));
    }

    /// What rules want to know of a file, and whether it need be read at all.
    fn wants(&self, path: &TreePath, rule: Option<&Rule>, met: Option<&Met>) -> Wants {
        let known = met.and_then(|met| known(&met.entry));
        match rule.map(|rule| rule.rule_type) {
            // It drifted already if it is huge and not in the image, or of another size, and no rule has anything to
            // say about it. Else one sparse file would keep a scan busy for hours, and everything else that it found
            // untold.
            None => Wants {
                only_if: Some(HugeOnlyIf {
                    longer_than: HUGE_BYTES,
                    it_has: met.map(|met| met.entry.size()),
                }),
                known,
                ..Wants::default()
            },
            Some(RuleType::AppendOnly) => Wants {
                prefix: met.and_then(|met| match met.entry.node {
                    Node::File { size, .. } => Some(size),
                    _ => None,
                }),
                held: (self.shared.held_length)(path),
                ..Wants::default()
            },
            Some(RuleType::Shape(shape)) => Wants {
                shape: Some(shape),
                ..Wants::default()
            },
            Some(_) => Wants {
                known,
                ..Wants::default()
            },
        }
    }

    /// Long files, which all threads hash together once the walk is over.
    fn long_files(&mut self) -> Result<(), ScanError> {
        for nth in 0.. {
            let Some(long) = self.shared.long(nth) else {
                break;
            };
            self.shared.go_on()?;
            let told = &|bytes| {
                self.shared.long_done(bytes);
                self.shared.at_work(bytes);
            };
            let hashed = long.help(&mut self.reader, told);
            if matches!(hashed, Hashed::ByOthers) {
                continue;
            }
            let (path, place, read_at) = (long.path.clone(), long.place.place(), long.read_at);
            let met = long.take_met();
            // What did not hold still is read again as any other file is.
            let read = match hashed {
                Hashed::Whole(read) => read,
                Hashed::ByOthers | Hashed::Changed => {
                    let rule = self.shared.manifest.rules().first_match(&path);
                    let wants = self.wants(&path, rule.map(|(_, rule)| rule), met.as_ref());
                    self.reader.read(&path, place, Digests::Blake3, &wants)
                }
            };
            let read = self.beside_cache(&path, place, met.as_ref(), read, read_at);
            self.judge_read(path, place, met, read, read_at, None)?;
        }
        Ok(())
    }

    fn tell(&self, finding: Finding) {
        // Nobody hangs up before the last thread has.
        let _ = self.findings.send(finding);
    }

    fn tell_progress(&mut self) {
        if self.count.is_due() {
            self.shared.tell(&mut self.count);
        }
    }
}

/// What an entry's content is known by without its being read; none of most.
fn known(entry: &Entry) -> Option<Known> {
    match &entry.node {
        Node::File {
            size,
            content,
            verity: Some(measurement),
        } => Some(Known {
            measurement: **measurement,
            size: *size,
            content: *content,
        }),
        _ => None,
    }
}

/// What is known of a file without opening it; its content is a placeholder that nobody looks at.
fn unread(path: TreePath, stat: &Stat, holding: Holding) -> Entry {
    let device = Device {
        major: stat.rdev.0,
        minor: stat.rdev.1,
    };
    let node = match stat.kind {
        FileKind::File => Node::file(stat.size, Blake3::of(b"")),
        FileKind::Directory => Node::Directory,
        FileKind::Symlink => Node::Symlink {
            target: Box::default(),
        },
        FileKind::CharDevice => Node::CharDevice(device),
        FileKind::BlockDevice => Node::BlockDevice(device),
        FileKind::Fifo => Node::Fifo,
        FileKind::Socket => Node::Socket,
    };
    entry(path, stat, holding, node, Xattrs::NONE, FileFlags::NONE)
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
