//! Receives TOML as people write it; hands on the typed values of its keys, or what is wrong and where.
//!
//! Unknown and duplicate keys are refused. What is written is told again only with what no terminal obeys. Not by serde:
//! what that makes of a handful of types is 90 kB of the agent.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::escape;

/// A value with where it is written.
pub type Value<'a> = &'a Spanned<DeValue<'a>>;

/// What can be read from a value.
pub trait Readable: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// It is none of these.
    fn read(value: Value<'_>) -> Result<Self, Problem>;
}

/// What is wrong with a value or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Range<usize>,
    message: String,
}

/// Why a text does not say what it is to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}\n  | {shown}\n  | {mark}\n{message}")]
pub struct BadText {
    line: usize,
    column: usize,
    shown: String,
    mark: String,
    message: String,
}

/// Reads all of a text.
///
/// # Errors
/// Not TOML, an unknown or duplicate key, or a value of another type.
pub fn read<T: Readable>(text: &str) -> Result<T, BadText> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().unwrap_or_default();
        BadText::at(text, place, error.message().to_owned())
    })?;
    let value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    T::read(&value).map_err(|problem| BadText::at(text, problem.place, problem.message))
}

/// One of several words, and what it stands for.
///
/// # Errors
/// Another word, or none at all.
pub fn word<T: Copy>(value: Value<'_>, words: &[(&str, T)]) -> Result<T, Problem> {
    let text = text(value)?;
    let meant = words.iter().find(|(word, _)| *word == text);
    meant.map(|(_, meant)| *meant).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Problem::unknown("word", value.span(), text, &known)
    })
}

/// What a string says.
///
/// # Errors
/// The value is no string.
pub fn text<'a>(value: Value<'a>) -> Result<&'a str, Problem> {
    typed(value, value.get_ref().as_str(), "a string")
}

fn typed<T>(value: Value<'_>, found: Option<T>, expected: &str) -> Result<T, Problem> {
    let other = value.get_ref().type_str();
    let problem = || {
        Problem::of(
            value,
            format_args!("invalid type: {other}, expected {expected}"),
        )
    };
    found.ok_or_else(problem)
}

/// A table that has known keys alone.
#[derive(Debug)]
pub struct Keys<'a> {
    table: &'a DeTable<'a>,
    place: Range<usize>,
}

impl<'a> Keys<'a> {
    /// Those of a table; `known` are spelled as fields are, with `_` where the file has `-`.
    ///
    /// # Errors
    /// No table, or one with another key.
    pub fn of(value: Value<'a>, known: &[&str]) -> Result<Self, Problem> {
        let table = typed(value, value.get_ref().as_table(), "a table")?;
        let is_known = |key: &str| known.iter().any(|field| is_named(key, field));
        match table.keys().find(|key| !is_known(key.get_ref())) {
            Some(key) => Err(Problem::unknown("key", key.span(), key.get_ref(), known)),
            None => Ok(Self {
                table,
                place: value.span(),
            }),
        }
    }

    /// What a key says, if it is there.
    ///
    /// # Errors
    /// What is there is something else.
    pub fn read<T: Readable>(&self, field: &str) -> Result<Option<T>, Problem> {
        let mut entries = self.table.iter();
        let entry = entries.find(|(key, _)| is_named(key.get_ref(), field));
        entry.map(|(_, value)| T::read(value)).transpose()
    }

    /// What a key says that has to be there.
    ///
    /// # Errors
    /// It is not, or is something else.
    pub fn need<T: Readable>(&self, field: &str) -> Result<T, Problem> {
        self.read(field)?.ok_or_else(|| Problem {
            place: self.place.clone(),
            message: format!("the key `{}` is missing", spelled(field)),
        })
    }
}

fn is_named(key: &str, field: &str) -> bool {
    let spelled = |byte| if byte == b'_' { b'-' } else { byte };
    key.bytes().eq(field.bytes().map(spelled))
}

fn spelled(field: &str) -> String {
    field.replace('_', "-")
}

impl Problem {
    /// That of a value.
    pub fn of(value: Value<'_>, message: impl fmt::Display) -> Self {
        Self {
            place: value.span(),
            message: message.to_string(),
        }
    }

    fn unknown(what: &str, place: Range<usize>, found: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|name| spelled(name)).collect();
        let (found, known) = (escape(found.as_bytes()), known.join("`, `"));
        Self {
            place,
            message: format!("unknown {what} `{found}`, expected one of `{known}`"),
        }
    }
}

impl BadText {
    fn at(text: &str, place: Range<usize>, message: String) -> Self {
        let start = text.floor_char_boundary(place.start);
        let (before, rest) = text.split_at(start);
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        let rest = rest.lines().next().unwrap_or_default();
        let end = rest.floor_char_boundary(place.end.saturating_sub(start));
        let lead = escape(&before.as_bytes()[begin..]);
        let marked = escape(&rest.as_bytes()[..end]).chars().count();
        Self {
            line: before.matches('\n').count() + 1,
            column: before[begin..].chars().count() + 1,
            mark: " ".repeat(lead.chars().count()) + &"^".repeat(marked.max(1)),
            shown: lead + &escape(rest.as_bytes()),
            message,
        }
    }
}

impl Readable for String {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        text(value).map(str::to_owned)
    }
}

impl Readable for PathBuf {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        text(value).map(PathBuf::from)
    }
}

impl Readable for bool {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        typed(value, value.get_ref().as_bool(), "`true` or `false`")
    }
}

impl Readable for u64 {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        let number = typed(value, value.get_ref().as_integer(), "a whole number")?;
        u64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| Problem::of(value, format_args!("expected 0 to {}", u64::MAX)))
    }
}

impl Readable for u32 {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        u32::try_from(u64::read(value)?)
            .map_err(|_| Problem::of(value, format_args!("expected 0 to {}", u32::MAX)))
    }
}

impl<T: Readable> Readable for Vec<T> {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        let values = typed(value, value.get_ref().as_array(), "an array")?;
        values.iter().map(T::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Ship {
        dead_weight: Option<u32>,
        masts: Vec<String>,
    }

    impl Readable for Ship {
        fn read(value: Value<'_>) -> Result<Self, Problem> {
            let keys = Keys::of(value, &["dead_weight", "masts"])?;
            Ok(Self {
                dead_weight: keys.read("dead_weight")?,
                masts: keys.need("masts")?,
            })
        }
    }

    fn refused(text: &str) -> String {
        read::<Ship>(text).unwrap_err().to_string()
    }

    #[test]
    fn keys_are_read_by_their_types() {
        let ship = Ship {
            dead_weight: Some(1_000),
            masts: vec!["main".to_owned()],
        };
        let texts = [
            "dead-weight = 1_000\nmasts = [\"main\"]",
            "dead-weight = 0x3e8\r\nmasts = ['''main''']\r\n",
        ];
        for text in texts {
            assert_eq!(read(text).as_ref(), Ok(&ship), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(
            refused("masts = []\nhome_port = 1 # of call"),
            "line 2, column 1\n  | home_port = 1 # of call\n  | ^^^^^^^^^\n\
             unknown key `home_port`, expected one of `dead-weight`, `masts`"
        );
        let wrong = [
            ("masts = [1]", "column 10", "integer, expected a string"),
            ("masts = {}", "column 9", "table, expected an array"),
            ("dead-weight = '1'", "column 15", "string, expected a whole"),
            ("dead-weight = -1", "column 15", "expected 0 to"),
            (
                "dead-weight = 4_294_967_296",
                "column 15",
                "0 to 4294967295",
            ),
            ("dead_weight = 1", "column 1\n", "unknown key `dead_weight`"),
            ("masts = []\nmasts = []", "line 2", "duplicate key"),
            ("dead-weight = 1", "line 1", "the key `masts` is missing"),
            ("masts = [", "line 1", "unclosed array"),
            ("", "line 1", "the key `masts` is missing"),
        ];
        for (text, place, message) in wrong {
            let said = refused(text);
            assert!(said.contains(place) && said.contains(message), "{said}");
        }
    }

    #[test]
    fn no_terminal_obeys_what_is_told_again() {
        for text in [
            "\"\\u001b[2J\" = 1",
            "ä = '\u{1b}[2J'",
            "\u{202e} = 1",
            "\u{1b}",
        ] {
            let said = refused(text);
            let is_safe = |c: char| c == '\n' || c == 'ä' || c == ' ' || c.is_ascii_graphic();
            assert!(said.chars().all(is_safe), "{said:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(masts|[a-z=\\[\\]{}'\"\n\r\té€.0-9 ]){0,24}") {
            let _ = read::<Ship>(&text).map_err(|bad| bad.to_string());
        }
    }
}
