//! Receives the places where a join token and configuration may appear; hands on that it is time to look there.
//!
//! The agent starts before anything has been written for this one machine: cloud-init, a user's script, an operator come
//! later, or never. The kernel says when something changes in a directory; a slow look of our own finds what it did not
//! say, for a directory may not be there yet, and the kernel's watches may be used up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::RecommendedWatcher;
use tokio::sync::mpsc;

use super::watch;
use crate::config::{Config, DIRECTORIES};

/// How often to look unasked.
const SLOW: Duration = Duration::from_secs(5);

/// What an agent that is not enrolled waits at.
pub(super) struct Waiting {
    places: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    sender: mpsc::Sender<()>,
    look_at: Duration,
}

impl Waiting {
    /// Waits at the directories of `config`'s token and of the configuration: of `file` alone, if it was read alone.
    /// The receiver hears of changes.
    pub(super) fn start(config: &Config, file: Option<&Path>) -> (Self, mpsc::Receiver<()>) {
        let files = config.token_files.iter().map(PathBuf::as_path).chain(file);
        let drop_ins: &[&str] = if file.is_none() {
            &DIRECTORIES[1..]
        } else {
            &[]
        };
        // A directory that is not there yet appears in its parent.
        let drop_ins = drop_ins.iter().map(Path::new);
        let places = files.filter_map(Path::parent).chain(drop_ins.clone());
        let mut places: Vec<_> = places
            .chain(drop_ins.filter_map(Path::parent))
            .map(Path::to_owned)
            .collect();
        places.sort();
        places.dedup();
        let (sender, changes) = mpsc::channel(1);
        let waiting = Waiting {
            places,
            watched: Vec::new(),
            watcher: None,
            sender,
            look_at: Duration::ZERO,
        };
        (waiting, changes)
    }

    /// Whether a slow look is due; then also watches what has appeared.
    pub(super) fn is_due(&mut self, uptime: Duration) -> bool {
        if uptime < self.look_at {
            return false;
        }
        self.look_at = uptime + SLOW;
        let there: Vec<_> = self
            .places
            .iter()
            .filter(|place| place.is_dir())
            .cloned()
            .collect();
        if there != self.watched {
            // Without one the slow look has to do.
            self.watcher = watch::watch(&there, self.sender.clone()).ok();
            self.watched = there;
        }
        true
    }

    /// Something changed: looks at once, and for directories that appeared too.
    pub(super) fn now(&mut self) {
        self.look_at = Duration::ZERO;
    }
}
