//! Bytes that are written once, front to back, in pieces: nothing is moved while they grow, and nothing is copied to join them.

use crate::Blake3;
use crate::manifest::layout::BLOCK_BYTES;

/// A section of the body as it is written.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Vec<u8>>,
    length: u64,
}

impl Pieces {
    /// Appends bytes, which may lie in two pieces.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = |piece: &Vec<u8>| BLOCK_BYTES.saturating_sub(piece.len());
            if self.pieces.last().is_none_or(|last| room(last) == 0) {
                self.pieces.push(Vec::with_capacity(BLOCK_BYTES));
            }
            let last = self.pieces.last_mut().expect("it was pushed");
            let (now, later) = bytes.split_at(room(last).min(bytes.len()));
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Appends a piece as it is.
    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.length += piece.len() as u64;
        self.pieces.push(piece);
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn into_vec(self) -> Vec<Vec<u8>> {
        self.pieces
    }
}

/// The digests of the blocks of a body that comes in pieces of any length.
pub(super) struct Table {
    block: blake3::Hasher,
    filled: usize,
    digests: Vec<u8>,
}

impl Table {
    pub(super) fn new() -> Self {
        Table {
            block: blake3::Hasher::new(),
            filled: 0,
            digests: Vec::new(),
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at((BLOCK_BYTES - self.filled).min(bytes.len()));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_BYTES {
                self.close();
            }
            bytes = later;
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.close();
        }
        self.digests
    }

    fn close(&mut self) {
        let digest = Blake3::from(self.block.finalize());
        self.digests.extend_from_slice(digest.as_bytes());
        self.block.reset();
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_make_the_digests_of_the_blocks_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5)
            .map(|nth| (nth % 251) as u8)
            .collect();
        for length in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, bytes.len()] {
            let whole = &bytes[..length];
            let mut pieces = Pieces::default();
            whole.chunks(40_003).for_each(|chunk| pieces.extend(chunk));
            assert_eq!(pieces.length(), length as u64);
            let mut table = Table::new();
            let pieces = pieces.into_vec();
            pieces.iter().for_each(|piece| table.update(piece));
            assert_eq!(pieces.concat(), whole);
            let expected = whole
                .chunks(BLOCK_BYTES)
                .map(|block| *Blake3::of(block).as_bytes());
            assert_eq!(table.finish(), expected.collect::<Vec<_>>().concat());
        }
    }
}
