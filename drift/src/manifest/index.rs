//! What the header tells of each block of entries, so that a path's block is known before any is read.
//!
//! For each block: varint length and path of its first entry, varint entries, varint contents that are new in it. Paths are
//! whole, which a look-up needs; a body of the longest has 65,536 blocks.

use std::ops::Range;

use crate::manifest::layout::{BLOCK_BYTES, canonical_path, take_bytes};
use crate::manifest::record::put_bytes;
use crate::{TreePath, varint};

/// All blocks of entries, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index(Vec<Place>);

/// What is in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The path of its first entry.
    pub(super) first: TreePath,
    /// The places of its entries among all of them; at least one.
    pub(super) ordinals: Range<u64>,
    /// The places of its new contents among all of them.
    pub(super) contents: Range<u64>,
}

impl Index {
    /// Begins a block without entries.
    pub(super) fn begin(&mut self, first: TreePath) {
        let (ordinal, content) = self.counts();
        self.0.push(Place {
            first,
            ordinals: ordinal..ordinal,
            contents: content..content,
        });
    }

    /// Counts an entry, and so many new contents, to the last block.
    pub(super) fn count(&mut self, contents: u64) {
        if let Some(last) = self.0.last_mut() {
            last.ordinals.end += 1;
            last.contents.end += contents;
        }
    }

    /// How many entries and contents there are.
    pub(super) fn counts(&self) -> (u64, u64) {
        let last = self.0.last();
        last.map_or((0, 0), |last| (last.ordinals.end, last.contents.end))
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn get(&self, block: u64) -> Option<&Place> {
        self.0.get(usize::try_from(block).ok()?)
    }

    /// The block that a path is in, if it is in any.
    pub(super) fn block_of(&self, path: &TreePath) -> Option<u64> {
        let after = self.0.partition_point(|place| place.first <= *path);
        (after as u64).checked_sub(1)
    }

    /// The block that an entry is in, by its place among all of them.
    pub(super) fn block_with(&self, ordinal: u64) -> Option<u64> {
        let block = self
            .0
            .partition_point(|place| place.ordinals.end <= ordinal);
        (block < self.0.len()).then_some(block as u64)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for place in &self.0 {
            put_bytes(out, place.first.as_bytes());
            for range in [&place.ordinals, &place.contents] {
                varint::put(out, range.end - range.start);
            }
        }
    }

    /// Takes the index of so many blocks; none if it is not one.
    pub(super) fn decode(rest: &mut &[u8], blocks: u64) -> Option<Self> {
        let mut index = Index::default();
        for _ in 0..blocks {
            let first = canonical_path(take_bytes(rest, TreePath::MAX_BYTES)?)?;
            let (entries, contents) = (varint::take(rest)?, varint::take(rest)?);
            let before = index.0.last();
            let in_order = before.is_none_or(|before| before.first < first);
            // Each entry has a byte at least.
            if !in_order || entries == 0 || entries > BLOCK_BYTES as u64 || contents > entries {
                return None;
            }
            let (ordinal, content) = index.counts();
            index.0.push(Place {
                first,
                ordinals: ordinal..ordinal + entries,
                contents: content..content + contents,
            });
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).unwrap()
    }

    fn index(firsts: &[&str]) -> Index {
        let mut index = Index::default();
        for (first, contents) in firsts.iter().zip(0..) {
            index.begin(path(first));
            index.count(0);
            index.count(contents);
        }
        index
    }

    #[test]
    fn a_path_is_in_the_last_block_that_begins_no_later() {
        let index = index(&["", "etc/b", "usr"]);
        for (sought, block) in [
            ("", 0),
            ("etc", 0),
            ("etc/a", 0),
            ("etc/b", 1),
            ("etc/b/c", 1),
            ("etc-b", 1),
            ("usr", 2),
            ("zz", 2),
        ] {
            assert_eq!(index.block_of(&path(sought)), Some(block), "{sought}");
        }
        assert_eq!(Index::default().block_of(&path("a")), None);
        assert_eq!(index.counts(), (6, 3));
        let blocks = (0..7).map(|ordinal| index.block_with(ordinal));
        let all = [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2), None];
        assert!(blocks.eq(all));
    }

    #[test]
    fn an_index_comes_back_and_no_other_passes_for_one() {
        let whole = index(&["", "etc", "usr"]);
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        assert_eq!(Index::decode(&mut &bytes[..], 3), Some(whole));
        for cut in 0..bytes.len() {
            assert_eq!(Index::decode(&mut &bytes[..cut], 3), None);
        }
        for (what, bad) in [
            ("twice the same path", &b"\x01a\x01\x00\x01a\x01\x00"[..]),
            ("out of order", b"\x01b\x01\x00\x01a\x01\x00"),
            ("no entries", b"\x01a\x00\x00\x01b\x01\x00"),
            ("more contents than entries", b"\x01a\x01\x02\x01b\x01\x00"),
            ("an absolute path", b"\x02/a\x01\x00\x01b\x01\x00"),
            (
                "more entries than bytes",
                b"\x01a\x81\x80\x04\x00\x01b\x01\x00",
            ),
        ] {
            assert_eq!(Index::decode(&mut &*bad, 2), None, "{what}");
        }
    }
}
