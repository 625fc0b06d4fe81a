//! A progress line on a terminal, nothing anywhere else.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::scan::Progress;

/// How far long work is, for people: one line on standard error that is written over.
pub(super) struct Bar {
    doing: &'static str,
    entries: Option<u64>,
    started: Instant,
    /// When it was last drawn; none where standard error is no terminal.
    drawn: Option<Mutex<Instant>>,
}

/// More often than this nobody can read.
const REDRAW: Duration = Duration::from_millis(100);
/// Cells of the bar.
const CELLS: u64 = 30;

impl Bar {
    /// A line for work on so many entries, if it is known how many there are.
    pub(super) fn new(doing: &'static str, entries: Option<u64>) -> Self {
        let started = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Bar {
            doing,
            entries,
            started,
            drawn: is_terminal.then(|| Mutex::new(started)),
        }
    }

    pub(super) fn show(&self, progress: Progress) {
        let Some(drawn) = &self.drawn else { return };
        let mut drawn = drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.elapsed() >= REDRAW {
            *drawn = Instant::now();
            let line = self.line(progress, self.started.elapsed());
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    }

    pub(super) fn finish(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn line(&self, progress: Progress, elapsed: Duration) -> String {
        let Progress { entries, bytes } = progress;
        let (doing, seconds) = (self.doing, elapsed.as_secs_f64().max(0.001));
        let read = crate::size(bytes);
        let rate = crate::size((bytes as f64 / seconds) as u64);
        match self.entries {
            Some(all) if all > 0 => {
                let done = entries.min(all);
                let full = done * CELLS / all;
                let left = seconds * (all - done) as f64 / done.max(1) as f64;
                let bar: String = (0..CELLS)
                    .map(|cell| if cell < full { '█' } else { '░' })
                    .collect();
                format!("{doing} {bar} {entries}/{all} paths, {read}, {rate}/s, {left:.0} s left")
            }
            _ => format!("{doing} {entries} paths, {read}, {rate}/s, {seconds:.0} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_still() {
        let halfway = Progress {
            entries: 500,
            bytes: 3 * 1024 * 1024,
        };
        let known = Bar::new("checking", Some(1_000)).line(halfway, Duration::from_secs(3));
        assert_eq!(
            known,
            "checking ███████████████░░░░░░░░░░░░░░░ 500/1000 paths, 3.0 MiB, 1.0 MiB/s, 3 s left"
        );
        let unknown = Bar::new("baking", None).line(halfway, Duration::from_secs(3));
        assert_eq!(unknown, "baking 500 paths, 3.0 MiB, 1.0 MiB/s, 3 s");
    }
}
