//! Receives what sweeps of the processes find; hands on when the next is due, and what coverage says of the last.

use std::collections::BTreeSet;
use std::time::Duration;

use drift::TreePath;
use drift::coverage::Coverage;
use drift::entry::Attribute;
use drift::finding::DriftKind;

use super::{Action, Sentinel};
use crate::clock::Now;
use crate::sweep::Swept;

/// More drifted files than this are not named to a sweep: what runs from the others is drift of its own anyway.
const MAX_DRIFTED: usize = 1024;
/// One that does not come to its end is late after this, whatever the interval.
const LATE: Duration = Duration::from_secs(60);

impl Sentinel {
    /// Whether the processes are to be swept. There has to be something to hold them against.
    pub(super) fn sweep_is_due(&self, uptime: Duration) -> bool {
        let Some(interval) = self.setup.schedule.processes else {
            return false;
        };
        let course = &self.courses.processes;
        let rested = course.over_for(uptime);
        self.image.is_some() && !course.goes_on() && rested.is_none_or(|rested| rested >= interval)
    }

    /// Files of the image that have other content now.
    pub(super) fn drifted_files(&self) -> BTreeSet<TreePath> {
        let is_content =
            |changed: &drift::entry::AttributeSet| changed.contains(Attribute::Content);
        let open = self.open.drifts();
        open.filter(|drift| drift.kind == DriftKind::Changed && is_content(&drift.changed))
            .map(|drift| drift.path.clone())
            .take(MAX_DRIFTED)
            .collect()
    }

    pub(super) fn swept(&mut self, swept: Swept, now: Now, act: &mut dyn FnMut(Action)) {
        self.courses.processes.end(now.uptime);
        self.coverage.processes = Some(swept.record);
        for moment in swept.moments {
            self.happened(moment, now);
        }
        self.tell_moments(now, act);
    }

    /// The age of the last sweep, and what it did not see.
    pub(super) fn cover_processes(&self, coverage: &mut Coverage, now: Now) {
        let course = &self.courses.processes;
        let failed = course.failure.as_ref();
        let failed = failed
            .map(|reason| format!("the last sweep of the processes did not finish: {reason}"));
        coverage.limits.extend(failed);
        let (Some(record), Some(span)) = (&mut coverage.processes, course.ended) else {
            return;
        };
        let age = now.uptime.saturating_sub(span.began);
        record.age_seconds = age.as_secs();
        coverage.limits.extend(record.limits());
        let interval = self.setup.schedule.processes.unwrap_or_default();
        if age > 2 * interval + LATE {
            let seconds = age.as_secs();
            let late = format!("the processes were last swept {seconds} s ago");
            coverage.limits.push(late);
        }
    }
}
