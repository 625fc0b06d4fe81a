//! Receives what a pass found; changes the set of open drifts into it, and hands on what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drift::TreePath;
use drift::finding::{Drift, DriftId};
use drift::report::HeldValue;

use super::news::News;
use super::{Identified, Outcome, Sentinel, essence};
use crate::scan::Pass;

/// What one agent holds of them, as many as the collector keeps ids of, 560 bytes each where paths are short; an instance
/// with more is no longer of its image in any sense.
pub const MAX_OPEN_DRIFTS: usize = 250_000;

impl Sentinel {
    /// Makes `outcome`, of a pass that began then, what is open and held, and says what is new in that.
    pub(super) fn take_over(&mut self, outcome: Outcome, began: Duration) -> News {
        self.overflowed = outcome.drifts.len() > MAX_OPEN_DRIFTS;
        let found = outcome.drifts.into_iter().take(MAX_OPEN_DRIFTS);
        let mut found: BTreeMap<DriftId, Arc<Identified>> = found.map(|it| (it.id, it)).collect();
        let unseen = Unseen::of(outcome.gaps, outcome.more_gaps);
        if outcome.pass != Pass::Disk {
            self.retain_looked(began, &mut found);
        }
        let mut packages = outcome.packages;
        for kept in self.retain_unseen(outcome.pass, &mut found, &unseen) {
            if let Some((path, package)) = self.packages.remove_entry(&kept) {
                packages.entry(path).or_insert(package);
            }
        }
        let before = std::mem::replace(&mut self.packages, packages);
        // What the watch opened says nothing of packages, and what was half installed is whole by now: the last word counts.
        let is_told = |id: &DriftId, path: &TreePath| {
            self.open.has(id) && self.packages.get(path) == before.get(path)
        };
        let opened = found
            .iter()
            .filter(|(id, it)| !is_told(id, &it.drift.path))
            .map(|(id, _)| *id)
            .collect();
        let closed = self
            .open
            .ids()
            .filter(|id| !found.contains_key(id))
            .collect();
        self.open.replace(found.into_values());
        News {
            opened,
            closed,
            held: outcome
                .held
                .is_some_and(|held| self.take_over_held(held, &unseen)),
        }
    }

    /// Makes `held` the whole set of held values, but for those that could not be looked at. Says whether that is news.
    fn take_over_held(&mut self, held: Vec<HeldValue>, unseen: &Unseen) -> bool {
        let mut now: BTreeMap<TreePath, HeldValue> = held
            .into_iter()
            .map(|held| (held.path.clone(), held))
            .collect();
        let before = self.held.take();
        let is_news = match &before {
            None => true,
            Some(before) => {
                for (path, value) in before.iter().filter(|(path, _)| unseen.has(path)) {
                    now.entry(path.clone()).or_insert_with(|| value.clone());
                }
                !now.keys().eq(before.keys())
                    || now
                        .values()
                        .zip(before.values())
                        .any(|(a, b)| essence(a) != essence(b))
            }
        };
        self.held = Some(now);
        is_news
    }

    /// Keeps open what was open where this pass could not look: unreadable is not undone. A sweep of the disk does not
    /// see what processes see, nor the other way round: neither closes what the other opened. Gives the paths.
    fn retain_unseen(
        &self,
        pass: Pass,
        found: &mut BTreeMap<DriftId, Arc<Identified>>,
        unseen: &Unseen,
    ) -> Vec<TreePath> {
        let mut kept = Vec::new();
        let side = |drift: &Drift| (drift.path.clone(), drift.is_on_disk_alone());
        let seen: BTreeSet<(TreePath, bool)> = match unseen.is_nothing() {
            true => BTreeSet::new(),
            false => found.values().map(|it| side(&it.drift)).collect(),
        };
        for (it, _) in self.open.iter() {
            let drift = &it.drift;
            let is_looked_at = drift.is_on_disk_alone() == (pass == Pass::Disk);
            if !is_looked_at || (!seen.contains(&side(drift)) && unseen.has(&drift.path)) {
                found.insert(it.id, Arc::clone(it));
                kept.push(drift.path.clone());
            }
        }
        kept
    }
}

/// Where a pass, or looks, could not look.
pub(super) struct Unseen {
    gaps: Vec<TreePath>,
    and_more: bool,
}

impl Unseen {
    pub(super) fn of(mut gaps: Vec<TreePath>, and_more: bool) -> Self {
        gaps.sort();
        Unseen { gaps, and_more }
    }

    fn is_nothing(&self) -> bool {
        self.gaps.is_empty() && !self.and_more
    }

    /// Whether anything at a path or below it could not be looked at.
    pub(super) fn has_within(&self, path: &TreePath) -> bool {
        let first = self.gaps.partition_point(|gap| gap < path);
        let within = self.gaps.get(first);
        self.and_more || within.is_some_and(|gap| gap.is_within(path))
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        let mut above = Some(path.clone());
        while let Some(path) = above {
            if self.gaps.binary_search(&path).is_ok() {
                return true;
            }
            above = path.parent();
        }
        self.and_more
    }
}
