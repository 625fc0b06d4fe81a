//! Whether a manifest is whole and canonical: it is written again from what was read, block by block, and compared.
//!
//! A host trusts the signature and reads what it needs; whoever signs or keeps a manifest reads all of it here, so that
//! one tree has one identity and nothing rides along that no entry names.

use crate::manifest::encoder::{Directories, EntryBlocks};
use crate::manifest::entries::{Numbered, entry_block};
use crate::manifest::layout::BLOCK_BYTES;
use crate::manifest::{Contents, ManifestError, Package, Source, origin};

const NOT_CANONICAL: ManifestError =
    ManifestError::Malformed("it is not the canonical form of its entries");

pub(super) fn check<S: Source>(contents: &Contents<S>) -> Result<(), ManifestError> {
    for index in 0..contents.blocks.count() {
        contents.blocks.get(index)?;
    }
    let packages = contents.packages()?;
    let mut again = Again::new(contents, &packages);
    for numbered in contents.entries().numbered() {
        again.add(&numbered?)?;
    }
    again.finish()
}

/// The manifest as it is written again.
struct Again<'m, S> {
    contents: &'m Contents<S>,
    packages: &'m [Package],
    package_used: Vec<bool>,
    directories: Directories,
    blocks: EntryBlocks,
    next_block: u64,
    content_bytes: u64,
}

impl<'m, S: Source> Again<'m, S> {
    fn new(contents: &'m Contents<S>, packages: &'m [Package]) -> Self {
        Again {
            contents,
            packages,
            package_used: vec![false; packages.len()],
            directories: Directories::default(),
            blocks: EntryBlocks::default(),
            next_block: 0,
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
        if let Some(package) = origin::read(self.contents, numbered, self.packages)?.package
            && let Ok(index) = self.packages.binary_search(&package)
        {
            self.package_used[index] = true;
        }
        self.content_bytes = self.content_bytes.saturating_add(numbered.entry.size());
        match self.blocks.push(&numbered.entry) {
            Ok(Some(block)) => self.compare(&block),
            Ok(None) => Ok(()),
            Err(_) => Err(NOT_CANONICAL),
        }
    }

    fn compare(&mut self, written: &[u8]) -> Result<(), ManifestError> {
        if self.next_block >= self.contents.header.sections.entry_blocks() {
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
        let all_used = self.package_used.iter().all(|&used| used);
        let counted = self.content_bytes == header.content_bytes;
        if self.next_block != header.sections.entry_blocks()
            || sets.len() as u64 != header.sections.xattrs
        {
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
        if all_used && counted {
            Ok(())
        } else {
            Err(NOT_CANONICAL)
        }
    }
}
