//! Attribute sets, each once in a section of its own: entries of all blocks have the same few.

use std::collections::HashMap;

use crate::entry::{Xattr, Xattrs};
use crate::manifest::layout::take_bytes;
use crate::manifest::record::put_bytes;
use crate::manifest::{Contents, ManifestError, Source};
use crate::varint;

/// One attribute set as it is written: ext4 and btrfs hold far less on one inode, and every record of a hostile manifest
/// can make us read as much again.
pub(super) const MAX_SET_BYTES: usize = 1024 * 1024;

/// Each set once, however many entries have it, in the order in which they come.
#[derive(Default)]
pub(super) struct AttributeSets {
    pub(super) bytes: Vec<u8>,
    offsets: HashMap<Xattrs, u64>,
}

impl AttributeSets {
    pub(super) fn offset(&mut self, xattrs: &Xattrs) -> Option<u64> {
        if xattrs.is_empty() {
            return None;
        }
        if let Some(offset) = self.offsets.get(xattrs) {
            return Some(*offset);
        }
        let mut set = Vec::new();
        varint::put(&mut set, xattrs.as_slice().len() as u64);
        for xattr in xattrs.as_slice() {
            put_bytes(&mut set, &xattr.name);
            put_bytes(&mut set, &xattr.value);
        }
        let offset = self.bytes.len() as u64;
        put_bytes(&mut self.bytes, &set);
        self.offsets.insert(xattrs.clone(), offset);
        Some(offset)
    }
}

/// An attribute set: varint length of what follows, varint count, then name and value of each.
pub(super) fn read_set<S: Source>(
    contents: &Contents<S>,
    offset: u64,
) -> Result<Xattrs, ManifestError> {
    const BAD: ManifestError = ManifestError::Malformed("an attribute set");
    let section = contents.header.sections;
    let left = section.xattrs.checked_sub(offset).ok_or(BAD)?;
    let start = section.xattrs_start() + offset;
    let mut head = vec![0; left.min(10) as usize];
    contents.blocks.copy(start, &mut head)?;
    let mut rest = &head[..];
    let length = varint::take(&mut rest).ok_or(BAD)?;
    let head_bytes = (head.len() - rest.len()) as u64;
    if length > MAX_SET_BYTES as u64 || length > left - head_bytes {
        return Err(BAD);
    }
    let mut set = vec![0; length as usize];
    contents.blocks.copy(start + head_bytes, &mut set)?;
    decode_set(&set).ok_or(BAD)
}

fn decode_set(mut rest: &[u8]) -> Option<Xattrs> {
    let count = varint::take(&mut rest)?;
    let mut sorted: Vec<Xattr> = Vec::new();
    for _ in 0..count {
        let name = take_bytes(&mut rest, Xattrs::MAX_NAME_BYTES)?;
        let value = take_bytes(&mut rest, Xattrs::MAX_VALUE_BYTES)?;
        if name.is_empty() || sorted.last().is_some_and(|last| &*last.name >= name) {
            return None;
        }
        sorted.push(Xattr {
            name: name.into(),
            value: value.into(),
        });
    }
    (rest.is_empty() && !sorted.is_empty()).then(|| Xattrs::from_sorted(sorted))
}
