//! Receives text such as `24h` or `1h30m`; hands on a length of time.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A length of time as people write it: whole numbers with `s`, `m`, `h` or `d`, largest first, without spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A text that is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a length of time is written like `30s`, `5m`, `24h` or `1h30m`")]
pub struct BadSpan;

/// Units by name, in seconds, longest first.
const UNITS: [(u8, u64); 4] = [(b'd', 86_400), (b'h', 3_600), (b'm', 60), (b's', 1)];

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let mut units = UNITS.iter();
        let mut rest = text;
        let mut seconds: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| BadSpan)?;
            let unit = *rest.as_bytes().get(digits).ok_or(BadSpan)?;
            let (_, length) = units.find(|(name, _)| *name == unit).ok_or(BadSpan)?;
            seconds = number
                .checked_mul(*length)
                .and_then(|part| seconds.checked_add(part))
                .ok_or(BadSpan)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() {
            Err(BadSpan)
        } else {
            Ok(Span(Duration::from_secs(seconds)))
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("5m", 300),
            ("1h30m", 5_400),
            ("2d", 172_800),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), seconds, "{text}");
        }
        for bad in [
            "",
            "5",
            "m",
            "5 m",
            "30m1h",
            "1m1m",
            "-5m",
            "1.5h",
            "5é",
            "99999999999999999999s",
        ] {
            assert_eq!(bad.parse::<Span>(), Err(BadSpan), "{bad}");
        }
    }
}
