//! Entries that follow each other in path order in; the same out again, and in between no more memory than their records.
//!
//! A bake knows of an entry what it read, and needs to know of all others before it can write it down: until then it is
//! a record as in the manifest, without its links and with its attribute set beside it.

use crate::entry::{Entry, Node, Xattrs};
use crate::manifest::BuildError;
use crate::manifest::builder::fits;
use crate::manifest::record;
use crate::{Sha256, TreePath};

/// Some entries in path order, packed.
#[derive(Debug, Default)]
pub struct Draft {
    records: Vec<u8>,
    sets: Vec<Xattrs>,
    before: Option<TreePath>,
    count: usize,
}

/// An entry with what only the bake knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drafted {
    /// The entry; its links are never among what is packed.
    pub entry: Entry,
    /// SHA-256 of a regular file whose content is held.
    pub sha256: Option<Sha256>,
    /// Of such a file, when it was last written: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
}

impl Draft {
    /// Packs the next entry, but for its links.
    ///
    /// # Errors
    /// What no manifest can hold, or a file without its SHA-256.
    pub fn push(&mut self, drafted: &Drafted) -> Result<(), BuildError> {
        let Drafted {
            entry,
            sha256,
            modified,
        } = drafted;
        fits(entry, sha256.is_some())?;
        debug_assert!(entry.links.is_none(), "links are not known yet");
        let set = (!entry.xattrs.is_empty()).then(|| self.set(&entry.xattrs));
        record::encode(&mut self.records, entry, self.before.as_ref(), set);
        if let (Node::File { .. }, Some(sha256)) = (&entry.node, sha256) {
            self.records.extend_from_slice(sha256.as_bytes());
            self.records.extend_from_slice(&modified.0.to_le_bytes());
            self.records.extend_from_slice(&modified.1.to_le_bytes());
        }
        self.before = Some(entry.path.clone());
        self.count += 1;
        Ok(())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives back what was kept for more.
    pub fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.sets.shrink_to_fit();
    }

    /// The entries as they were packed.
    pub fn entries(&self) -> impl Iterator<Item = Drafted> + use<'_> {
        let (mut rest, mut before) = (&self.records[..], None);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let packed = self.unpack(&mut rest, before.as_ref());
            let drafted = packed.expect("only what a manifest can hold was packed");
            before = Some(drafted.entry.path.clone());
            Some(drafted)
        })
    }

    fn unpack(&self, rest: &mut &[u8], before: Option<&TreePath>) -> Option<Drafted> {
        let record = record::decode(rest, before).ok()?;
        let mut drafted = Drafted {
            entry: record.entry,
            sha256: None,
            modified: (0, 0),
        };
        if let Some(set) = record.xattrs_at {
            drafted.entry.xattrs = self.sets.get(usize::try_from(set).ok()?)?.clone();
        }
        if matches!(drafted.entry.node, Node::File { .. }) {
            drafted.sha256 = Some(Sha256::from_bytes(record::take(rest)?));
            drafted.modified.0 = i64::from_le_bytes(record::take(rest)?);
            drafted.modified.1 = u32::from_le_bytes(record::take(rest)?);
        }
        Some(drafted)
    }

    /// The place of a set among those of this draft: entries near each other mostly have the same few.
    fn set(&mut self, xattrs: &Xattrs) -> u64 {
        const LOOKED_BACK: usize = 8;
        let start = self.sets.len().saturating_sub(LOOKED_BACK);
        let known = self.sets[start..].iter().position(|set| set == xattrs);
        let place = known.map_or(self.sets.len(), |at| start + at);
        if known.is_none() {
            self.sets.push(xattrs.clone());
        }
        place as u64
    }
}
