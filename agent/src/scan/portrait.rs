//! What a part of the tree looks like, in one digest: of every name and its metadata, in path order.
//!
//! A part that looks as it did when each of its entries was verified is still as it was, and a quick pass that sees so
//! asks neither the manifest nor the marks of its entries ([`super::glance`]). A portrait says how a part looked, the marks
//! say that all of it was verified: both are needed.

use std::ops::Range;

use drift::{Blake3, TreePath};
use driftmark_kernel::Stat;

use super::walk::{At, group};

/// How a part looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portrait {
    /// The places of its entries: which part it is.
    pub(super) ordinals: Range<u64>,
    /// None where something else was there than its entries, or could not be looked at.
    pub(super) looks: Option<Blake3>,
    /// Whether anything in it has more names than one, of which some may be in other parts, or may have: not all was seen.
    pub(super) is_linked: bool,
}

impl Portrait {
    /// How many entries it shows.
    pub(super) fn entries(&self) -> u64 {
        self.ordinals.end - self.ordinals.start
    }

    /// How it is remembered from one check to the next: see [`super::verified`].
    pub(super) const BYTES: usize = 8 + 8 + 1 + 32;

    /// Appends it.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let bits = u8::from(self.looks.is_some()) | (u8::from(self.is_linked) << 1);
        to.extend(self.ordinals.start.to_le_bytes());
        to.extend(self.ordinals.end.to_le_bytes());
        to.push(bits);
        to.extend(self.looks.map_or([0; 32], |looks| *looks.as_bytes()));
    }

    /// The same again.
    pub(super) fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut looks = [0; 32];
        looks.copy_from_slice(&bytes[17..]);
        Portrait {
            ordinals: number(0)..number(8),
            looks: (bytes[16] & 1 != 0).then(|| Blake3::from_bytes(looks)),
            is_linked: bytes[16] & 2 != 0,
        }
    }
}

/// A portrait that is being drawn.
#[derive(Default)]
pub(super) struct Sketch {
    hasher: blake3::Hasher,
    /// What is not hashed yet: much at once is hashed faster.
    lines: Vec<u8>,
    /// That the last name was in.
    directory: Vec<u8>,
    names: u64,
    is_linked: bool,
    is_spoiled: bool,
}

/// Of [`Sketch::lines`].
const BUFFER_BYTES: usize = 16 * 1024;

impl Sketch {
    /// Begins anew.
    pub(super) fn restart(&mut self) {
        self.hasher.reset();
        self.lines.clear();
        self.directory.clear();
        (self.names, self.is_linked, self.is_spoiled) = (0, false, false);
    }

    /// A directory.
    pub(super) fn directory(&mut self, path: &TreePath, stat: &Stat) {
        self.line(b'd', path.as_bytes(), stat);
    }

    /// Anything else.
    pub(super) fn name(&mut self, at: &At<'_>, stat: &Stat) {
        // No rule need hold anything of the directory itself, and its names are others once it has another.
        let directory = at.directory().as_bytes();
        if self.directory != directory {
            self.directory.clear();
            self.directory.extend_from_slice(directory);
            self.word(b'i', directory);
        }
        self.line(b'n', at.name().to_bytes(), stat);
        self.is_linked |= group(stat).is_some();
    }

    /// Something else is there than what should be.
    pub(super) fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// Something could not be looked at.
    pub(super) fn miss(&mut self) {
        self.is_spoiled = true;
        self.is_linked = true;
    }

    /// The portrait of a part with these entries.
    pub(super) fn finish(&mut self, ordinals: &Range<u64>) -> Portrait {
        self.hash();
        let is_whole = !self.is_spoiled && self.names == ordinals.end - ordinals.start;
        Portrait {
            ordinals: ordinals.clone(),
            looks: is_whole.then(|| self.hasher.finalize().into()),
            is_linked: self.is_linked,
        }
    }

    fn word(&mut self, what: u8, word: &[u8]) {
        self.lines.push(what);
        self.lines
            .extend_from_slice(&(word.len() as u32).to_le_bytes());
        self.lines.extend_from_slice(word);
    }

    fn line(&mut self, what: u8, name: &[u8], stat: &Stat) {
        self.names += 1;
        self.word(what, name);
        let (seconds, nanoseconds) = stat.ctime;
        let device = (u64::from(stat.dev.0) << 32) | u64::from(stat.dev.1);
        let numbers = [device, stat.ino, stat.size, seconds as u64];
        self.lines
            .extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
        self.lines.extend_from_slice(&nanoseconds.to_le_bytes());
        if self.lines.len() >= BUFFER_BYTES {
            self.hash();
        }
    }

    fn hash(&mut self) {
        self.hasher.update(&self.lines);
        self.lines.clear();
    }
}
