//! The entries of a manifest, cut into parts that can be gone through side by side.

use std::ops::Range;

use crate::TreePath;
use crate::manifest::index::Index;

/// Entries that follow each other: whole blocks of them. Every path of a tree belongs to exactly one part, whether the
/// manifest has it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub(super) blocks: Range<u64>,
    /// The places of its entries among all of them.
    pub ordinals: Range<u64>,
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
            start,
            end,
        }
    }
}

/// Cuts the entries into parts of `blocks_each` blocks (at least one), in path order.
pub(super) fn parts(index: &Index, blocks_each: u64) -> Vec<Part> {
    let (blocks, (entries, _)) = (index.blocks(), index.counts());
    let mut parts = vec![Part {
        blocks: 0..blocks,
        ordinals: 0..entries,
        start: None,
        end: None,
    }];
    let mut cut = blocks_each.max(1);
    while let (Some(place), Some(last)) = (index.get(cut), parts.last_mut()) {
        last.blocks.end = cut;
        last.ordinals.end = place.ordinals.start;
        last.end = Some(place.first.clone());
        parts.push(Part {
            blocks: cut..blocks,
            ordinals: place.ordinals.start..entries,
            start: Some(place.first.clone()),
            end: None,
        });
        cut = cut.saturating_add(blocks_each.max(1));
    }
    parts
}
