//! Receives texts with units, and hands on durations and shares.

use std::fmt;
use std::time::Duration;

/// A text that is not a measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMeasure {
    /// Not a number with a unit of time.
    #[error(
        "`{0}` is not a duration: write a whole number and its unit, such as 90s, 5m, 24h or 7d"
    )]
    Duration(String),
    /// Not a percentage.
    #[error(
        "`{0}` is not a share: write a whole number from 1 to 100 and a percent sign, such as 20%"
    )]
    Share(String),
}

/// Reads a whole number and its unit: `90s`, `5m`, `24h`, `7d`.
///
/// # Errors
/// Anything else, and what does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, BadMeasure> {
    let bad = || BadMeasure::Duration(text.to_owned());
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - 1];
    let number = whole(digits).ok_or_else(bad)?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(bad)
}

/// The shortest text that [`parse_duration`] reads as this many whole seconds.
pub fn shown_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match [(86_400, 'd'), (3_600, 'h'), (60, 'm')]
        .into_iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
    {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// A share of a fleet, in whole percent from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

impl Share {
    /// Reads `20%`.
    ///
    /// # Errors
    /// Anything but a whole number from 1 to 100 with a percent sign.
    pub fn parse(text: &str) -> Result<Self, BadMeasure> {
        let number = text
            .strip_suffix('%')
            .and_then(whole)
            .filter(|number| (1..=100).contains(number));
        let number = number.ok_or_else(|| BadMeasure::Share(text.to_owned()))?;
        Ok(Share(u8::try_from(number).expect("at most 100")))
    }

    /// How many of `total` this share is: rounded down, and at least one, so that a small fleet can still replace one.
    pub fn of(self, total: usize) -> usize {
        (total * usize::from(self.0) / 100).max(1)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

fn whole(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_whole_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("24h", 86_400),
            ("7d", 604_800),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "5",
            "5 m",
            "-5m",
            "+5m",
            "1.5h",
            "5min",
            "99999999999999999999d",
            "5µ",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_reads_back_as_it_is_shown() {
        for text in ["0s", "90s", "5m", "24m", "1h", "7d"] {
            assert_eq!(shown_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_share_of_a_small_fleet_is_one() {
        let fifth = Share::parse("20%").unwrap();
        let shares = [
            (0, 1),
            (1, 1),
            (3, 1),
            (9, 1),
            (10, 2),
            (14, 2),
            (15, 3),
            (1_000, 200),
        ];
        for (total, share) in shares {
            assert_eq!(fifth.of(total), share, "of {total}");
        }
    }

    #[test]
    fn a_share_is_a_whole_percentage_from_1_to_100() {
        for text in ["0%", "101%", "20", "20 %", "-1%", "2.5%", "%", "0.2"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }
}
