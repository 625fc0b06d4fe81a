//! Receives what the watch tells between scans; changes the set of open drifts by it at once, and says what is new.
//!
//! A pass and the watch go on side by side. Of what was looked at since a pass began the look is the later word, since
//! whatever changes after it is looked at again; so such a pass neither opens nor closes anything there. What looks
//! cannot tell, and what happened while the watch was blind, a quick pass tells that begins after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drift::TreePath;
use drift::attribution::Attribution;
use drift::finding::{Drift, DriftId, DriftKind};
use drift::report::Moment;

use super::set::Unseen;
use super::{Action, Identified, MAX_OPEN_DRIFTS, Sentinel, Whole, is_own};
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
        let found = found.map(Identified::from);
        let found: BTreeMap<DriftId, Identified> = found.map(|it| (it.id, it)).collect();
        let room = MAX_HINTS.saturating_sub(self.watch.hints.len());
        if seen.is_in_doubt {
            self.reconcile(now);
            let hints = seen.actors.iter().take(room);
            let hints = hints.map(|(path, by)| (path.clone(), Arc::clone(by)));
            self.watch.hints.extend(hints);
        }
        self.note_looks(&seen.looks, &unseen, now);
        let before = self.open_at(&seen.looks);
        let were_open: BTreeSet<&TreePath> = before.iter().map(|it| &it.drift.path).collect();
        for passed in &seen.passed {
            let is_first = self.whole == Whole::AtFirstScan && !self.watch.is_resumed;
            if !were_open.contains(&passed.path) && !is_first {
                let by = seen.actor(&passed.path);
                self.happened(attributed(passed.clone(), by), now);
            }
        }
        let drifted: BTreeSet<&TreePath> = found.values().map(|it| &it.drift.path).collect();
        for it in &before {
            let path = &it.drift.path;
            if found.contains_key(&it.id) || unseen.has(path) {
                continue;
            }
            let gone = self.open.close(&it.id);
            self.packages.remove(path);
            let is_untold = self.news.close(it.id) && self.whole != Whole::AtFirstScan;
            if let Some((_, by)) = gone.filter(|_| is_untold && !drifted.contains(path)) {
                self.happened(attributed(it.drift.clone(), by.as_ref()), now);
            }
        }
        let mut is_own_news = false;
        for (id, it) in found {
            let open = self.open.get(&id);
            if self.open.len() >= MAX_OPEN_DRIFTS && open.is_none() {
                self.overflowed = true;
                break;
            }
            let path = &it.drift.path;
            let by = seen.actor(path);
            // A pass may have come first, and could not know who it was; or a look, before it was heard who did the last of it.
            let is_news = open.is_none_or(|(_, known)| {
                let is_amended = seen.amended.contains(path) && by != known;
                by.is_some() && (known.is_none() || is_amended)
            });
            if is_news {
                is_own_news |= is_own(&it.drift);
                self.open.open(Arc::new(it), by.cloned());
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
    fn open_at(&mut self, looks: &[Look]) -> Vec<Arc<Identified>> {
        let mut open = Vec::new();
        for look in looks {
            let there = self.open.at(look);
            open.extend(there.filter(|it| is_the_watchs(&it.drift)).cloned());
        }
        open
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
    pub(super) fn retain_looked(
        &self,
        began: Duration,
        found: &mut BTreeMap<DriftId, Arc<Identified>>,
    ) {
        let looked = self.watch.looked.iter();
        let later = looked.filter(|(at, _)| *at >= began).map(|(_, look)| look);
        let covering = Covering::of(later);
        if covering.is_empty() {
            return;
        }
        let is_looked_at =
            |it: &Identified| is_the_watchs(&it.drift) && covering.covers(&it.drift.path);
        found.retain(|_, it| !is_looked_at(it));
        let open = self.open.iter().filter(|(it, _)| is_looked_at(it));
        found.extend(open.map(|(it, _)| (it.id, Arc::clone(it))));
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
        self.open.attribute(|drift| {
            let by = actor_at(&hints, &drift.path);
            by.filter(|_| is_the_watchs(drift)).cloned()
        });
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
