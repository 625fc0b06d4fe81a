//! Entries that follow each other in path order in; the same out again, and in between no more memory than their records, or
//! less if these are set aside.
//!
//! A bake knows of an entry what it read, and needs to know of all others before it can write it down: until then it is
//! a record as in the manifest, without its links and with its attribute set beside it.

use crate::Sha256;
use crate::entry::{Entry, Node, Xattrs};
use crate::manifest::BuildError;
use crate::manifest::builder::fits;
use crate::manifest::pieces::{Aside, Piece};
use crate::manifest::record::{self, Packer, Said};
use crate::manifest::times::{self, Moment};
use crate::manifest::unpacker::Unpacker;

/// Some entries in path order, being packed.
#[derive(Debug, Default)]
pub struct Draft {
    records: Vec<u8>,
    sets: Vec<Xattrs>,
    count: usize,
    packer: Packer,
    moment: Moment,
}

/// Some entries in path order, packed.
#[derive(Debug, Default)]
pub struct Packed {
    records: Piece,
    sets: Vec<Xattrs>,
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
        let records = &mut self.records;
        let said = self.packer.pack(records, entry, *sha256, set);
        if let (Node::File { .. }, Some(sha256)) = (&entry.node, sha256) {
            if said == Said::New {
                records.extend_from_slice(sha256.as_bytes());
            }
            times::put(records, &mut self.moment, *modified);
        }
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

    /// Ends it, and sets its records aside. What was kept for more is given back.
    pub fn finish(mut self, aside: &dyn Aside) -> Packed {
        self.records.shrink_to_fit();
        self.sets.shrink_to_fit();
        Packed {
            records: Piece::put(self.records, aside),
            sets: self.sets,
        }
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

impl Packed {
    /// The entries as they were packed.
    ///
    /// # Errors
    /// What was set aside cannot be read, or is not what it was.
    pub fn entries(
        &self,
        aside: &dyn Aside,
    ) -> Result<impl Iterator<Item = Drafted> + use<'_>, BuildError> {
        let records = self.records.bytes(aside).map_err(BuildError::Aside)?;
        let mut unpacking = Unpacking::default();
        Ok(std::iter::from_fn(move || {
            if unpacking.at == records.len() {
                return None;
            }
            let drafted = unpacking.next(&records, &self.sets);
            Some(drafted.expect("only what a manifest can hold was packed"))
        }))
    }
}

/// How far the entries of a draft were gone through.
#[derive(Default)]
struct Unpacking {
    unpacker: Unpacker,
    at: usize,
    /// SHA-256 of each content so far.
    sha256: Vec<Sha256>,
    moment: Moment,
}

impl Unpacking {
    fn next(&mut self, records: &[u8], sets: &[Xattrs]) -> Option<Drafted> {
        let record = self.unpacker.next(records, &mut self.at)?;
        let xattrs = match record.likeness.xattrs_at {
            Some(set) => sets.get(usize::try_from(set).ok()?)?.clone(),
            None => Xattrs::NONE,
        };
        let mut rest = records.get(self.at..)?;
        let (mut sha256, mut modified) = (None, (0, 0));
        if let Some(content) = record.content {
            if self.unpacker.content_count() > self.sha256.len() {
                let new = Sha256::from_bytes(record::take(&mut rest)?);
                self.sha256.push(new);
            }
            sha256 = Some(*self.sha256.get(content as usize)?);
            modified = times::take(&mut rest, &mut self.moment)?;
        }
        self.at = records.len() - rest.len();
        Some(Drafted {
            entry: record.into_entry(self.unpacker.path(), xattrs),
            sha256,
            modified,
        })
    }
}
