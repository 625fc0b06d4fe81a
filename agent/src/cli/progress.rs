//! A progress bar on a terminal, nothing anywhere else.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::scan::Progress;

/// How far long work is, for people.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar on standard error, where that is a terminal.
    pub(super) fn new(doing: &'static str, entries: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Bar(ProgressBar::hidden());
        }
        let (bar, template) = match entries {
            Some(entries) => (
                ProgressBar::new(entries),
                "{msg} {bar:40} {pos}/{len} paths, {prefix}, {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {msg} {pos} paths, {prefix}, {per_sec}, {elapsed}",
            ),
        };
        bar.set_style(ProgressStyle::with_template(template).expect("a template of known keys"));
        bar.set_message(doing);
        Bar(bar)
    }

    pub(super) fn show(&self, progress: Progress) {
        self.0.set_prefix(crate::size(progress.bytes));
        self.0.set_position(progress.entries);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
