//! What was read of files with several names, so that each is read once and not once for each name.
//!
//! It is kept while one scan goes on. A file is what it was if nothing about its inode has moved since: as sure as that it
//! is what was read of it when the scan ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use drift::{Blake3, Sha256};
use driftmark_kernel::Stat;

/// Inodes that are remembered: what has more names than one is a few thousand files of the largest images.
const MAX_INODES: usize = 16 * 1024;

/// Digests of what was read.
#[derive(Debug, Default)]
pub(crate) struct Inodes(Mutex<HashMap<Inode, Known>>);

/// Device and number.
type Inode = ((u32, u32), u64);

#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
    digests: (Blake3, Option<Sha256>),
}

impl Inodes {
    /// The digests of a file that was read under another name, if it has not changed since.
    pub(crate) fn digests(&self, stat: &Stat) -> Option<(Blake3, Option<Sha256>)> {
        if stat.nlink < 2 {
            return None;
        }
        let inodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inodes.get(&(stat.dev, stat.ino))?;
        let same =
            (known.size, known.modified, known.changed) == (stat.size, stat.mtime, stat.ctime);
        same.then_some(known.digests)
    }

    /// Keeps what was read of a file, if it has another name.
    pub(crate) fn keep(&self, stat: &Stat, digests: (Blake3, Option<Sha256>)) {
        if stat.nlink < 2 {
            return;
        }
        let mut inodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inodes.len() < MAX_INODES {
            let known = Known {
                size: stat.size,
                modified: stat.mtime,
                changed: stat.ctime,
                digests,
            };
            inodes.insert((stat.dev, stat.ino), known);
        }
    }
}
