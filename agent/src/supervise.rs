//! Receives how the daemon is; tells systemd, which starts, watches and stops it.
//!
//! Through libsystemd (feature `systemd`) or the same protocol in Rust (feature `static`). Where nobody asked to be
//! told, nothing is sent.

use std::time::Duration;

/// Speaks to the service manager.
#[derive(Debug)]
pub struct Supervisor {
    watchdog: Option<Duration>,
    pinged: Duration,
    status: String,
}

impl Supervisor {
    /// Asks whether there is a watchdog to feed.
    pub fn new() -> Self {
        Supervisor {
            watchdog: watchdog(),
            pinged: Duration::ZERO,
            status: String::new(),
        }
    }

    /// The daemon answers now. Sent before the first scan: a boot never waits for it.
    pub fn ready(&self) {
        notify("READY", "1");
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        notify("STOPPING", "1");
    }

    /// Has the service manager end this process if it is silent for longer than this, where it would wait longer.
    pub fn be_watched_within(&mut self, period: Duration) {
        if self.watchdog.is_some_and(|watchdog| watchdog > period) {
            self.watchdog = Some(period);
            notify("WATCHDOG_USEC", &period.as_micros().to_string());
        }
    }

    /// One line for `systemctl status`, sent when it changed.
    pub fn status(&mut self, text: &str) {
        if self.status != text {
            text.clone_into(&mut self.status);
            notify("STATUS", &text.replace('\n', " "));
        }
    }

    /// Feeds the watchdog, twice in each of its periods. Call it only while everything makes progress.
    pub fn alive(&mut self, uptime: Duration) {
        let Some(period) = self.watchdog else { return };
        if uptime.saturating_sub(self.pinged) >= period / 2 {
            self.pinged = uptime;
            notify("WATCHDOG", "1");
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "systemd")]
fn notify(key: &str, value: &str) {
    // A manager that does not listen is no reason to stop verifying.
    let _ = systemd::daemon::notify([(key, value)].iter());
}

#[cfg(feature = "systemd")]
fn watchdog() -> Option<Duration> {
    systemd::daemon::watchdog_enabled()
        .ok()
        .filter(|period| *period > 0)
        .map(Duration::from_micros)
}

#[cfg(all(feature = "static", not(feature = "systemd")))]
fn notify(key: &str, value: &str) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Custom(&format!("{key}={value}"))]);
}

#[cfg(all(feature = "static", not(feature = "systemd")))]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(any(feature = "systemd", feature = "static")))]
fn notify(_key: &str, _value: &str) {}

#[cfg(not(any(feature = "systemd", feature = "static")))]
fn watchdog() -> Option<Duration> {
    None
}
