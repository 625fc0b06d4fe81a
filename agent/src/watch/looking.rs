//! Looks that are due in; what they found, and who did it, out. On a thread of its own: a large file takes its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use drift::TreePath;
use drift::attribution::Attribution;
use drift::compare::{Expectation, Finding, judge_passing};
use drift::coverage::GapReason;
use drift::finding::Drift;
use drift::manifest::Lookups;
use driftmark_kernel::fanotify::Mask;

use super::actors::Touch;
use crate::baseline::{Baseline, ManifestFile};
use crate::scan::filesystems::{Filesystems, is_absent};
use crate::scan::look::{Covering, Linked, LookRequest, Looked, look};
use crate::scan::{Look, Reach};

/// What looks found.
#[derive(Debug, Default)]
pub struct Sighting {
    /// Where was looked.
    pub looks: Vec<Look>,
    /// All that drifted there.
    pub drifts: Vec<Drift>,
    /// Where could not be looked, and what is below it.
    pub unseen: Vec<TreePath>,
    /// What happened there and is over; nothing where it was drift before.
    pub passed: Vec<Drift>,
    /// Who did it, by where it was done: at the path itself, or at a directory above.
    pub actors: BTreeMap<TreePath, Arc<Attribution>>,
    /// Where the looks before may have seen what these did already, and named somebody else.
    pub amended: BTreeSet<TreePath>,
    /// Whether only a pass over the tree can tell all of it.
    pub is_in_doubt: bool,
}

impl Sighting {
    /// Who is known to have done something at a path, or at the nearest directory above it.
    pub fn actor(&self, path: &TreePath) -> Option<&Arc<Attribution>> {
        actor_at(&self.actors, path)
    }
}

/// Who is known to have done something at a path, or at the nearest directory above it.
pub(crate) fn actor_at<'a>(
    actors: &'a BTreeMap<TreePath, Arc<Attribution>>,
    path: &TreePath,
) -> Option<&'a Arc<Attribution>> {
    if actors.is_empty() {
        return None;
    }
    let above = std::iter::successors(Some(path.clone()), TreePath::parent);
    above.into_iter().find_map(|path| actors.get(&path))
}

/// What looks are taken with.
pub(super) struct Gaze<'a> {
    pub(super) baseline: &'a Baseline,
    pub(super) filesystems: &'a Filesystems,
    pub(super) linked: &'a Linked,
    pub(super) over: &'a AtomicBool,
}

/// More entries than this below one directory are left to a pass over the tree: that trusts what has not moved.
const MOST_ENTRIES: usize = 4096;
/// What was done at a path that may be over before it is looked at: not `ATTRIB` and `CLOSE_WRITE`, which are also said
/// where nothing is other than before.
const DEEDS: Mask = Mask::MODIFY
    .and(Mask::CREATE)
    .and(Mask::DELETE)
    .and(Mask::RENAME)
    .and(Mask::MOVED_FROM)
    .and(Mask::MOVED_TO);

impl Gaze<'_> {
    /// Takes looks, and gives what they found and what has to be looked at again, as it did not hold still. None where
    /// they were interrupted.
    pub(super) fn take(
        &self,
        looks: Vec<Look>,
        touches: &BTreeMap<TreePath, Touch>,
        lookups: &mut Lookups<'_, ManifestFile>,
    ) -> Option<(Sighting, Vec<TreePath>)> {
        let (looks, large): (Vec<_>, Vec<_>) =
            looks.into_iter().partition(|look| !self.is_large(look));
        let mut again = Vec::new();
        let mut sighting = Sighting {
            is_in_doubt: !large.is_empty(),
            ..Sighting::default()
        };
        for (path, touch) in touches {
            if let Some(by) = &touch.by {
                sighting.actors.insert(path.clone(), Arc::clone(by));
            }
            if touch.may_be_told && touch.what.has_any(DEEDS.and(Mask::ATTRIB)) {
                sighting.amended.insert(path.clone());
            }
        }
        let request = LookRequest {
            baseline: self.baseline,
            filesystems: self.filesystems,
            linked: self.linked,
            looks: &looks,
            most: MOST_ENTRIES,
            interrupt: self.over,
        };
        let looked = look(&request, lookups, &mut |finding| match finding {
            Finding::Drift(difference) => sighting.drifts.push(difference.drift),
            Finding::Gap(gap) if gap.reason == GapReason::Changing => again.push(gap.path),
            Finding::Gap(gap) => sighting.unseen.push(gap.path),
            // What an append-only file has come to is no news; any other held value is, and is told as a whole set.
            Finding::Held(held) => sighting.is_in_doubt |= held.length.is_none(),
        });
        match looked {
            Ok(Looked {
                too_large,
                besides,
                is_in_doubt,
            }) => {
                sighting.is_in_doubt |= is_in_doubt;
                sighting.looks = looks;
                let is_whole = |look: &Look| !too_large.contains(&look.path);
                sighting.looks.retain(is_whole);
                self.share_actors(&besides, &mut sighting);
                sighting.looks.extend(besides.into_iter().map(|path| Look {
                    path,
                    reach: Reach::Itself,
                }));
                sighting.unseen.extend(again.iter().cloned());
                sighting.passed = self.passed(touches, &sighting, lookups);
            }
            Err(crate::scan::ScanError::Interrupted) => return None,
            Err(error) => {
                tracing::warn!(error = %crate::log::Chain(&error), "what has changed was not looked at");
                sighting.is_in_doubt = true;
                sighting.drifts.clear();
            }
        }
        Some((sighting, again))
    }

    fn is_large(&self, look: &Look) -> bool {
        if look.reach == Reach::Itself {
            return false;
        }
        let manifest = &self.baseline.manifest;
        let read = manifest.entries_from(&look.path).filter_map(Result::ok);
        let within = read.take_while(|entry| entry.path.is_within(&look.path));
        look.path.is_root() || within.take(MOST_ENTRIES + 1).count() > MOST_ENTRIES
    }

    /// What was done to a name of an inode was done to all of them.
    fn share_actors(&self, besides: &[TreePath], sighting: &mut Sighting) {
        for path in besides {
            let mut names = self.linked.names(path);
            let by = names.find_map(|name| sighting.actors.get(name));
            if let Some(by) = by.cloned() {
                sighting.actors.insert(path.clone(), by);
            }
        }
    }

    /// Where something was done, and all is as it should be.
    fn passed(
        &self,
        touches: &BTreeMap<TreePath, Touch>,
        sighting: &Sighting,
        lookups: &mut Lookups<'_, ManifestFile>,
    ) -> Vec<Drift> {
        let manifest = &self.baseline.manifest;
        let expectation = Expectation::new(manifest.header());
        let looks = Covering::of(&sighting.looks);
        let told: BTreeSet<&TreePath> = sighting.drifts.iter().map(|drift| &drift.path).collect();
        let mut passed = Vec::new();
        for (path, touch) in touches
            .iter()
            .filter(|(_, touch)| touch.what.has_any(DEEDS))
        {
            let is_looked_at = looks.covers(path);
            let is_told = told.contains(path);
            let is_unseen = sighting.unseen.iter().any(|gap| path.is_within(gap));
            if !is_looked_at || is_told || is_unseen {
                continue;
            }
            let Ok(expected) = lookups.entry(path) else {
                continue;
            };
            // What a directory has, its own names say.
            let is_directory = touch.what.has(Mask::ON_DIRECTORY);
            let is_gone =
                || matches!(self.filesystems.look_up(path), Err(error) if is_absent(&error));
            if expected.is_some() && is_directory || expected.is_none() && !is_gone() {
                continue;
            }
            passed.extend(judge_passing(&expectation, path, expected.as_ref()));
        }
        passed
    }
}
