//! Receives rows of text, hands on aligned columns: coloured only on a terminal, and with control bytes escaped.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// A colour of a cell on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// To be looked at.
    Odd,
    /// Trouble.
    Bad,
}

/// Rows under a heading.
#[derive(Debug, Clone)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<(String, Paint)>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn of(heading: &[&'static str]) -> Self {
        Table {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; whatever bytes it has are escaped here.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = (C, Paint)>) {
        let safe = |(cell, paint): (C, Paint)| (drift::escape(cell.into().as_bytes()), paint);
        self.rows.push(cells.into_iter().map(safe).collect());
    }

    /// Adds a row without colour.
    pub fn plain<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.row(cells.into_iter().map(|cell| (cell, Paint::Plain)));
    }

    /// The table as text.
    pub fn render(&self, colour: bool) -> String {
        let mut widths: Vec<usize> = self.heading.iter().map(|cell| cell.len()).collect();
        for row in &self.rows {
            for (width, (cell, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let heading: Vec<_> = self
            .heading
            .iter()
            .map(|cell| ((*cell).to_owned(), Paint::Plain))
            .collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (width, (cell, paint)) in widths.iter().zip(row) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
                line.push_str(&paint.dress(cell, colour));
                line.push_str(&padding);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints it, or what says that there is nothing.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn print(&self, nothing: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.rows.is_empty() {
            writeln!(output, "{nothing}")
        } else {
            output.write_all(self.render(output.is_terminal()).as_bytes())
        }
    }
}

impl Paint {
    fn dress(self, cell: &str, colour: bool) -> String {
        let code = match self {
            Paint::Plain => return cell.to_owned(),
            Paint::Good => 32,
            Paint::Odd => 33,
            Paint::Bad => 31,
        };
        if colour {
            format!("\x1b[{code}m{cell}\x1b[0m")
        } else {
            cell.to_owned()
        }
    }
}

/// Prints a sentence; the caller has escaped what is not its own.
///
/// # Errors
/// Standard output is gone.
pub fn say(sentence: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{sentence}")
}

/// Text of several lines without anything that a terminal would obey.
pub fn harmless(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| drift::escape(line.as_bytes()))
        .collect();
    lines.join("\n")
}

/// JSON in which every character that a terminal might obey is `\u…`: such characters stand in strings alone, and
/// JSON itself asks for that only below U+0020.
fn undrawn(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter == '\n'
            || letter == '\\'
            || drift::escape(letter.encode_utf8(&mut [0; 4]).as_bytes()).len() == letter.len_utf8()
        {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// Prints one JSON document.
///
/// # Errors
/// Standard output is gone.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    writeln!(io::stdout().lock(), "{}", undrawn(&json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_hostile_text_cannot_draw() {
        let mut table = Table::of(&["ID", "STATE"]);
        table.plain(["i-1", "clean"]);
        table.row([("i-\x1b[2J", Paint::Plain), ("drifted", Paint::Bad)]);
        let text = table.render(false);
        assert!(!text.contains('\x1b'), "{text}");
        let column = |line: &str| {
            line.find("STATE")
                .or(line.find("clean"))
                .or(line.find("drifted"))
        };
        let columns: Vec<_> = text.lines().map(column).collect();
        assert!(columns.iter().all(|column| *column == columns[0]), "{text}");
        assert!(table.render(true).contains("\x1b[31mdrifted\x1b[0m"));
    }

    #[test]
    fn json_says_the_same_and_draws_nothing() {
        let value =
            serde_json::json!({"name": "a\u{9b}31m\u{202e}\u{7f}\u{1b}[2J\\\n\u{e0001}ü😀"});
        let text = undrawn(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            text.chars()
                .all(|letter| letter == '\n' || !letter.is_control()),
            "{text}"
        );
        assert!(text.contains('ü') && !text.contains('\u{202e}'), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
