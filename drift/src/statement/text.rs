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
    moment(text.as_bytes()).is_some()
}

impl Timestamp {
    /// The second that it lies in, counted from 1970.
    pub fn unix_seconds(&self) -> i64 {
        moment(self.0.as_bytes()).expect("checked when it was made")
    }

    /// A second, counted from 1970, in UTC; none outside the years 0 to 9999.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // The inverse of `days_since_1970`: a year begins in March, so that its odd day is its last.
        let day = days + 719_468;
        let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let march = (5 * day + 2) / 153;
        let month = if march < 10 { march + 3 } else { march - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        let (day, hour, minute) = (
            day - (153 * march + 2) / 5 + 1,
            second / 3_600,
            second / 60 % 60,
        );
        (0..=9_999).contains(&year).then(|| {
            let second = second % 60;
            Timestamp(format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
            ))
        })
    }
}

const DAY: i64 = 86_400;

/// Days of the proleptic Gregorian calendar.
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let march = i64::from((month + 9) % 12);
    let day = (153 * march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + 365 * year + year / 4 - year / 100 + day - 719_468
}

/// RFC 3339 §5.6: `YYYY-MM-DDTHH:MM:SS`, an optional fraction, then `Z` or an offset. Gives seconds since 1970.
fn moment(text: &[u8]) -> Option<i64> {
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
    let of_day = number(11)? * 3_600 + number(14)? * 60 + number(17)?;
    let local = days_since_1970(year, month, number(8)?) * DAY + i64::from(of_day);
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
        b"Z" => Some(local),
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let (hours, minutes) = (two_digits(hours)?, two_digits(&[*m1, *m2])?);
            (hours <= 23 && minutes <= 59).then_some(())?;
            let ahead = i64::from(hours * 3_600 + minutes * 60);
            Some(if *sign == b'+' {
                local - ahead
            } else {
                local + ahead
            })
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
