//! Receives passes that ended; hands on how old everything is, and which pass is due.

use std::time::Duration;

use drift::coverage::{Coverage, ScanRecord};
use drift::finding::Drift;

use super::{MAX_OPEN_DRIFTS, Outcome, Sentinel, Span};
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
            self.ended.full,
            "content",
            schedule.ceiling(Pass::Full),
        );
        age(&mut coverage.quick, self.ended.quick, "metadata", None);
        age(
            &mut coverage.disk,
            self.ended.disk,
            "the disk",
            schedule.ceiling(Pass::Disk),
        );
        let failure = self
            .scan_failure
            .as_ref()
            .map(|reason| format!("the last scan did not finish: {reason}"));
        let overflow = self.overflowed.then(|| {
            format!("more than {MAX_OPEN_DRIFTS} drifts are open; the rest is not listed")
        });
        let own = self.limit.clone();
        // That of a sweep stands until the next one, whatever pass came last.
        let swept = coverage.disk.as_ref().and_then(ScanRecord::cached_limit);
        let swept = swept.filter(|limit| !coverage.limits.contains(limit));
        let unswept = self.sweep_failure.as_ref();
        let unswept =
            unswept.map(|(reason, _)| format!("the last disk sweep did not finish: {reason}"));
        let all = failure
            .into_iter()
            .chain(unswept)
            .chain(overflow)
            .chain(own);
        coverage.limits.extend(all.chain(swept).chain(late));
        coverage.noted()
    }

    /// What limits the whole instance besides the scans, from now on; the next report says so.
    pub fn limit(&mut self, limit: Option<String>) {
        self.limit = limit;
    }

    pub(super) fn record_pass(&mut self, outcome: &Outcome, now: Now) {
        let coverage = outcome.coverage.clone();
        let before = std::mem::replace(&mut self.coverage, coverage);
        let latest = &mut self.coverage;
        latest.seen = latest.seen.take().or(before.seen);
        latest.quick = latest.quick.take().or(before.quick);
        latest.disk = latest.disk.take().or(before.disk);
        let began = match outcome.pass {
            Pass::Disk => self.sweeping.take(),
            Pass::Full | Pass::Quick => self.scanning.take(),
        };
        let span = Span {
            began: began.unwrap_or(now.uptime),
            ended: now.uptime,
        };
        match outcome.pass {
            Pass::Full => self.ended.full = Some(span),
            Pass::Quick => self.ended.quick = Some(span),
            Pass::Disk => self.ended.disk = Some(span),
        }
        if outcome.pass != Pass::Disk {
            self.ended.any = Some(now.uptime);
        }
    }

    pub(super) fn pass_due(&self, uptime: Duration) -> Option<Pass> {
        let since = |ended: Duration| uptime.saturating_sub(ended);
        let schedule = &self.setup.schedule;
        let failed = self.scan_failure.is_some() || self.unverifiable.is_some();
        let retry = SCAN_RETRY.min(schedule.quick);
        if let (true, Some(any)) = (failed, self.ended.any)
            && since(any) < retry
        {
            return None;
        }
        match (self.ended.full, self.ended.any) {
            (Some(full), _) if since(full.ended) >= schedule.full => Some(Pass::Full),
            (Some(_), Some(any)) if failed || since(any) >= schedule.quick => {
                Some(if self.unverifiable.is_some() {
                    Pass::Full
                } else {
                    Pass::Quick
                })
            }
            (None, _) => Some(Pass::Full),
            _ => None,
        }
    }

    /// Whether the disk is to be swept, beside whatever other pass: a sweep takes its time, and a quick pass must not wait for
    /// it. At boot nothing is cached, and the first full scan reads from the disk by itself; a
    /// run that another one was before knows nothing of what that one found there.
    pub(super) fn disk_is_due(&self, uptime: Duration) -> bool {
        let Some(interval) = self.setup.schedule.disk else {
            return false;
        };
        if self.ended.full.is_none() || self.unverifiable.is_some() {
            return false;
        }
        if let Some((_, failed)) = &self.sweep_failure
            && uptime.saturating_sub(*failed) < SCAN_RETRY
        {
            return false;
        }
        let swept = match self.ended.disk {
            Some(span) => span.ended,
            None if self.setup.previous_run.is_some() => return true,
            None => Duration::ZERO,
        };
        // Only another sweep can close what a sweep has opened.
        let is_open = self.open.values().any(Drift::is_on_disk_alone);
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
