//! Permission bits as `chmod` writes them.

use std::fmt;

use serde::{Deserialize, Serialize, de};

/// Permission bits, setuid, setgid and sticky among them; shown and sent as four octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u16);

impl Permissions {
    const ALL: u16 = 0o7777;

    /// Those of a mode; its type is left out.
    pub fn of(mode: u16) -> Self {
        Permissions(mode & Self::ALL)
    }

    /// As numbers: at most `0o7777`.
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bits = u16::from_str_radix(&digits, 8).ok();
        bits.filter(|bits| *bits <= Self::ALL)
            .map(Permissions)
            .ok_or_else(|| de::Error::custom("permission bits are octal digits, up to 7777"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written_and_nothing_else_is() {
        for mode in [0, 0o644, 0o4755, 0o7777] {
            let text = serde_json::to_string(&Permissions::of(mode)).unwrap();
            let read: Permissions = serde_json::from_str(&text).unwrap();
            assert_eq!((text.len(), read.bits()), (6, mode));
        }
        for hostile in [
            "\"\"",
            "\"0888\"",
            "\"10000\"",
            "\"-644\"",
            "\"rwx\"",
            "420",
        ] {
            assert!(
                serde_json::from_str::<Permissions>(hostile).is_err(),
                "{hostile}"
            );
        }
    }
}
