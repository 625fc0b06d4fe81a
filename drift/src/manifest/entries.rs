//! Entries in path order, and the one at a path.
//!
//! Entry blocks begin with the ordinals of their first entry and of its first file (8 bytes each), then records; what is
//! left after the last record is zero. A path in the first record of a block is whole, so a block is read on its own.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::entry::{Entry, Node, Xattr, Xattrs};
use crate::manifest::layout::{BLOCK_BYTES, take_bytes};
use crate::manifest::part::Part;
use crate::manifest::record::{self, Record};
use crate::manifest::{Contents, ManifestError, Source};
use crate::{TreePath, varint};

pub(super) const BLOCK_HEAD_BYTES: usize = 16;

/// One attribute set as it is written: ext4 and btrfs hold far less on one inode, and every record of a hostile manifest
/// can make us read as much again.
pub(super) const MAX_SET_BYTES: usize = 1024 * 1024;

/// An entry with its place among all entries, and among those whose content is held.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// From 0, in path order.
    pub ordinal: u64,
    /// How many files whose content is held come before it.
    pub file_ordinal: u64,
    /// The entry.
    pub entry: Entry,
}

/// A forward pass over the entries. Ends at the first error.
#[derive(Debug)]
pub struct Entries<'m, S> {
    contents: &'m Contents<S>,
    next_block: u64,
    end_block: u64,
    current: Option<Cursor>,
    last_set: Option<(u64, Xattrs)>,
    /// The last path of the block before: order holds across blocks too.
    last_path: Option<TreePath>,
    next_ordinal: Option<(u64, u64)>,
    /// Of the part that comes next: its first ordinals and its first path.
    boundary: Option<((u64, u64), TreePath)>,
}

/// Where a pass stands in its block.
#[derive(Debug)]
struct Cursor {
    block: Arc<[u8]>,
    /// The end of the records and their padding.
    end: usize,
    at: usize,
    before: Option<TreePath>,
}

impl<'m, S: Source> Entries<'m, S> {
    pub(super) fn all(contents: &'m Contents<S>) -> Self {
        let end = contents.header.sections.entry_blocks();
        Entries {
            next_ordinal: Some((0, 0)),
            ..Self::blocks(contents, 0, end)
        }
    }

    fn blocks(contents: &'m Contents<S>, start: u64, end: u64) -> Self {
        Entries {
            contents,
            next_block: start,
            end_block: end,
            current: None,
            last_set: None,
            last_path: None,
            next_ordinal: None,
            boundary: None,
        }
    }

    /// The entries of one part.
    pub(super) fn part(contents: &'m Contents<S>, part: &Part) -> Self {
        Entries {
            next_ordinal: Some((part.ordinals.start, part.file_ordinals.start)),
            boundary: part
                .end
                .clone()
                .map(|end| ((part.ordinals.end, part.file_ordinals.end), end)),
            ..Self::blocks(contents, part.blocks.start, part.blocks.end)
        }
    }

    /// The same pass with every entry's place.
    pub fn numbered(self) -> impl Iterator<Item = Result<Numbered, ManifestError>> + use<'m, S> {
        NumberedEntries(self)
    }

    /// The next entry with its place.
    ///
    /// # Errors
    /// A block that cannot be read, was altered, or breaks the format; the pass is over then.
    pub fn next_numbered(&mut self) -> Result<Option<Numbered>, ManifestError> {
        let next = self.advance();
        if next.is_err() {
            self.current = None;
            self.next_block = self.end_block;
            self.next_ordinal = None;
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Numbered>, ManifestError> {
        loop {
            if let Some(record) = self.take_record()? {
                let (mut numbered, xattrs_at) = self.number(record)?;
                if let Some(offset) = xattrs_at {
                    numbered.entry.xattrs = self.attribute_set(offset)?;
                }
                return Ok(Some(numbered));
            }
            if self.next_block >= self.end_block {
                return self.check_end().map(|()| None);
            }
            self.enter_block()?;
        }
    }

    /// The entry at `path`, in a pass over one block. Attribute sets of those before it are not read.
    fn seek(&mut self, path: &TreePath) -> Result<Option<Numbered>, ManifestError> {
        self.enter_block()?;
        while let Some(record) = self.take_record()? {
            let (mut numbered, xattrs_at) = self.number(record)?;
            match numbered.entry.path.cmp(path) {
                Ordering::Less => {}
                Ordering::Equal => {
                    if let Some(offset) = xattrs_at {
                        numbered.entry.xattrs = self.attribute_set(offset)?;
                    }
                    return Ok(Some(numbered));
                }
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// A pass that came to the last block has seen as many entries as the header says: a signed number, which coverage
    /// is counted by. One that came to the next part has left nothing out before it, and nothing of it in here.
    fn check_end(&self) -> Result<(), ManifestError> {
        if let Some((ordinals, start)) = &self.boundary {
            let counted = self.next_ordinal.is_none_or(|seen| seen == *ordinals);
            let before = self.last_path.as_ref().is_none_or(|last| last < start);
            if !counted || !before {
                return Err(ManifestError::Malformed("order of blocks"));
            }
        }
        let header = &self.contents.header;
        let whole = self.end_block == header.sections.entry_blocks();
        let counted = self
            .next_ordinal
            .is_none_or(|seen| seen == (header.entry_count, header.file_count));
        if whole && !counted {
            Err(ManifestError::Malformed("entry count"))
        } else {
            Ok(())
        }
    }

    fn take_record(&mut self) -> Result<Option<Record>, ManifestError> {
        let Some(cursor) = &mut self.current else {
            return Ok(None);
        };
        let mut rest = &cursor.block[cursor.at..cursor.end];
        if rest.first().is_none_or(|&tag| tag == 0) {
            if rest.iter().any(|&byte| byte != 0) {
                return Err(ManifestError::Malformed("padding"));
            }
            // Without a record there is no path that the next block must come after.
            if cursor.before.is_none() {
                return Err(ManifestError::Malformed("a block without entries"));
            }
            self.last_path = cursor.before.take();
            self.current = None;
            return Ok(None);
        }
        let record = record::decode(&mut rest, cursor.before.as_ref())?;
        cursor.at = cursor.end - rest.len();
        cursor.before = Some(record.entry.path.clone());
        Ok(Some(record))
    }

    /// Gives a record its place, which is within the counts of the header; its attribute set is still an offset.
    fn number(&mut self, record: Record) -> Result<(Numbered, Option<u64>), ManifestError> {
        let (ordinal, file_ordinal) = self.next_ordinal.expect("a block was entered");
        let Record { entry, xattrs_at } = record;
        if self.last_path.take().is_some_and(|last| last >= entry.path) {
            return Err(ManifestError::Malformed("order of blocks"));
        }
        let is_file = matches!(entry.node, Node::File { .. });
        let header = &self.contents.header;
        if ordinal >= header.entry_count || (is_file && file_ordinal >= header.file_count) {
            return Err(ManifestError::Malformed("ordinals"));
        }
        self.next_ordinal = Some((ordinal + 1, file_ordinal + u64::from(is_file)));
        Ok((
            Numbered {
                ordinal,
                file_ordinal,
                entry,
            },
            xattrs_at,
        ))
    }

    /// Entries that follow each other mostly have the same set.
    fn attribute_set(&mut self, offset: u64) -> Result<Xattrs, ManifestError> {
        if let Some((last, xattrs)) = &self.last_set
            && *last == offset
        {
            return Ok(xattrs.clone());
        }
        let xattrs = read_set(self.contents, offset)?;
        self.last_set = Some((offset, xattrs.clone()));
        Ok(xattrs)
    }

    fn enter_block(&mut self) -> Result<(), ManifestError> {
        let (block, end) = entry_block(self.contents, self.next_block)?;
        let ordinals = ordinals(&block);
        if self
            .next_ordinal
            .is_some_and(|expected| expected != ordinals)
        {
            return Err(ManifestError::Malformed("ordinals"));
        }
        self.next_ordinal = Some(ordinals);
        self.current = Some(Cursor {
            block,
            end,
            at: BLOCK_HEAD_BYTES,
            before: None,
        });
        self.next_block += 1;
        Ok(())
    }
}

impl<S: Source> Iterator for Entries<'_, S> {
    type Item = Result<Entry, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_numbered()
            .map(|next| next.map(|numbered| numbered.entry))
            .transpose()
    }
}

struct NumberedEntries<'m, S>(Entries<'m, S>);

impl<S: Source> Iterator for NumberedEntries<'_, S> {
    type Item = Result<Numbered, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_numbered().transpose()
    }
}

/// Finds a path: a binary search over the first paths of the blocks, then one block from its start.
pub(super) fn find<S: Source>(
    contents: &Contents<S>,
    path: &TreePath,
) -> Result<Option<Numbered>, ManifestError> {
    let (mut low, mut high) = (0, contents.header.sections.entry_blocks());
    while low < high {
        let middle = low + (high - low) / 2;
        if first_of_block(contents, middle)? <= *path {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(block) = low.checked_sub(1) else {
        return Ok(None);
    };
    Entries::blocks(contents, block, block + 1).seek(path)
}

/// The first path of a block.
pub(super) fn first_of_block<S: Source>(
    contents: &Contents<S>,
    index: u64,
) -> Result<TreePath, ManifestError> {
    let (block, end) = entry_block(contents, index)?;
    record::decode(&mut &block[BLOCK_HEAD_BYTES..end], None).map(|record| record.entry.path)
}

/// The ordinals of the first entry and of the first file of a block.
pub(super) fn place_of_block<S: Source>(
    contents: &Contents<S>,
    index: u64,
) -> Result<(u64, u64), ManifestError> {
    entry_block(contents, index).map(|(block, _)| ordinals(&block))
}

/// A block of entries, and where in it the entry section ends.
pub(super) fn entry_block<S: Source>(
    contents: &Contents<S>,
    index: u64,
) -> Result<(Arc<[u8]>, usize), ManifestError> {
    let block = contents.block(index)?;
    let start = index * BLOCK_BYTES as u64;
    let end = (contents.header.sections.entries - start).min(block.len() as u64) as usize;
    if end < BLOCK_HEAD_BYTES {
        return Err(ManifestError::Malformed("a block of entries"));
    }
    Ok((block, end))
}

fn ordinals(block: &[u8]) -> (u64, u64) {
    let at =
        |start: usize| u64::from_le_bytes(block[start..start + 8].try_into().expect("8 bytes"));
    (at(0), at(8))
}

/// An attribute set: varint length of what follows, varint count, then name and value of each.
fn read_set<S: Source>(contents: &Contents<S>, offset: u64) -> Result<Xattrs, ManifestError> {
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
