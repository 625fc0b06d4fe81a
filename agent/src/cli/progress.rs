//! A progress line on a terminal, nothing anywhere else.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::scan::Progress;

/// How far long work is, for people: one line on standard error that is written over.
pub(super) struct Bar {
    doing: &'static str,
    started: Instant,
    /// When it was last drawn; none where nobody looks.
    drawn: Option<Mutex<Instant>>,
}

/// Whether people are looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// If standard error is a terminal.
    People,
    /// They were asked to be left alone: what is printed is read by a program.
    Machines,
}

/// More often than this nobody can read.
const REDRAW: Duration = Duration::from_millis(100);
/// Cells of the bar: with it the line fits 80 columns.
const CELLS: u64 = 10;
/// A path takes about as long as so many bytes of content.
const PATH_BYTES: u64 = 16 * 1024;

impl Bar {
    pub(super) fn new(doing: &'static str, audience: Audience) -> Self {
        let started = Instant::now();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let shows = audience == Audience::People && !is_dumb && std::io::stderr().is_terminal();
        Bar {
            doing,
            started,
            drawn: shows.then(|| Mutex::new(started)),
        }
    }

    /// Shows how far it is, of all that there is to do, if that is known: what of it is 0 is not.
    pub(super) fn show(&self, progress: Progress, all: Option<Progress>) {
        let Some(drawn) = &self.drawn else { return };
        let mut drawn = drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.elapsed() >= REDRAW {
            *drawn = Instant::now();
            let line = line(self.doing, progress, all, self.started.elapsed());
            // Where the terminal is narrower, the line is cut and does not wrap: only one row can be written over.
            let _ = write!(std::io::stderr(), "\r\x1b[?7l{line}\x1b[K\x1b[?7h");
        }
    }

    pub(super) fn finish(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(doing: &str, progress: Progress, all: Option<Progress>, elapsed: Duration) -> String {
    let Progress { entries, bytes } = progress;
    let seconds = elapsed.as_secs_f64().max(0.001);
    let read = crate::size(bytes);
    let rate = crate::size((bytes as f64 / seconds) as u64);
    let told = format!("{entries} paths, {read}, {rate}/s");
    match all.and_then(|all| part_done(progress, all)) {
        Some(done) => {
            let full = (done * CELLS as f64) as u64;
            let bar: String = (0..CELLS)
                .map(|cell| if cell < full { '█' } else { '░' })
                .collect();
            let left = span(seconds * (1.0 - done) / done.max(0.001));
            format!("{doing} {bar} {:.0} %, {told}, {left} left", done * 100.0)
        }
        None => format!("{doing} {told}, {} so far", span(seconds)),
    }
}

/// From 0 to 1; none if nothing is known of all there is.
fn part_done(progress: Progress, all: Progress) -> Option<f64> {
    let work = |of: Progress| {
        let entries = if all.entries > 0 { of.entries } else { 0 };
        let bytes = if all.bytes > 0 { of.bytes } else { 0 };
        (entries * PATH_BYTES) as f64 + bytes as f64
    };
    (work(all) > 0.0).then(|| (work(progress) / work(all)).min(1.0))
}

fn span(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..6000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALFWAY: Progress = Progress {
        entries: 500,
        bytes: 3 * 1024 * 1024,
    };

    fn after(seconds: u64, all: Option<Progress>) -> String {
        line("checking", HALFWAY, all, Duration::from_secs(seconds))
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_still() {
        let all = Progress {
            entries: 1_000,
            bytes: 6 * 1024 * 1024,
        };
        assert_eq!(
            after(3, Some(all)),
            "checking █████░░░░░ 50 %, 500 paths, 3.0 MiB, 1.0 MiB/s, 3 s left"
        );
        assert_eq!(
            after(3, None),
            "checking 500 paths, 3.0 MiB, 1.0 MiB/s, 3 s so far"
        );
    }

    #[test]
    fn how_long_still_is_told_of_whatever_is_known() {
        let [paths, bytes] = [(1_000, 0), (0, 4 * 1024 * 1024)];
        let told = |(entries, bytes)| after(300, Some(Progress { entries, bytes }));
        assert!(told(paths).ends_with(" 5 min left"), "{}", told(paths));
        assert!(told(bytes).ends_with(" 100 s left") || told(bytes).ends_with(" 2 min left"));
        assert!(told((0, 0)).ends_with(" 5 min so far"), "{}", told((0, 0)));
        let more_than_expected = told((10, 10));
        assert!(
            more_than_expected.contains(" 100 %, "),
            "{more_than_expected}"
        );
        assert!(
            more_than_expected.ends_with(" 0 s left"),
            "{more_than_expected}"
        );
    }

    #[test]
    fn a_line_fits_eighty_columns() {
        let far = Progress {
            entries: 9_999_999,
            bytes: 1_073_741_823,
        };
        let all = Progress {
            entries: 10_000_000,
            bytes: u64::from(u32::MAX),
        };
        let line = line("checking", far, Some(all), Duration::from_millis(1_001));
        assert!(line.chars().count() < 80, "{line}");
    }

    #[test]
    fn machines_are_told_nothing() {
        assert!(Bar::new("baking", Audience::Machines).drawn.is_none());
    }
}
