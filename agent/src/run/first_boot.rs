//! Receives the time; hands on whether what may change once may still change.
//!
//! The window ends [`Config::first_boot_window`](crate::config::Config) after this agent first saw that systemd let users
//! in, right before `multi-user.target`: `systemd-user-sessions.service` then leaves its mark in `/run/systemd/units`. For
//! a target itself systemd leaves none.
//! Where there is no systemd it ends that long after the agent's start; where multi-user is never reached,
//! [`LONGEST_BOOT`] later. Once over it stays over on this instance: a file in the state directory says so, and if that
//! is lost, the collector still holds the first values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::state_files;

/// A boot that takes longer than this to reach multi-user never will.
const LONGEST_BOOT: Duration = Duration::from_secs(3600);

/// Whether the first boot is over.
#[derive(Debug)]
pub struct FirstBoot {
    window: Duration,
    started: Duration,
    reached: Option<Duration>,
    over: bool,
    marker: PathBuf,
}

impl FirstBoot {
    /// What `state_directory` remembers, at `uptime`.
    pub fn open(state_directory: &Path, window: Duration, uptime: Duration) -> Self {
        let marker = state_directory.join("first-boot-over");
        FirstBoot {
            window,
            started: uptime,
            reached: None,
            over: marker.exists(),
            marker,
        }
    }

    /// Whether it is over at `uptime`; remembered from then on.
    pub fn is_over(&mut self, uptime: Duration) -> bool {
        if !self.over {
            self.look(uptime, multi_user_is_reached());
        }
        self.over
    }

    fn look(&mut self, uptime: Duration, is_reached: bool) {
        if is_reached && self.reached.is_none() {
            self.reached = Some(uptime);
        }
        let from = self.reached.unwrap_or(self.started + LONGEST_BOOT);
        if uptime >= from + self.window {
            self.over = true;
            // Not remembered is only a longer window after the next restart.
            let _ = state_files::replace(&self.marker, b"");
        }
    }
}

fn multi_user_is_reached() -> bool {
    let is_there = |path| Path::new(path).symlink_metadata().is_ok();
    is_there("/run/systemd/units/invocation:systemd-user-sessions.service")
        || !is_there("/run/systemd/system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_ends_after_multi_user_and_stays_over() {
        let home = tempfile::tempdir().unwrap();
        let seconds = Duration::from_secs;
        let mut boot = FirstBoot::open(home.path(), seconds(600), seconds(20));
        boot.look(seconds(30), false);
        boot.look(seconds(40), true);
        boot.look(seconds(639), true);
        assert!(!boot.over);
        boot.look(seconds(640), true);
        assert!(boot.over);
        assert!(FirstBoot::open(home.path(), seconds(600), seconds(1)).over);
    }

    #[test]
    fn a_boot_that_never_reaches_multi_user_ends_the_window_too() {
        let home = tempfile::tempdir().unwrap();
        let seconds = Duration::from_secs;
        let mut boot = FirstBoot::open(home.path(), seconds(600), seconds(20));
        boot.look(seconds(20 + 3600 + 599), false);
        assert!(!boot.over);
        boot.look(seconds(20 + 3600 + 600), false);
        assert!(boot.over);
    }
}
