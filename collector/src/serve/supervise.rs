//! Receives how the collector is, and tells systemd, which starts, watches and stops it.
//!
//! Where nobody asked to be told (`NOTIFY_SOCKET`, `WATCHDOG_USEC`), nothing is sent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Speaks to the service manager.
#[derive(Debug)]
pub(super) struct Supervisor {
    watchdog: Option<Duration>,
    fed: Option<Instant>,
}

impl Supervisor {
    /// Asks whether there is a watchdog to feed.
    pub(super) fn new() -> Self {
        Supervisor {
            watchdog: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()),
            fed: None,
        }
    }

    /// Feeds the watchdog, twice in each of its periods. Call it after each look at the store.
    pub(super) fn alive(&mut self) {
        let Some(period) = self.watchdog else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= period / 2) {
            self.fed = Some(Instant::now());
            tell(NotifyState::Watchdog);
        }
    }
}

/// Both ports answer now.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The collector is about to end.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    // A manager that does not listen is no reason to stop collecting.
    let _ = sd_notify::notify(&[state]);
}
