//! Checked text: what may stand in a statement is decided where it is read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name, version, build or the like: 1 to 128 of `A-Z a-z 0-9 . _ + ~ : -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// Text for people: 1 to 1024 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Note(String);

/// A moment as RFC 3339 writes it, such as `2026-11-21T12:00:00Z`: checked for its shape, kept as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(String);

/// Why text may not stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// Not a [`Label`].
    #[error(
        "not 1 to {} letters, digits, `.`, `_`, `+`, `~`, `:` or `-`",
        Label::MAX_BYTES
    )]
    Label,
    /// Not a [`Note`].
    #[error(
        "not 1 to {} bytes of text without control characters",
        Note::MAX_BYTES
    )]
    Note,
    /// Not a [`Timestamp`].
    #[error("not a time as RFC 3339 writes it")]
    Timestamp,
}

impl Label {
    /// The longest, in bytes: what still fits a line of a table.
    pub const MAX_BYTES: usize = 128;
}

impl Note {
    /// The longest, in bytes: a URL or a sentence.
    pub const MAX_BYTES: usize = 1024;
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~:-".contains(&byte);
    (1..=Label::MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_note(text: &str) -> bool {
    (1..=Note::MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_timestamp(text: &str) -> bool {
    is_moment(text.as_bytes()).is_some()
}

/// RFC 3339 §5.6: `YYYY-MM-DDTHH:MM:SS`, an optional fraction, then `Z` or an offset.
fn is_moment(text: &[u8]) -> Option<()> {
    let (date_time, rest) = text.split_at_checked(19)?;
    for (place, &byte) in date_time.iter().enumerate() {
        let fits = match place {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        };
        fits.then_some(())?;
    }
    let number = |at: usize| two_digits(&date_time[at..at + 2]);
    let (year, month) = (number(0)? * 100 + number(2)?, number(5)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let fits = (1..=days).contains(&number(8)?)
        && number(11)? <= 23
        && number(14)? <= 59
        && number(17)? <= 60;
    fits.then_some(())?;
    let offset = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            (1..=9).contains(&digits).then(|| &fraction[digits..])?
        }
        None => rest,
    };
    match offset {
        b"Z" => Some(()),
        [b'+' | b'-', hours @ .., b':', m1, m2] if hours.len() == 2 => {
            (two_digits(hours)? <= 23 && two_digits(&[*m1, *m2])? <= 59).then_some(())
        }
        _ => None,
    }
}

fn two_digits(digits: &[u8]) -> Option<u32> {
    match digits {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
        }
        _ => None,
    }
}

macro_rules! checked_text {
    ($name:ident, $check:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadText;

            fn try_from(text: String) -> Result<Self, BadText> {
                if $check(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadText::$name)
                }
            }
        }

        impl FromStr for $name {
            type Err = BadText;

            fn from_str(text: &str) -> Result<Self, BadText> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_text!(Label, is_label);
checked_text!(Note, is_note);
checked_text!(Timestamp, is_timestamp);
