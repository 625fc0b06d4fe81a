//! What a thread found at a path in, findings and marks out.

use drift::compare::{Finding, Met, is_as_expected, judge, judge_missing, judge_unread};
use drift::coverage::GapReason;
use drift::entry::{Device, Entry, FileFlags, Node, Xattrs};
use drift::observation::{Found, Group};
use drift::rules::Rule;
use drift::{Blake3, TreePath};
use driftmark_kernel::{FileKind, Stat};

use super::Worker;
use crate::scan::filesystems::{Holding, is_absent};
use crate::scan::shared::{Judged, Waits, Whole};
use crate::scan::verified::Marks;
use crate::scan::walk::{Place, entry, gap, group, unreadable};
use crate::scan::{Pass, Read, ScanError};

impl Worker<'_> {
    /// Whether a path is known to be as the manifest says, because nothing about it has moved since that was seen.
    pub(super) fn is_trusted(
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
    pub(super) fn hold_trusted(&self, met: &Met, stat: &Stat) {
        let Some(group) = group(stat).filter(|_| met.entry.node != Node::SelfFile) else {
            return;
        };
        let (entry, as_it_was) = (&met.entry, Waits::AsExpected(met.ordinal));
        let links = entry.links.clone();
        self.shared.hold(group, &entry.path, links, as_it_was);
    }

    /// What came of reading a file.
    pub(super) fn judge_read(
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
                self.forget(met.as_ref(), marks);
                met.into_iter().for_each(|met| self.missing(&met.entry));
            }
            Read::Enough(stat) => {
                self.forget(met.as_ref(), marks);
                self.unread(path, place.holding, met, &stat);
            }
            Read::Gap(gap) => {
                self.unverified(met.as_ref(), marks);
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

    pub(super) fn found(
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
        if let Some(group) = found.group {
            return self.hold(group, ordinal.zip(expected), found, judged, marks);
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
        self.note(judged.map(|judged| Judged { told, ..judged }), marks);
    }

    /// A name of a link group is judged once all of them are known; of most no more is kept until then than which entry
    /// it is.
    fn hold(
        &self,
        group: Group,
        met: Option<(u64, Entry)>,
        found: Found,
        judged: Option<Judged>,
        marks: Option<&mut Marks<'_>>,
    ) {
        let expectation = &self.shared.expectation;
        let path = found.entry.path.clone();
        let (links, waits) = match met {
            Some((ordinal, expected)) if is_as_expected(expectation, &expected, &found) => {
                self.note(judged, marks);
                (expected.links, Waits::AsExpected(ordinal))
            }
            met => {
                let mut expected = met.map(|(_, entry)| entry);
                let links = expected.as_mut().and_then(|entry| entry.links.take());
                let whole = Whole {
                    expected,
                    found,
                    judged,
                };
                (links, Waits::Whole(Box::new(whole)))
            }
        };
        self.shared.hold(group, &path, links, waits);
    }

    fn note(&self, judged: Option<Judged>, marks: Option<&mut Marks<'_>>) {
        match (judged, marks) {
            (Some(judged), Some(marks)) => judged.note(marks),
            (Some(judged), None) => self.shared.note_later(judged),
            (None, _) => {}
        }
    }

    /// A file that was not read is judged by what is known of it without opening it.
    pub(super) fn unread(
        &mut self,
        path: TreePath,
        holding: Holding,
        met: Option<Met>,
        stat: &Stat,
    ) {
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

    /// An entry could not be verified.
    pub(super) fn unverified(&mut self, met: Option<&Met>, marks: Option<&mut Marks<'_>>) {
        self.count.unverified += u64::from(met.is_some());
        self.forget(met, marks);
    }

    /// What was marked of an entry is not what it is now, even if it was not read.
    fn forget(&self, met: Option<&Met>, marks: Option<&mut Marks<'_>>) {
        match (met.filter(|_| self.shared.pass != Pass::Disk), marks) {
            (Some(met), Some(marks)) => marks.forget(met.ordinal),
            (Some(met), None) => self.shared.forget_later(met.ordinal),
            (None, _) => {}
        }
    }

    /// A name that could not be read may still be one of its group.
    pub(super) fn cover(&self, met: Option<&Met>) {
        if let Some(met) = met.filter(|met| met.entry.links.is_some()) {
            self.shared.groups().cover(&met.entry);
        }
    }

    /// What its directory does not list is gone only if it cannot be looked up either: ext4 passes over a damaged block
    /// of a directory without a word, and what hides from a listing is not gone.
    pub(super) fn missing(&mut self, entry: &Entry) {
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
        self.sketch.miss();
        self.count.unverified += 1;
        if entry.links.is_some() {
            self.shared.groups().cover(entry);
        }
        self.tell(Finding::Gap(gap));
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
