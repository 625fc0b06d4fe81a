//! The entries of a manifest, cut into parts that can be gone through side by side.

use std::ops::Range;

use crate::TreePath;
use crate::manifest::entries::{first_of_block, place_of_block};
use crate::manifest::{Contents, ManifestError, Source};

/// Entries that follow each other: whole blocks of them. Every path of a tree belongs to exactly one part, whether the
/// manifest has it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub(super) blocks: Range<u64>,
    /// The places of its entries among all of them.
    pub ordinals: Range<u64>,
    /// The places of its files among all files.
    pub(super) file_ordinals: Range<u64>,
    /// The first path that belongs to it; none for the first part, which begins at the root.
    pub start: Option<TreePath>,
    /// The first path that belongs to the next part; none for the last one.
    pub end: Option<TreePath>,
}

impl Part {
    /// Paths of which a manifest has no entries.
    pub fn between(start: Option<TreePath>, end: Option<TreePath>) -> Self {
        Part {
            blocks: 0..0,
            ordinals: 0..0,
            file_ordinals: 0..0,
            start,
            end,
        }
    }
}

/// Cuts the entries into parts of `blocks_each` blocks (at least one), in path order. There is always a part, if only
/// an empty one.
pub(super) fn parts<S: Source>(
    contents: &Contents<S>,
    blocks_each: u64,
) -> Result<Vec<Part>, ManifestError> {
    let blocks = contents.header.sections.entry_blocks();
    let (count, files) = (contents.header.entry_count, contents.header.file_count);
    let mut parts = vec![Part {
        blocks: 0..blocks,
        ordinals: 0..count,
        file_ordinals: 0..files,
        start: None,
        end: None,
    }];
    let mut cut = blocks_each.max(1);
    while cut < blocks {
        let start = first_of_block(contents, cut)?;
        let (ordinal, file_ordinal) = place_of_block(contents, cut)?;
        let last = parts.last_mut().expect("there is always one");
        let in_order = last.start.as_ref().is_none_or(|before| *before < start);
        if !in_order || ordinal < last.ordinals.start || ordinal > count {
            return Err(ManifestError::Malformed("order of blocks"));
        }
        last.end = Some(start.clone());
        last.blocks.end = cut;
        last.ordinals.end = ordinal;
        last.file_ordinals.end = file_ordinal;
        parts.push(Part {
            blocks: cut..blocks,
            ordinals: ordinal..count,
            file_ordinals: file_ordinal..files,
            start: Some(start),
            end: None,
        });
        cut = cut.saturating_add(blocks_each.max(1));
    }
    Ok(parts)
}
