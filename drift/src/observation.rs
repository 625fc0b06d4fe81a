//! What one path turned out to be on an instance.

use crate::Blake3;
use crate::coverage::Gap;
use crate::entry::{Entry, Node, Shown};
use crate::report::HeldPrefix;

/// What one path turned out to be.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are found, each is judged at once and none is kept"
)]
pub enum Observation {
    /// It is there.
    Found(Found),
    /// It could not be verified, and with it nothing below it.
    Gap(Gap),
}

/// A path that is there, with what a rule may need beside its attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it is. `links` is not set here: see [`Found::group`].
    pub entry: Entry,
    /// The hard-link group, where it has more than one name. Which names are in it is known when all have been seen.
    pub group: Option<Group>,
    /// With a rule that lets it grow: the digest of its beginning; none if it is shorter than that.
    pub prefix: Option<Blake3>,
    /// With a file that may only grow and that was held before: its beginning, up to the length that was held.
    pub held_prefix: Option<HeldPrefix>,
    /// With a rule on its shape: whether its content has it, else why not.
    pub shape: Option<Result<(), String>>,
}

/// What the kernel tells of a hard-link group: the inode, and how many names it has anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Number of the inode on it.
    pub inode: u64,
    /// How many names it has, in the tree and outside it.
    pub names: u32,
}

impl Found {
    /// A path with nothing special about it.
    pub fn plain(entry: Entry) -> Self {
        Found {
            entry,
            group: None,
            prefix: None,
            held_prefix: None,
            shape: None,
        }
    }

    /// A digest over everything that is held of it: the value of a path that is held from first sight on.
    pub fn value(&self) -> Blake3 {
        let mut hasher = blake3::Hasher::new_derive_key("driftmark held value v1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&serde_json::to_vec(&Shown::from(&self.entry)).expect("a plain struct"));
        // What is shown of many or long attributes is cut; what is held is not.
        for xattr in self.entry.xattrs.as_slice() {
            part(&xattr.name);
            part(&xattr.value);
        }
        hasher.finalize().into()
    }

    /// Length and digest of its content, where it has one.
    pub fn content(&self) -> Option<(u64, Blake3)> {
        match self.entry.node {
            Node::File { size, content, .. } => Some((size, content)),
            _ => None,
        }
    }
}
