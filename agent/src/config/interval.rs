//! Receives text such as `24h` or `1m30s`; hands on a length of time.

use std::time::Duration;

use drift::written::{Problem, Readable, Value, text};

/// A length of time as people write it: whole numbers with `ms`, `s`, `m`, `h` or `d`, largest first, without spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

/// How often, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Not at all: `off`.
    Never,
    /// So often.
    Interval(Interval),
}

impl Readable for Every {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        match text(value)? {
            "off" => Ok(Every::Never),
            _ => Interval::read(value).map(Every::Interval),
        }
    }
}

/// A text that is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is written like `30s`, `5m`, `24h` or `1h30m`")]
pub struct BadInterval;

/// Units by name, in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Interval {
    /// Reads the text.
    ///
    /// # Errors
    /// Anything else, units that do not get smaller, and more than `u64` milliseconds.
    pub fn parse(text: &str) -> Result<Self, BadInterval> {
        let mut rest = text;
        let mut next_unit = 0;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| BadInterval)?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = UNITS
                .iter()
                .position(|(name, _)| *name == &rest[..letters])
                .ok_or(BadInterval)?;
            rest = &rest[letters..];
            if unit < next_unit {
                return Err(BadInterval);
            }
            next_unit = unit + 1;
            let part = number.checked_mul(UNITS[unit].1).ok_or(BadInterval)?;
            total = total.checked_add(part).ok_or(BadInterval)?;
        }
        if text.is_empty() {
            Err(BadInterval)
        } else {
            Ok(Interval(Duration::from_millis(total)))
        }
    }
}

impl Readable for Interval {
    fn read(value: Value<'_>) -> Result<Self, Problem> {
        Interval::parse(text(value)?).map_err(|bad| Problem::of(value, bad))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("5m", 300),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("0s", 0),
        ] {
            assert_eq!(
                Interval::parse(text),
                Ok(Interval(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        assert_eq!(
            Interval::parse("250ms"),
            Ok(Interval(Duration::from_millis(250)))
        );
        for bad in [
            "",
            "5",
            "m",
            "5 m",
            "-5m",
            "5M",
            "1m1h",
            "1m1m",
            "1.5h",
            "99999999999999999999s",
            "ä",
        ] {
            assert_eq!(Interval::parse(bad), Err(BadInterval), "{bad}");
        }
    }
}
