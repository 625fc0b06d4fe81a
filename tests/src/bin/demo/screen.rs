//! Receives lines; hands them to whoever watches, in colour on a terminal.

use std::io::{IsTerminal as _, Write as _};

/// Where lines go.
pub(crate) struct Screen {
    coloured: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Screen {
            coloured: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    pub(crate) fn title(&self, text: &str) {
        self.line(&self.paint("1", text));
    }

    pub(crate) fn step(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1;36", &format!("▶ {text}"))));
    }

    pub(crate) fn fact(&self, name: &str, text: &str) {
        self.line(&format!("  {name:<10} {text}"));
    }

    pub(crate) fn text(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// A line of the timeline: when, since the intrusion; who says so; what.
    pub(crate) fn at(&self, milliseconds: i64, who: &str, what: &str) {
        let colour = match who {
            "intruder" => "31",
            "order verified" => "32",
            _ => "0",
        };
        let time = self.paint("33", &format!("{milliseconds:>+7} ms"));
        self.line(&format!(
            "  {time}  {}  {what}",
            self.paint(colour, &format!("{who:<17}"))
        ));
    }

    /// A milestone: its time since the intrusion, and since the milestone before.
    pub(crate) fn measure(&self, what: &str, total: i64, step: i64) {
        let step = self.paint("33", &format!("{step:>+7} ms"));
        self.line(&format!(
            "  {what:<16} {step}   {total:>7} ms after the intrusion"
        ));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever reads this may leave: the demo still takes everything down.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
