//! Receives when passes begin, end and fail; hands on how it stands with each kind of them. Kinds go on beside each other.

use std::time::Duration;

use crate::scan::Pass;

/// How it stands with every kind of pass.
#[derive(Debug, Default)]
pub(super) struct Courses {
    pub(super) full: Course,
    pub(super) quick: Course,
    pub(super) disk: Course,
    pub(super) processes: Course,
}

/// How it stands with one kind. All times are since boot.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// When the one began that goes on.
    began: Option<Duration>,
    /// The last one that ended.
    pub(super) ended: Option<Span>,
    /// Why the last one did not.
    pub(super) failure: Option<String>,
    /// When the last one was over, whether it ended or not.
    over: Option<Duration>,
}

/// From when to when a pass went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) began: Duration,
    pub(super) ended: Duration,
}

impl Courses {
    pub(super) fn of(&mut self, pass: Pass) -> &mut Course {
        match pass {
            Pass::Full => &mut self.full,
            Pass::Quick => &mut self.quick,
            Pass::Disk => &mut self.disk,
        }
    }
}

impl Course {
    pub(super) fn goes_on(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn begin(&mut self, uptime: Duration) {
        self.began = Some(uptime);
    }

    pub(super) fn end(&mut self, uptime: Duration) {
        self.ended = Some(Span {
            began: self.began.unwrap_or(uptime),
            ended: uptime,
        });
        self.failure = None;
        self.give_up(uptime);
    }

    pub(super) fn fail(&mut self, reason: String, uptime: Duration) {
        self.failure = Some(reason);
        self.give_up(uptime);
    }

    /// There is nothing to hold the tree against.
    pub(super) fn give_up(&mut self, uptime: Duration) {
        self.began = None;
        self.over = Some(uptime);
    }

    /// How long ago the last one was over.
    pub(super) fn over_for(&self, uptime: Duration) -> Option<Duration> {
        self.over.map(|over| uptime.saturating_sub(over))
    }

    /// How long ago the last one ended that ended.
    pub(super) fn ended_for(&self, uptime: Duration) -> Option<Duration> {
        self.ended.map(|span| uptime.saturating_sub(span.ended))
    }
}
