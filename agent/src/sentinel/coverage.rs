//! Receives passes that ended; hands on how old everything is, and which pass is due.

use std::time::Duration;

use drift::coverage::{Coverage, ScanRecord};

use super::{MAX_OPEN_DRIFTS, Outcome, Sentinel};
use crate::clock::Now;
use crate::scan::Pass;

/// A pass that failed is tried again after this, even if the interval is longer.
const SCAN_RETRY: Duration = Duration::from_secs(60);

impl Sentinel {
    /// What has and has not been verified, with ages as of `now`.
    pub fn coverage(&self, now: Now) -> Coverage {
        let mut coverage = self.coverage.clone();
        let age = |record: &mut Option<ScanRecord>, ended: Option<Duration>| {
            if let (Some(record), Some(ended)) = (record.as_mut(), ended) {
                record.age_seconds = now.uptime.saturating_sub(ended).as_secs();
            }
        };
        age(&mut coverage.seen, self.ended.full);
        age(&mut coverage.quick, self.ended.quick);
        age(&mut coverage.disk, self.ended.disk);
        let failure = self
            .scan_failure
            .as_ref()
            .map(|reason| format!("the last scan did not finish: {reason}"));
        let overflow = self.overflowed.then(|| {
            format!("more than {MAX_OPEN_DRIFTS} drifts are open; the rest is not listed")
        });
        let own = self.limit.clone();
        coverage
            .limits
            .extend(failure.into_iter().chain(overflow).chain(own));
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
        match outcome.pass {
            Pass::Full => self.ended.full = Some(now.uptime),
            Pass::Quick => self.ended.quick = Some(now.uptime),
        }
        self.ended.any = Some(now.uptime);
    }

    pub(super) fn pass_due(&self, uptime: Duration) -> Option<Pass> {
        let since = |ended: Duration| uptime.saturating_sub(ended);
        let failed = self.scan_failure.is_some() || self.unverifiable.is_some();
        let retry = SCAN_RETRY.min(self.setup.schedule.quick);
        if let (true, Some(any)) = (failed, self.ended.any)
            && since(any) < retry
        {
            return None;
        }
        match (self.ended.full, self.ended.any) {
            (Some(full), _) if since(full) >= self.setup.schedule.full => Some(Pass::Full),
            (Some(_), Some(any)) if failed || since(any) >= self.setup.schedule.quick => {
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
}
