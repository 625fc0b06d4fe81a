//! A file that the walk met in, what was read of it out: now, when it has come, or once all threads are there.

use drift::TreePath;
use drift::compare::{Met, judge_disk};
use drift::entry::{Entry, Node};
use drift::rules::{Rule, RuleType};
use driftmark_kernel::boot;

use super::Worker;
use crate::scan::ahead::Coming;
use crate::scan::long::{Hashed, Long};
use crate::scan::read::{From, HugeOnlyIf, Known};
use crate::scan::verified::{Marks, is_settled};
use crate::scan::walk::{At, Place};
use crate::scan::{Digests, Pass, Read, ScanError, Wants};

/// A file of this length that drifted by its size alone is not read: see [`Worker::wants`].
const HUGE_BYTES: u64 = 1 << 30;

impl Worker<'_> {
    pub(super) fn file(
        &mut self,
        at: At<'_>,
        place: Place<'_>,
        rule: Option<&Rule>,
        met: Option<Met>,
        marks: &mut Marks<'_>,
    ) -> Result<(), ScanError> {
        if met.is_none() {
            self.sketch.spoil();
        }
        if self.shared.pass == Pass::Quick
            && let Ok(stat) = place.stat()
            && self.is_trusted(&stat, rule, met.as_ref(), marks)
        {
            self.sketch.name(&at, &stat);
            return Ok(());
        }
        let path = at.path();
        let mut wants = self.wants(path, rule, met.as_ref());
        wants.leave_long = wants.is_plain() && self.leaves_long;
        wants.leave_cold = self.shared.pass != Pass::Disk;
        wants.around = wants.leave_cold;
        let read_at = boot::realtime_ns();
        let read = self.reader.read(path, place, Digests::Blake3, &wants);
        match read.stat() {
            Some(stat) => self.sketch.name(&at, stat),
            None => self.sketch.miss(),
        }
        let path = at.into_path();
        let read = match read {
            Read::Long { file, stat } if self.shared.takes_long() => {
                let place = place.hold();
                self.shared
                    .add_long(Long::new(path, place, met, file, stat, read_at));
                return Ok(());
            }
            Read::Long { .. } => {
                wants.at_once();
                self.reader.read(&path, place, Digests::Blake3, &wants)
            }
            Read::Coming { file, stat } => {
                wants.at_once();
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
    pub(super) fn beside_cache(
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
    pub(super) fn has_come(
        &mut self,
        coming: Coming,
        marks: &mut Marks<'_>,
    ) -> Result<(), ScanError> {
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

    /// What rules want to know of a file, and whether it need be read at all.
    pub(super) fn wants(&self, path: &TreePath, rule: Option<&Rule>, met: Option<&Met>) -> Wants {
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
    pub(super) fn long_files(&mut self) -> Result<(), ScanError> {
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
