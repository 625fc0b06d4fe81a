//! Receives how the daemon is; tells systemd, which starts, watches and stops it.
//!
//! Through libsystemd (feature `systemd`) or the same protocol in Rust (feature `static`). Where nobody asked to be
//! told, nothing is sent.
//!
//! [`Keeper`]: what the manager keeps while the daemon is not there.

mod keeper;

#[cfg(feature = "systemd")]
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use keeper::{Keeper, named};

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
        notify(&[("READY", "1")]);
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        notify(&[("STOPPING", "1")]);
    }

    /// Has the service manager end this process if it is silent for longer than this, where it would wait longer.
    pub fn be_watched_within(&mut self, period: Duration) {
        if self.watchdog.is_some_and(|watchdog| watchdog > period) {
            self.watchdog = Some(period);
            notify(&[("WATCHDOG_USEC", &period.as_micros().to_string())]);
        }
    }

    /// One line for `systemctl status`, sent when it changed.
    pub fn status(&mut self, text: &str) {
        if self.status != text {
            text.clone_into(&mut self.status);
            notify(&[("STATUS", &text.replace('\n', " "))]);
        }
    }

    /// Feeds the watchdog, twice in each of its periods. Call it only while everything makes progress.
    pub fn alive(&mut self, uptime: Duration) {
        let Some(period) = self.watchdog else { return };
        if uptime.saturating_sub(self.pinged) >= period / 2 {
            self.pinged = uptime;
            notify(&[("WATCHDOG", "1")]);
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "systemd")]
fn notify(words: &[(&str, &str)]) {
    // A manager that does not listen is no reason to stop verifying.
    let _ = systemd::daemon::notify(words.iter());
}

#[cfg(feature = "systemd")]
fn keep(name: &str, descriptor: BorrowedFd<'_>) {
    let words = [("FDSTORE", "1"), ("FDNAME", name), ("FDPOLL", "0")];
    let of_this_process = 0;
    let descriptors = [descriptor.as_raw_fd()];
    let _ = systemd::daemon::pid_notify_with_fds(of_this_process, words.iter(), &descriptors);
}

#[cfg(feature = "systemd")]
fn watchdog() -> Option<Duration> {
    systemd::daemon::watchdog_enabled()
        .ok()
        .filter(|period| *period > 0)
        .map(Duration::from_micros)
}

#[cfg(all(feature = "static", not(feature = "systemd")))]
fn notify(words: &[(&str, &str)]) {
    let words = words.iter().map(|(key, value)| format!("{key}={value}"));
    let words = words.collect::<Vec<_>>().join("\n");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Custom(&words)]);
}

#[cfg(all(feature = "static", not(feature = "systemd")))]
fn keep(name: &str, descriptor: BorrowedFd<'_>) {
    use sd_notify::NotifyState;
    let words = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        NotifyState::Custom("FDPOLL=0"),
    ];
    let _ = sd_notify::notify_with_fds(&words, &[descriptor]);
}

#[cfg(all(feature = "static", not(feature = "systemd")))]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(any(feature = "systemd", feature = "static")))]
fn notify(_words: &[(&str, &str)]) {}

#[cfg(not(any(feature = "systemd", feature = "static")))]
fn keep(_name: &str, _descriptor: BorrowedFd<'_>) {}

#[cfg(not(any(feature = "systemd", feature = "static")))]
fn watchdog() -> Option<Duration> {
    None
}
