//! Receives passes that ended; hands on how old everything is, and which pass is due.

use std::time::Duration;

use drift::coverage::{Coverage, ScanRecord};
use drift::finding::Drift;

use super::course::{Course, Span};
use super::{MAX_OPEN_DRIFTS, Outcome, Sentinel};
use crate::clock::Now;
use crate::scan::Pass;

/// A pass that failed is tried again after this, even if the interval is longer.
const SCAN_RETRY: Duration = Duration::from_secs(60);

impl Sentinel {
    /// What has and has not been verified, with ages as of `now`.
    pub fn coverage(&self, now: Now) -> Coverage {
        let mut coverage = self.coverage.clone();
        let schedule = &self.setup.schedule;
        let since = |then: Duration| now.uptime.saturating_sub(then).as_secs();
        let mut late = Vec::new();
        let mut age = |record: &mut Option<ScanRecord>, span: Option<Span>, what, ceiling| {
            if let (Some(record), Some(span)) = (record.as_mut(), span) {
                record.age_seconds = since(span.ended);
                record.oldest_seconds = since(span.began);
                record.ceiling_seconds =
                    Option::map(ceiling, |ceiling: Duration| ceiling.as_secs());
                late.extend(too_old(record, what));
            }
        };
        age(
            &mut coverage.seen,
            self.courses.full.ended,
            "content",
            schedule.ceiling(Pass::Full),
        );
        age(
            &mut coverage.quick,
            self.courses.quick.ended,
            "metadata",
            None,
        );
        age(
            &mut coverage.disk,
            self.courses.disk.ended,
            "the disk",
            schedule.ceiling(Pass::Disk),
        );
        let failed = |course: &Course, what| {
            let reason = course.failure.as_ref();
            reason.map(|reason| format!("the last {what} did not finish: {reason}"))
        };
        let failures = [
            failed(&self.courses.full, "scan"),
            failed(&self.courses.quick, "quick scan"),
            failed(&self.courses.disk, "disk sweep"),
        ];
        let overflow = self.overflowed.then(|| {
            format!("more than {MAX_OPEN_DRIFTS} drifts are open; the rest is not listed")
        });
        let own = self.limit.iter().chain(&self.unguarded).cloned();
        // That of a sweep stands until the next one, whatever pass came last.
        let swept = coverage.disk.as_ref().and_then(ScanRecord::cached_limit);
        let swept = swept.filter(|limit| !coverage.limits.contains(limit));
        let all = failures.into_iter().flatten().chain(overflow).chain(own);
        let all = all.chain(swept).chain(late).chain(self.watch_limits());
        coverage.limits.extend(all);
        self.cover_processes(&mut coverage, now);
        let mut coverage = coverage.noted();
        coverage.notes.extend(self.watch_note());
        coverage
    }

    /// What limits the whole instance besides the scans, from now on; the next report says so.
    pub fn limit(&mut self, limit: Option<String>) {
        self.limit = limit;
    }

    /// What is run although it should not be, a sentence each, from now on; the next report says so.
    pub fn unguarded(&mut self, limits: Vec<String>) {
        self.unguarded = limits;
    }

    /// Gives when the pass began.
    pub(super) fn record_pass(&mut self, outcome: &Outcome, now: Now) -> Duration {
        let coverage = outcome.coverage.clone();
        let before = std::mem::replace(&mut self.coverage, coverage);
        let latest = &mut self.coverage;
        latest.seen = latest.seen.take().or(before.seen);
        latest.quick = latest.quick.take().or(before.quick);
        latest.disk = latest.disk.take().or(before.disk);
        latest.processes = before.processes;
        let course = self.courses.of(outcome.pass);
        course.end(now.uptime);
        course.ended.map_or(now.uptime, |span| span.began)
    }

    /// Whether a pass over what processes see is going on.
    pub(super) fn is_scanning(&self) -> bool {
        self.courses.full.goes_on() || self.courses.quick.goes_on()
    }

    /// Whether a pass is to begin. Each goes on beside whatever other: a full one and a sweep take their time, and a quick
    /// one must not wait for them.
    pub(super) fn is_due(&mut self, pass: Pass, uptime: Duration) -> bool {
        let course = self.courses.of(pass);
        if course.goes_on() {
            return false;
        }
        let is_refused = self.unverifiable.is_some() && pass == Pass::Full;
        let retry = SCAN_RETRY.min(self.setup.schedule.quick);
        let is_early = |over: Duration| over < retry;
        if (course.failure.is_some() || is_refused) && course.over_for(uptime).is_some_and(is_early)
        {
            return false;
        }
        match pass {
            Pass::Full => self.full_is_due(uptime),
            Pass::Quick => self.quick_is_due(uptime),
            Pass::Disk => self.disk_is_due(uptime),
        }
    }

    fn full_is_due(&self, uptime: Duration) -> bool {
        let interval = self.setup.schedule.full;
        let ended = self.courses.full.ended_for(uptime);
        self.unverifiable.is_some() || ended.is_none_or(|ended| ended >= interval)
    }

    /// The end of a full pass is a quick one too. Before the first there is nothing to trust.
    fn quick_is_due(&self, uptime: Duration) -> bool {
        let (full, quick) = (&self.courses.full, &self.courses.quick);
        let Some(full) = full.ended_for(uptime) else {
            return false;
        };
        let ended = quick
            .ended_for(uptime)
            .map_or(full, |quick| quick.min(full));
        let is_late = quick.failure.is_some()
            || ended >= self.setup.schedule.quick
            || self.reconcile_is_due(ended);
        is_late && self.unverifiable.is_none()
    }

    /// At boot nothing is cached, and the first full scan reads from the disk by itself; a run that another one was before
    /// knows nothing of what that one found there.
    fn disk_is_due(&self, uptime: Duration) -> bool {
        let Some(interval) = self.setup.schedule.disk else {
            return false;
        };
        if self.courses.full.ended.is_none() || self.unverifiable.is_some() {
            return false;
        }
        let swept = match self.courses.disk.ended {
            Some(span) => span.ended,
            None if self.setup.previous_run.is_some() => return true,
            None => Duration::ZERO,
        };
        // Only another sweep can close what a sweep has opened.
        let is_open = self.open.drifts().any(Drift::is_on_disk_alone);
        let interval = match is_open {
            true => interval.min(self.setup.schedule.full),
            false => interval,
        };
        uptime.saturating_sub(swept) >= interval
    }
}

/// A sentence where nothing keeps an age below its ceiling any more: passes fail, or the machine gives them no time.
fn too_old(record: &ScanRecord, what: &str) -> Option<String> {
    let ceiling = record.ceiling_seconds?;
    (record.oldest_seconds > ceiling).then(|| {
        format!(
            "{what} was last verified whole {} s ago: the ceiling is {ceiling} s",
            record.oldest_seconds
        )
    })
}
