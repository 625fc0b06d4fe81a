//! Receives what the watch tells between scans; changes the set of open drifts by it at once, and says what is new.
//!
//! A pass and the watch go on side by side. Of what was looked at since a pass began the look is the later word, since
//! whatever changes after it is looked at again; so such a pass neither opens nor closes anything there. What looks
//! cannot tell, and what happened while the watch was blind, a quick pass tells that begins after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drift::attribution::Attribution;
use drift::finding::{Drift, DriftId, DriftKind};
use drift::report::Moment;
use drift::{Blake3, TreePath};

use super::set::Unseen;
use super::{Action, MAX_OPEN_DRIFTS, Sentinel, Whole, is_own};
use crate::clock::Now;
use crate::scan::Look;
use crate::scan::look::Covering;
use crate::watch::{Sighting, actor_at};

/// What the watch has said so far.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// What it sees less.
    limits: Vec<String>,
    /// Why it ended.
    ended: Option<String>,
    /// What it tells began before this agent: it is no part of how the machine was when that started.
    is_resumed: bool,
    /// How often it was blind, and for how long in all.
    blind_count: u64,
    blind: Duration,
    /// It was, and the pass that makes up for it has not ended.
    is_blind: bool,
    /// A quick pass is wanted that begins after this.
    reconcile: Option<Duration>,
    /// Looks since the last pass began that ended, with when: those that go on tell nothing older.
    looked: Vec<(Duration, Look)>,
    /// Who did what is not yet known to be drift.
    hints: BTreeMap<TreePath, Arc<Attribution>>,
    /// When the present minute of moments began, and how many there were in it: of the agent's own files, and others.
    moments: (Duration, [u64; 2]),
}

/// More looks than this during one pass are not kept: another pass follows.
const MAX_LOOKED: usize = 64 * 1024;
/// Who did it is kept of so many paths, until a pass tells what it was.
const MAX_HINTS: usize = 4096;
/// Between two passes that the watch asks for: one takes in whatever happened meanwhile.
const RECONCILE_REST: Duration = Duration::from_secs(5);
/// More moments than this in a minute are counted, and not told.
const MOMENTS_A_MINUTE: u64 = 100;
/// So many moments fit into one report with everything that is told of who did it.
const MOMENTS_A_REPORT: usize = 8;

impl Sentinel {
    pub(super) fn watching(&mut self, limits: Vec<String>, now: Now) {
        self.watch.limits = limits;
        self.watch.ended = None;
        // Nobody saw what happened until now.
        self.reconcile(now);
    }

    pub(super) fn resumed(&mut self, limits: Vec<String>) {
        self.watch.limits = limits;
        self.watch.ended = None;
        self.watch.is_resumed = true;
    }

    pub(super) fn watch_ended(&mut self, reason: String) {
        self.watch.limits = Vec::new();
        self.watch.ended = Some(reason);
    }

    pub(super) fn blind(&mut self, from: Duration, until: Duration, now: Now) {
        self.watch.blind_count += 1;
        self.watch.blind += until.saturating_sub(from);
        self.watch.is_blind = true;
        self.reconcile(now);
    }

    /// A quick pass is wanted that begins after this moment.
    pub(super) fn reconcile(&mut self, now: Now) {
        self.watch.reconcile = Some(now.uptime);
    }

    /// Whether it is time for that pass, so long after the last one ended.
    pub(super) fn reconcile_is_due(&self, ended: Duration) -> bool {
        self.watch.reconcile.is_some() && ended >= RECONCILE_REST
    }

    /// Takes in what looks found.
    pub(super) fn seen(&mut self, mut seen: Sighting, now: Now, act: &mut dyn FnMut(Action)) {
        let unseen = Unseen::of(std::mem::take(&mut seen.unseen), false);
        let found = std::mem::take(&mut seen.drifts).into_iter();
        let found: BTreeMap<DriftId, Drift> = found.map(|drift| (drift.id(), drift)).collect();
        let room = MAX_HINTS.saturating_sub(self.watch.hints.len());
        if seen.is_in_doubt {
            self.reconcile(now);
            let hints = seen.actors.iter().take(room);
            let hints = hints.map(|(path, by)| (path.clone(), Arc::clone(by)));
            self.watch.hints.extend(hints);
        }
        self.note_looks(&seen.looks, &unseen, now);
        let before = self.open_at(&seen.looks);
        let were_open: BTreeSet<TreePath> = before.iter().map(|(path, _)| path.clone()).collect();
        for passed in &seen.passed {
            let is_first = self.whole == Whole::AtFirstScan && !self.watch.is_resumed;
            if !were_open.contains(&passed.path) && !is_first {
                let by = seen.actor(&passed.path);
                self.happened(attributed(passed.clone(), by), now);
            }
        }
        let drifted: BTreeSet<&TreePath> = found.values().map(|drift| &drift.path).collect();
        for (path, id) in before {
            if found.contains_key(&id) || unseen.has(&path) {
                continue;
            }
            let (gone, by) = (self.open.remove(&id), self.actors.remove(&path));
            self.packages.remove(&path);
            let is_untold = self.news.close(id) && self.whole != Whole::AtFirstScan;
            if let Some(drift) = gone.filter(|_| is_untold && !drifted.contains(&path)) {
                self.happened(attributed(drift, by.as_ref()), now);
            }
            self.places().remove(&(path, id));
        }
        let mut is_own_news = false;
        for (id, drift) in found {
            if self.open.len() >= MAX_OPEN_DRIFTS && !self.open.contains_key(&id) {
                self.overflowed = true;
                break;
            }
            let by = seen.actor(&drift.path);
            let is_known = self.open.contains_key(&id);
            // A pass may have come first, and could not know who it was; or a look, before it was heard who did the last of it.
            let known = self.actors.get(&drift.path);
            let is_amended = seen.amended.contains(&drift.path) && by != known;
            let is_told = is_known && (by.is_none() || known.is_some() && !is_amended);
            if let Some(by) = by.filter(|_| !is_told) {
                self.actors.insert(drift.path.clone(), Arc::clone(by));
            }
            if !is_told {
                is_own_news |= is_own(&drift);
                self.places().insert((drift.path.clone(), id));
                self.open.insert(id, drift);
                self.news.open(id);
            }
        }
        match is_own_news {
            true => self.tell_news(now, act),
            false => self.tell_news_in_time(now, act),
        }
        self.tell_moments(now, act);
    }

    /// What is open where was looked, but for what the watch cannot see.
    fn open_at(&mut self, looks: &[Look]) -> Vec<(TreePath, DriftId)> {
        let mut open: Vec<(TreePath, DriftId)> = Vec::new();
        let least = DriftId(Blake3::from_bytes([0; 32]));
        for look in looks {
            let places = self.places().range((look.path.clone(), least)..);
            let there = places.take_while(|(path, _)| look.covers(path));
            open.extend(there.cloned());
        }
        open.retain(|(_, id)| self.open.get(id).is_some_and(is_the_watchs));
        open
    }

    /// What is open by its path. Passes change the set as a whole, and this is made anew after one.
    fn places(&mut self) -> &mut BTreeSet<(TreePath, DriftId)> {
        let open = &self.open;
        self.places.get_or_insert_with(|| {
            let open = open.iter();
            open.map(|(id, drift)| (drift.path.clone(), *id)).collect()
        })
    }

    /// Keeps where was looked, for the passes that are going on.
    fn note_looks(&mut self, looks: &[Look], unseen: &Unseen, now: Now) {
        if !self.is_scanning() {
            self.watch.looked.clear();
            return;
        }
        let looks = looks.iter().filter(|look| !unseen.has_within(&look.path));
        let looks = looks.map(|look| (now.uptime, look.clone()));
        self.watch.looked.extend(looks);
        if self.watch.looked.len() > MAX_LOOKED {
            self.watch.looked.clear();
            self.reconcile(now);
        }
    }

    /// Gives what a pass found that began then the word of the looks that were later.
    pub(super) fn retain_looked(&self, began: Duration, found: &mut BTreeMap<DriftId, Drift>) {
        let looked = self.watch.looked.iter();
        let later = looked.filter(|(at, _)| *at >= began).map(|(_, look)| look);
        let covering = Covering::of(later);
        if covering.is_empty() {
            return;
        }
        let is_looked_at = |drift: &Drift| is_the_watchs(drift) && covering.covers(&drift.path);
        found.retain(|_, drift| !is_looked_at(drift));
        let open = self.open.iter().filter(|(_, drift)| is_looked_at(drift));
        found.extend(open.map(|(id, drift)| (*id, drift.clone())));
    }

    /// A pass ended that had begun then; the set of what is open is that of now.
    pub(super) fn reconciled(&mut self, began: Duration) {
        if self.watch.reconcile.is_some_and(|asked| asked <= began) {
            self.watch.reconcile = None;
            self.watch.is_blind = false;
        }
        // Whatever tells next has begun, or will begin, later than this one did.
        self.watch.looked.retain(|(at, _)| *at >= began);
        if !self.is_scanning() {
            self.watch.looked.clear();
        }
        let hints = std::mem::take(&mut self.watch.hints);
        let mut actors = BTreeMap::new();
        for drift in self.open.values().filter(|drift| is_the_watchs(drift)) {
            let known = self.actors.get(&drift.path);
            if let Some(by) = known.or_else(|| actor_at(&hints, &drift.path)) {
                actors.insert(drift.path.clone(), Arc::clone(by));
            }
        }
        self.actors = actors;
    }

    /// What the watch does not see, a sentence each.
    pub(super) fn watch_limits(&self) -> impl Iterator<Item = String> + use<> {
        let ended = self
            .watch
            .ended
            .as_ref()
            .map(|reason| format!("nothing is watched between scans: {reason}"));
        let blind = self.watch.is_blind.then(|| {
            "the watch was blind: what changed then is known once the next scan has ended"
                .to_owned()
        });
        let limits = self.watch.limits.clone();
        limits.into_iter().chain(ended).chain(blind)
    }

    /// For how long it was blind, as a sentence; none if it never was.
    pub(super) fn watch_note(&self) -> Option<String> {
        (self.watch.blind_count > 0).then(|| {
            format!(
                "the watch was blind for {} ms in all, {} times: what changed then was found by scans",
                self.watch.blind.as_millis(),
                self.watch.blind_count
            )
        })
    }

    /// Something happened, and is to be told, unless too much does.
    pub(super) fn happened(&mut self, drift: Drift, now: Now) {
        let (began, counts) = &mut self.watch.moments;
        if now.uptime.saturating_sub(*began) >= Duration::from_secs(60) {
            (*began, *counts) = (now.uptime, [0; 2]);
        }
        // However many others there are, those of the agent's own files are told.
        let count = &mut counts[usize::from(!is_own(&drift))];
        *count += 1;
        if *count > MOMENTS_A_MINUTE {
            self.dropped_moments += 1;
            return;
        }
        self.untold.push(drift);
    }

    /// Tells the moments that were not told yet.
    pub(super) fn tell_moments(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        let mut untold = std::mem::take(&mut self.untold);
        untold.sort_by_key(|drift| !is_own(drift));
        if !untold.is_empty() {
            self.tell_news(now, act);
        }
        for drifts in untold.chunks(MOMENTS_A_REPORT) {
            let mut moments = Vec::new();
            for drift in drifts {
                self.moments += 1;
                moments.push(Moment {
                    number: self.moments,
                    drift: drift.clone(),
                    agent_clock_milliseconds: now.clock_milliseconds,
                });
            }
            let mut report = self.report(now);
            report.moments = moments;
            act(Action::Keep(Box::new(report)));
        }
    }
}

fn attributed(drift: Drift, by: Option<&Arc<Attribution>>) -> Drift {
    Drift {
        attribution: by.map(|by| Box::new(Attribution::clone(by))),
        ..drift
    }
}

/// What is mounted over a path, and what the disk alone has, other passes tell.
fn is_the_watchs(drift: &Drift) -> bool {
    drift.kind != DriftKind::Covered && !drift.is_on_disk_alone()
}
