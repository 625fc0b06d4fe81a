//! Whether a manifest is whole and canonical: it is written again from what was read, block by block, and compared.
//!
//! A host trusts the signature and reads what it needs; whoever signs or keeps a manifest reads all of it here, so that
//! one tree has one identity and nothing rides along that no entry names.

use crate::entry::Node;
use crate::manifest::encoder::{Directories, EntryBlocks};
use crate::manifest::entries::{Numbered, entry_block};
use crate::manifest::layout::BLOCK_BYTES;
use crate::manifest::times::{self, HEAD_BYTES};
use crate::manifest::{Contents, ManifestError, Source, origin};

const NOT_CANONICAL: ManifestError =
    ManifestError::Malformed("it is not the canonical form of its entries");

pub(super) fn check<S: Source>(contents: &Contents<S>) -> Result<(), ManifestError> {
    for index in 0..contents.blocks.count() {
        contents.blocks.get(index)?;
    }
    if !contents.packages()?.are_all_used() {
        return Err(NOT_CANONICAL);
    }
    check_times(contents)?;
    let mut again = Again::new(contents);
    for numbered in contents.entries().numbered() {
        again.add(&numbered?)?;
    }
    again.finish()
}

/// The side section is outside the identity, but is times and nothing else.
fn check_times<S: Source>(contents: &Contents<S>) -> Result<(), ManifestError> {
    let start = contents.side.start + HEAD_BYTES;
    let mut side = vec![0; contents.side.end.saturating_sub(start) as usize];
    let source = contents.blocks.source();
    source
        .read_at(start, &mut side)
        .map_err(ManifestError::Read)?;
    if times::are_of(&side, contents.header.file_count) {
        Ok(())
    } else {
        Err(ManifestError::Malformed("side section"))
    }
}

/// The manifest as it is written again.
struct Again<'m, S> {
    contents: &'m Contents<S>,
    directories: Directories,
    blocks: EntryBlocks,
    next_block: u64,
    file_count: u64,
    content_bytes: u64,
}

impl<'m, S: Source> Again<'m, S> {
    fn new(contents: &'m Contents<S>) -> Self {
        Again {
            contents,
            directories: Directories::default(),
            blocks: EntryBlocks::default(),
            next_block: 0,
            file_count: 0,
            content_bytes: 0,
        }
    }

    fn add(&mut self, numbered: &Numbered) -> Result<(), ManifestError> {
        if !self
            .directories
            .admit(&numbered.entry, self.contents.rules())
        {
            return Err(ManifestError::Malformed("an entry is in no directory"));
        }
        let entry = &numbered.entry;
        self.file_count += u64::from(matches!(entry.node, Node::File { .. }));
        self.content_bytes = self.content_bytes.saturating_add(entry.size());
        let sha256 = origin::sha256(self.contents, numbered)?;
        match self.blocks.push(entry, sha256) {
            Ok(written) => written.full.map_or(Ok(()), |block| self.compare(&block)),
            Err(_) => Err(NOT_CANONICAL),
        }
    }

    fn compare(&mut self, written: &[u8]) -> Result<(), ManifestError> {
        if self.next_block >= self.contents.block_count() {
            return Err(NOT_CANONICAL);
        }
        let (block, end) = entry_block(self.contents, self.next_block)?;
        self.next_block += 1;
        if block[..end] == *written {
            Ok(())
        } else {
            Err(NOT_CANONICAL)
        }
    }

    fn finish(mut self) -> Result<(), ManifestError> {
        let header = &self.contents.header;
        let last = std::mem::take(&mut self.blocks.last);
        if !last.is_empty() {
            self.compare(&last)?;
        }
        let sets = &self.blocks.sets.bytes;
        if self.blocks.index != header.index || sets.len() as u64 != header.sections.xattrs {
            return Err(NOT_CANONICAL);
        }
        let mut offset = header.sections.xattrs_start();
        let mut read = vec![0; BLOCK_BYTES];
        for chunk in sets.chunks(BLOCK_BYTES) {
            let read = &mut read[..chunk.len()];
            self.contents.blocks.copy(offset, read)?;
            if read != chunk {
                return Err(NOT_CANONICAL);
            }
            offset += chunk.len() as u64;
        }
        let counted = (self.file_count, self.content_bytes);
        if counted == (header.file_count, header.content_bytes) {
            Ok(())
        } else {
            Err(NOT_CANONICAL)
        }
    }
}
