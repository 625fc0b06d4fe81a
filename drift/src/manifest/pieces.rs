//! Bytes that are written once, front to back, in pieces: nothing is moved while they grow, and nothing is copied to join them.
//! What is full may be set aside until all of it is known.

use std::borrow::Cow;
use std::io;

use crate::Blake3;
use crate::manifest::layout::BLOCK_BYTES;

/// Where pieces of a manifest that is being made lie until all of it is known: it takes some, and gives them back.
pub trait Aside {
    /// Takes bytes and says where they are; none if it has no room, and then they stay in memory.
    fn put(&self, bytes: &[u8]) -> Option<u64>;

    /// Gives them back.
    ///
    /// # Errors
    /// Whatever reading them gives.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Everything stays in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct InMemory;

impl Aside for InMemory {
    fn put(&self, _: &[u8]) -> Option<u64> {
        None
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Bytes that are complete.
#[derive(Debug)]
pub(super) enum Piece {
    Here(Vec<u8>),
    /// They were set aside, and are what they were.
    Aside {
        offset: u64,
        length: usize,
        digest: Blake3,
    },
}

impl Default for Piece {
    fn default() -> Self {
        Piece::Here(Vec::new())
    }
}

impl Piece {
    /// Sets bytes aside, if there is room.
    pub(super) fn put(bytes: Vec<u8>, aside: &dyn Aside) -> Self {
        match aside.put(&bytes) {
            Some(offset) => Piece::Aside {
                offset,
                length: bytes.len(),
                digest: Blake3::of(&bytes),
            },
            None => Piece::Here(bytes),
        }
    }

    pub(super) fn length(&self) -> usize {
        match self {
            Piece::Here(bytes) => bytes.len(),
            Piece::Aside { length, .. } => *length,
        }
    }

    /// The bytes as they were put.
    ///
    /// # Errors
    /// They cannot be read, or are others now (`InvalidData`).
    pub(super) fn bytes(&self, aside: &dyn Aside) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Piece::Here(bytes) => Ok(Cow::Borrowed(bytes)),
            Piece::Aside {
                offset,
                length,
                digest,
            } => {
                let mut bytes = vec![0; *length];
                aside.read_at(*offset, &mut bytes)?;
                if Blake3::of(&bytes) == *digest {
                    Ok(Cow::Owned(bytes))
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                }
            }
        }
    }
}

/// A section of the body as it is written.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    full: Vec<Piece>,
    last: Vec<u8>,
    length: u64,
}

impl Pieces {
    /// Appends bytes, which may lie in two pieces.
    pub(super) fn extend(&mut self, mut bytes: &[u8], aside: &dyn Aside) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.last.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if self.last.is_empty() {
                // Twice as much would be half empty for as long as it waits.
                self.last.reserve_exact(BLOCK_BYTES);
            }
            self.last.extend_from_slice(now);
            bytes = later;
            if self.last.len() == BLOCK_BYTES {
                let full = std::mem::take(&mut self.last);
                self.full.push(Piece::put(full, aside));
            }
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// All of them, in their order.
    pub(super) fn into_vec(mut self) -> Vec<Piece> {
        if !self.last.is_empty() {
            self.full.push(Piece::Here(self.last));
        }
        self.full
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
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::manifest::Source;

    #[test]
    fn pieces_of_any_length_make_the_digests_of_the_blocks_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5)
            .map(|nth| (nth % 251) as u8)
            .collect();
        for length in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, bytes.len()] {
            let whole = &bytes[..length];
            for aside in [&InMemory as &dyn Aside, &Shelf::default()] {
                let mut pieces = Pieces::default();
                let chunks = whole.chunks(40_003);
                chunks.for_each(|chunk| pieces.extend(chunk, aside));
                assert_eq!(pieces.length(), length as u64);
                let mut table = Table::new();
                let pieces = pieces.into_vec();
                let pieces: Vec<_> = pieces
                    .iter()
                    .map(|piece| piece.bytes(aside).unwrap())
                    .collect();
                pieces.iter().for_each(|piece| table.update(piece));
                assert_eq!(pieces.concat(), whole);
                let expected = whole
                    .chunks(BLOCK_BYTES)
                    .map(|block| *Blake3::of(block).as_bytes());
                assert_eq!(table.finish(), expected.collect::<Vec<_>>().concat());
            }
        }
    }

    #[test]
    fn what_was_set_aside_and_altered_is_refused() {
        let aside = Shelf::default();
        let piece = Piece::put(b"content".to_vec(), &aside);
        assert_eq!(&*piece.bytes(&aside).unwrap(), b"content");
        aside.0.borrow_mut()[3] ^= 1;
        let refused = piece.bytes(&aside).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        aside.0.borrow_mut().clear();
        assert!(piece.bytes(&aside).is_err());
    }

    /// It has room for every other piece.
    #[derive(Default)]
    struct Shelf(RefCell<Vec<u8>>, Cell<bool>);

    impl Aside for Shelf {
        fn put(&self, bytes: &[u8]) -> Option<u64> {
            self.1.set(!self.1.get());
            let mut shelf = self.0.borrow_mut();
            let offset = shelf.len() as u64;
            self.1.get().then(|| {
                shelf.extend_from_slice(bytes);
                offset
            })
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            Source::read_at(&*self.0.borrow(), offset, buffer)
        }
    }
}
