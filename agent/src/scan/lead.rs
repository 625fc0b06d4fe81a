//! The walk's side of a scan: which entry each path meets, and what has to be read.

use std::sync::PoisonError;
use std::sync::mpsc::SyncSender;

use drift::compare::{CompareError, Merge, Met};
use drift::coverage::Gap;
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::manifest::Manifest;
use drift::observation::Found;
use drift::rules::RuleType;
use drift::{Blake3, TreePath};
use driftmark_kernel::Stat;

use super::filesystems::{Filesystems, Holding};
use super::queues::{BATCH, Job, Outcome, Parts};
use super::walk::{Place, Visit, Walk};
use super::{Pass, Wants};
use crate::baseline::ManifestFile;

/// A file of this length that drifted by its size alone is not read: see [`Walker::is_enough`].
const HUGE_BYTES: u64 = 1 << 30;

/// The walk's side: which entry each path meets, and what has to be read.
pub(super) struct Walker<'a, 'v> {
    pub(super) manifest: &'a Manifest<ManifestFile>,
    pub(super) parts: &'a Parts<'a, 'v>,
    pub(super) jobs: SyncSender<Vec<Job>>,
    pub(super) outcomes: SyncSender<Vec<Outcome>>,
    pub(super) batch: Vec<Job>,
    pub(super) told: Vec<Outcome>,
}

/// The other side has hung up: the scan is over.
struct HungUp;

impl Walker<'_, '_> {
    pub(super) fn run(mut self, filesystems: &Filesystems) {
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
pub(super) fn unread(path: TreePath, stat: &Stat, holding: Holding) -> Entry {
    let node = Node::File {
        size: stat.size,
        content: Blake3::of(b""),
    };
    super::walk::entry(path, stat, holding, node, Xattrs::NONE, FileFlags::NONE)
}
