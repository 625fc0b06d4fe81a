//! File flags as `chattr` sets them, masked to those that mean the same on every file system.

use serde::{Deserialize, Serialize};

/// The held file flags of an entry, as bits of `FS_IOC_GETFLAGS`.
///
/// Masked, because a file system keeps its own business in the same word (ext4's extents and indexed
/// directories come and go). No support for flags is the same as no flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FileFlags(u32);

/// `FS_VERITY_FL` of `linux/fs.h`.
const FS_VERITY: u32 = 0x0010_0000;

/// Letter and bit, from `linux/fs.h` and `chattr(1)`.
const HELD: [(char, u32); 11] = [
    ('i', 0x0000_0010), // immutable
    ('a', 0x0000_0020), // append only
    ('d', 0x0000_0040), // no dump
    ('A', 0x0000_0080), // no access time
    ('S', 0x0000_0008), // synchronous
    ('D', 0x0001_0000), // synchronous directory
    ('c', 0x0000_0004), // compressed
    ('C', 0x0080_0000), // no copy on write
    ('P', 0x2000_0000), // project inheritance
    ('F', 0x4000_0000), // case folding
    ('V', FS_VERITY),
];

impl FileFlags {
    /// No flags, or a file system that has none.
    pub const NONE: Self = Self(0);

    /// Keeps what is held of the word that `FS_IOC_GETFLAGS` gives.
    pub fn from_raw(raw: u32) -> Self {
        Self(raw & HELD.iter().fold(0, |mask, (_, bit)| mask | bit))
    }

    /// Takes bits that were held before; none if there are others among them.
    pub fn from_held(bits: u32) -> Option<Self> {
        (Self::from_raw(bits).0 == bits).then_some(Self(bits))
    }

    /// The bits, as in `linux/fs.h`.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether fs-verity is on (`V`): the content cannot be written, and is verified by the kernel whenever it is read.
    pub fn has_verity(self) -> bool {
        self.0 & FS_VERITY != 0
    }

    /// Whether none is set.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The letters of `chattr(1)`, in a fixed order.
    pub fn letters(self) -> String {
        HELD.iter()
            .filter(|(_, bit)| self.0 & bit != 0)
            .map(|(letter, _)| letter)
            .collect()
    }
}

impl Serialize for FileFlags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.letters())
    }
}

impl<'de> Deserialize<'de> for FileFlags {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let letters = String::deserialize(deserializer)?;
        let bits = HELD
            .iter()
            .filter(|(letter, _)| letters.contains(*letter))
            .fold(0, |bits, (_, bit)| bits | bit);
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_systems_own_business_is_not_held() {
        let extents_and_index = 0x0008_0000 | 0x1000;
        assert_eq!(FileFlags::from_raw(extents_and_index | 0x10).letters(), "i");
        assert!(FileFlags::from_held(extents_and_index).is_none());
    }
}
