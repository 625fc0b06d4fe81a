//! Entries in path order become blocks of records, their index, and a section of attribute sets: the one way to write them.

use crate::entry::{Entry, Node};
use crate::manifest::BuildError;
use crate::manifest::index::Index;
use crate::manifest::layout::BLOCK_BYTES;
use crate::manifest::record::{Packer, Said};
use crate::manifest::sets::AttributeSets;
use crate::rules::Rules;
use crate::{Sha256, TreePath};

/// Writes records into blocks, each as full as can be.
#[derive(Default)]
pub(super) struct EntryBlocks {
    /// The block that is being filled; at the end, the last one.
    pub(super) last: Vec<u8>,
    pub(super) index: Index,
    pub(super) sets: AttributeSets,
    packer: Packer,
    record: Vec<u8>,
}

/// What came of an entry.
pub(super) struct Written {
    /// A block that the entry no longer fits, padded with zeros.
    pub(super) full: Option<Vec<u8>>,
    /// Whether its SHA-256 is to be written.
    pub(super) content: Said,
}

impl EntryBlocks {
    /// Adds the next entry in path order.
    pub(super) fn push(
        &mut self,
        entry: &Entry,
        sha256: Option<Sha256>,
    ) -> Result<Written, BuildError> {
        let xattrs_at = self.sets.offset(&entry.xattrs);
        let pack = |packer: &mut Packer, record: &mut Vec<u8>| {
            record.clear();
            packer.pack(record, entry, sha256, xattrs_at)
        };
        let mut content = pack(&mut self.packer, &mut self.record);
        let mut full = None;
        if self.last.is_empty() || self.last.len() + self.record.len() > BLOCK_BYTES {
            if !self.last.is_empty() {
                self.last.resize(BLOCK_BYTES, 0);
                full = Some(std::mem::take(&mut self.last));
            }
            self.packer = Packer::default();
            content = pack(&mut self.packer, &mut self.record);
            if self.record.len() > BLOCK_BYTES {
                return Err(BuildError::TooLong(entry.path.clone()));
            }
            self.index.begin(entry.path.clone());
        }
        self.last.extend_from_slice(&self.record);
        self.index.count(u64::from(content == Said::New));
        Ok(Written { full, content })
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
