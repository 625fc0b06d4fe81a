//! The attributes by which an entry can differ, and sets of them.

use serde::{Deserialize, Serialize};

/// One attribute by which what was found can differ from what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Attribute {
    /// File, directory, symbolic link, …
    Kind,
    /// Permission bits, setuid, setgid, sticky.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Length of a regular file.
    Size,
    /// Digest of a regular file.
    Content,
    /// Where a symbolic link points.
    Target,
    /// Major and minor number.
    Device,
    /// Hard-link group of a file.
    Links,
    /// Extended attributes: capabilities, ACLs, security labels, …
    Xattr,
    /// File flags (`chattr`).
    Flags,
}

impl Attribute {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Attribute; 11] = [
        Attribute::Kind,
        Attribute::Mode,
        Attribute::Uid,
        Attribute::Gid,
        Attribute::Size,
        Attribute::Content,
        Attribute::Target,
        Attribute::Device,
        Attribute::Links,
        Attribute::Xattr,
        Attribute::Flags,
    ];

    /// The word for it in JSON and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Attribute::Kind => "kind",
            Attribute::Mode => "mode",
            Attribute::Uid => "uid",
            Attribute::Gid => "gid",
            Attribute::Size => "size",
            Attribute::Content => "content",
            Attribute::Target => "target",
            Attribute::Device => "device",
            Attribute::Links => "links",
            Attribute::Xattr => "xattr",
            Attribute::Flags => "flags",
        }
    }
}

/// A set of attributes. In JSON a list of words; words of a later version are dropped on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AttributeSet(u16);

impl AttributeSet {
    /// No attribute.
    pub const EMPTY: Self = Self(0);
    /// Every attribute.
    pub const ALL: Self = Self((1 << Attribute::ALL.len()) - 1);

    /// The set of these attributes.
    pub const fn of(attributes: &[Attribute]) -> Self {
        let mut bits = 0;
        let mut next = 0;
        while next < attributes.len() {
            bits |= 1 << attributes[next] as u16;
            next += 1;
        }
        Self(bits)
    }

    /// Takes the set from its bits, bit n for the n-th of [`Attribute::ALL`]; none for unknown bits.
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// Bit n for the n-th of [`Attribute::ALL`].
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Adds one.
    pub fn insert(&mut self, attribute: Attribute) {
        self.0 |= 1 << attribute as u16;
    }

    /// Whether it is in the set.
    pub fn contains(self, attribute: Attribute) -> bool {
        self.0 & (1 << attribute as u16) != 0
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it, in the order in which it is shown.
    pub fn iter(self) -> impl Iterator<Item = Attribute> {
        Attribute::ALL
            .into_iter()
            .filter(move |&attribute| self.contains(attribute))
    }
}

impl FromIterator<Attribute> for AttributeSet {
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        let mut set = Self::EMPTY;
        attributes
            .into_iter()
            .for_each(|attribute| set.insert(attribute));
        set
    }
}

impl Serialize for AttributeSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Attribute::word))
    }
}

impl<'de> Deserialize<'de> for AttributeSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Ok(words
            .iter()
            .filter_map(|word| {
                Attribute::ALL
                    .into_iter()
                    .find(|attribute| attribute.word() == word)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_in_json_is_a_list_of_words_in_order() {
        let set: AttributeSet = [Attribute::Mode, Attribute::Content].into_iter().collect();
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"["mode","content"]"#
        );
        assert_eq!(
            serde_json::from_str::<AttributeSet>(r#"["content","later","mode"]"#).unwrap(),
            set
        );
        assert_eq!(AttributeSet::of(&Attribute::ALL), AttributeSet::ALL);
    }
}
