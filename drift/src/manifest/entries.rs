//! Entries in path order, and the one at a path.
//!
//! A block of entries is records ([`super::record`]), and zeros up to its end. How many it has, and which is the first, the
//! index says.

use std::sync::Arc;

use crate::TreePath;
use crate::entry::{Entry, Xattrs};
use crate::manifest::index::Place;
use crate::manifest::layout::BLOCK_BYTES;
use crate::manifest::part::Part;
use crate::manifest::sets::read_set;
use crate::manifest::unpacker::{Record, Unpacker};
use crate::manifest::{Contents, ManifestError, Source};

/// An entry with its place among all entries, and that of its content among all contents.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// From 0, in path order.
    pub ordinal: u64,
    /// Which SHA-256 is its own, if it is a file whose content is held.
    pub(super) content: Option<u64>,
    /// The entry.
    pub entry: Entry,
}

/// A forward pass over the entries. Ends at the first error.
#[derive(Debug)]
pub struct Entries<'m, S> {
    contents: &'m Contents<S>,
    next_block: u64,
    end_block: u64,
    /// What comes before it is passed over.
    first: Option<TreePath>,
    current: Option<Cursor<'m>>,
    unpacker: Unpacker,
    last_set: Option<(u64, Xattrs)>,
}

/// Where a pass stands in its block.
#[derive(Debug)]
struct Cursor<'m> {
    place: &'m Place,
    block: Arc<[u8]>,
    /// The end of the records and their padding.
    end: usize,
    at: usize,
    /// The place of the next record among all entries.
    ordinal: u64,
}

impl<'m, S: Source> Entries<'m, S> {
    pub(super) fn all(contents: &'m Contents<S>) -> Self {
        Self::blocks(contents, 0, contents.block_count())
    }

    /// The entries of one part.
    pub(super) fn part(contents: &'m Contents<S>, part: &Part) -> Self {
        Self::blocks(contents, part.blocks.start, part.blocks.end)
    }

    /// The entries from a path on.
    pub(super) fn from(contents: &'m Contents<S>, first: &TreePath) -> Self {
        let block = contents.header.index.block_of(first).unwrap_or(0);
        Entries {
            first: Some(first.clone()),
            ..Self::blocks(contents, block, contents.block_count())
        }
    }

    fn blocks(contents: &'m Contents<S>, start: u64, end: u64) -> Self {
        Entries {
            contents,
            next_block: start,
            end_block: end,
            first: None,
            current: None,
            unpacker: Unpacker::default(),
            last_set: None,
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
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Numbered>, ManifestError> {
        loop {
            if let Some((ordinal, record)) = self.take_record()? {
                let is_before = |first: &TreePath| self.unpacker.compare(first).is_lt();
                if self.first.as_ref().is_some_and(is_before) {
                    continue;
                }
                self.first = None;
                return self.number(ordinal, record).map(Some);
            }
            if self.next_block >= self.end_block {
                return Ok(None);
            }
            self.enter_block()?;
        }
    }

    /// The next record of the current block, with its ordinal; none at the end of it.
    fn take_record(&mut self) -> Result<Option<(u64, Record)>, ManifestError> {
        let Some(cursor) = &mut self.current else {
            return Ok(None);
        };
        let ordinal = cursor.ordinal;
        if ordinal == cursor.place.ordinals.end {
            return self.leave_block().map(|()| None);
        }
        let record = self
            .unpacker
            .next(&cursor.block[..cursor.end], &mut cursor.at)
            .ok_or(ManifestError::Malformed("a record"))?;
        if ordinal == cursor.place.ordinals.start && !self.unpacker.is_at(&cursor.place.first) {
            return Err(OTHER_THAN_INDEX);
        }
        cursor.ordinal += 1;
        Ok(Some((ordinal, record)))
    }

    /// Makes an entry of a record, which was read last.
    fn number(&mut self, ordinal: u64, record: Record) -> Result<Numbered, ManifestError> {
        let xattrs = match record.likeness.xattrs_at {
            Some(offset) => self.attribute_set(offset)?,
            None => Xattrs::NONE,
        };
        let before = self.current.as_ref().map(|cursor| &cursor.place.contents);
        let content = record
            .content
            .and_then(|content| Some(before?.start + u64::from(content)));
        Ok(Numbered {
            ordinal,
            content,
            entry: record.into_entry(self.unpacker.path(), xattrs),
        })
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
        let place = self.contents.header.index.get(self.next_block);
        self.unpacker.restart();
        self.current = place.map(|place| Cursor {
            place,
            block,
            end,
            at: 0,
            ordinal: place.ordinals.start,
        });
        self.next_block += 1;
        Ok(())
    }

    /// At the end of a block there is nothing but zeros, it has had as many contents as the index says, and the next block
    /// begins with a later path.
    fn leave_block(&mut self) -> Result<(), ManifestError> {
        let Some(cursor) = self.current.take() else {
            return Ok(());
        };
        if cursor.block[cursor.at..cursor.end]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err(ManifestError::Malformed("padding"));
        }
        let contents = &cursor.place.contents;
        let next = self.contents.header.index.get(self.next_block);
        let in_order = next.is_none_or(|next| self.unpacker.compare(&next.first).is_lt());
        if contents.end - contents.start != self.unpacker.content_count() as u64 || !in_order {
            return Err(OTHER_THAN_INDEX);
        }
        Ok(())
    }
}

const OTHER_THAN_INDEX: ManifestError =
    ManifestError::Malformed("a block is not what the index says");

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

/// Finds paths, one after another. Those that are asked for in path order have what lies between them read once; nothing
/// is made of it.
#[derive(Debug)]
pub struct Lookups<'m, S> {
    /// A pass over the block that was looked into last.
    entries: Entries<'m, S>,
    block: Option<u64>,
    /// The path that was asked for last, and the first record of the block that is not before it.
    asked: TreePath,
    ahead: Option<(u64, Record)>,
}

impl<'m, S: Source> Lookups<'m, S> {
    pub(super) fn new(contents: &'m Contents<S>) -> Self {
        Lookups {
            entries: Entries::blocks(contents, 0, 0),
            block: None,
            asked: TreePath::default(),
            ahead: None,
        }
    }

    /// The entry at a path.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn entry(&mut self, path: &TreePath) -> Result<Option<Entry>, ManifestError> {
        Ok(self.numbered(path)?.map(|numbered| numbered.entry))
    }

    /// The same, with its place.
    pub(super) fn numbered(&mut self, path: &TreePath) -> Result<Option<Numbered>, ManifestError> {
        // The index says in which block it is, if it is in any.
        let Some(block) = self.entries.contents.header.index.block_of(path) else {
            return Ok(None);
        };
        // After an error nothing is known of where it stands.
        let stands_in = self.block.take();
        if stands_in != Some(block) || *path < self.asked {
            (self.entries.next_block, self.entries.end_block) = (block, block + 1);
            self.entries.enter_block()?;
            self.ahead = None;
        }
        let is_there = self.seek(path)?;
        self.asked.clone_from(path);
        self.block = Some(block);
        match &self.ahead {
            Some((ordinal, record)) if is_there => {
                self.entries.number(*ordinal, record.clone()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Goes on to the first record that is not before a path. Whether it is the one at it.
    fn seek(&mut self, path: &TreePath) -> Result<bool, ManifestError> {
        let mut record = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.entries.take_record()?,
        };
        while record.is_some() {
            let at = self.entries.unpacker.compare(path);
            if at.is_ge() {
                self.ahead = record;
                return Ok(at.is_eq());
            }
            record = self.entries.take_record()?;
        }
        Ok(false)
    }
}

/// Finds one path.
pub(super) fn find<S: Source>(
    contents: &Contents<S>,
    path: &TreePath,
) -> Result<Option<Numbered>, ManifestError> {
    Lookups::new(contents).numbered(path)
}

/// The entry at a place among all entries.
pub(super) fn nth<S: Source>(
    contents: &Contents<S>,
    ordinal: u64,
) -> Result<Option<Entry>, ManifestError> {
    let Some(block) = contents.header.index.block_with(ordinal) else {
        return Ok(None);
    };
    let mut entries = Entries::blocks(contents, block, block + 1);
    entries.enter_block()?;
    while let Some((at, record)) = entries.take_record()? {
        if at == ordinal {
            return entries.number(at, record).map(|found| Some(found.entry));
        }
    }
    Ok(None)
}

/// A block of entries, and where in it the entry section ends.
pub(super) fn entry_block<S: Source>(
    contents: &Contents<S>,
    index: u64,
) -> Result<(Arc<[u8]>, usize), ManifestError> {
    let block = contents.block(index)?;
    let start = index * BLOCK_BYTES as u64;
    let end = (contents.header.sections.entries - start).min(block.len() as u64) as usize;
    Ok((block, end))
}
