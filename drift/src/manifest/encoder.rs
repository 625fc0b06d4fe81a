//! Entries in path order become blocks of records and a section of attribute sets: the one way to write them.

use std::collections::HashMap;

use crate::entry::{Entry, Node, Xattrs};
use crate::manifest::BuildError;
use crate::manifest::entries::BLOCK_HEAD_BYTES;
use crate::manifest::layout::BLOCK_BYTES;
use crate::manifest::record::{self, put_bytes};
use crate::rules::Rules;
use crate::{TreePath, varint};

/// Writes records into blocks, each as full as can be.
#[derive(Default)]
pub(super) struct EntryBlocks {
    /// The block that is being filled; at the end, the last one.
    pub(super) last: Vec<u8>,
    pub(super) sets: AttributeSets,
    before: Option<TreePath>,
    ordinal: u64,
    file_ordinal: u64,
}

impl EntryBlocks {
    /// Adds the next entry in path order. Gives a block that this one no longer fits, padded with zeros.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<Option<Vec<u8>>, BuildError> {
        let xattrs_at = self.sets.offset(&entry.xattrs);
        let mut record = Vec::new();
        record::encode(&mut record, entry, self.before.as_ref(), xattrs_at);
        let mut full = None;
        if self.last.is_empty() || self.last.len() + record.len() > BLOCK_BYTES {
            if !self.last.is_empty() {
                self.last.resize(BLOCK_BYTES, 0);
                full = Some(std::mem::take(&mut self.last));
            }
            self.last.extend_from_slice(&self.ordinal.to_le_bytes());
            self.last
                .extend_from_slice(&self.file_ordinal.to_le_bytes());
            record.clear();
            record::encode(&mut record, entry, None, xattrs_at);
            if record.len() > BLOCK_BYTES - BLOCK_HEAD_BYTES {
                return Err(BuildError::TooLong(entry.path.clone()));
            }
        }
        self.last.extend_from_slice(&record);
        self.before = Some(entry.path.clone());
        self.ordinal += 1;
        self.file_ordinal += u64::from(matches!(entry.node, Node::File { .. }));
        Ok(full)
    }
}

/// The directories that a walk in path order is in.
#[derive(Default)]
pub(super) struct Directories(Vec<TreePath>);

impl Directories {
    /// Goes on to the next entry; false if the directory that it is in is no entry. Below a volatile rule directories
    /// are none, but what an earlier rule holds there is.
    pub(super) fn admit(&mut self, entry: &Entry, rules: &Rules) -> bool {
        while self
            .0
            .last()
            .is_some_and(|directory| !entry.path.is_within(directory))
        {
            self.0.pop();
        }
        let is_orphan = entry
            .path
            .parent()
            .is_some_and(|parent| self.0.last() != Some(&parent) && !rules.below_volatile(&parent));
        if entry.node == Node::Directory {
            self.0.push(entry.path.clone());
        }
        !is_orphan
    }
}

/// Each set once, however many entries have it.
#[derive(Default)]
pub(super) struct AttributeSets {
    pub(super) bytes: Vec<u8>,
    offsets: HashMap<Xattrs, u64>,
}

impl AttributeSets {
    fn offset(&mut self, xattrs: &Xattrs) -> Option<u64> {
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
