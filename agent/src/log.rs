//! Receives what happens as structured events; hands them to the journal, or to standard error where there is none.

use std::error::Error;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Level;

/// Starts logging for this process. A second call does nothing.
pub fn start(level: Level) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
    };
    let journal = if stderr_is_the_journal() {
        tracing_journald::layer().ok()
    } else {
        None
    };
    let text = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
    });
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(journal)
        .with(text)
        .try_init();
}

/// `$JOURNAL_STREAM` names device and inode of the stream that systemd connected (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// An error with everything that caused it, on one line.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// At most this much of a peer's own words is logged or shown.
const MAX_PEER_WORDS_BYTES: usize = 512;

/// A peer's own words, short enough to repeat and safe to print.
pub fn peer_words(text: &str) -> String {
    let mut end = text.len().min(MAX_PEER_WORDS_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    drift::escape(&text.as_bytes()[..end])
}
