//! Files on their way from the disk, first in, first out: a disk is fast only for who asks for many things at a time.
//!
//! Each was opened, nothing of it was in the page cache, and the kernel was told to read it. Until it has come, the thread
//! goes on to the files after it.

use std::collections::VecDeque;
use std::fs::File;

use drift::TreePath;
use drift::compare::Met;
use driftmark_kernel::Stat;

use super::Wants;
use super::walk::HeldPlace;
use crate::pace::{Pacer, Urgency};

/// Files of all threads together: each holds itself and perhaps a directory open, of which a process may often have no
/// more than 1,024.
const MAX_FILES: usize = 256;
/// Of one thread: more would not make a disk any faster.
const MAX_FILES_EACH: usize = 64;
/// Their bytes, all threads together: they are what a scan adds to the page cache, for a moment.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Of a scan that makes way: a disk that has more to do for it has somebody else wait longer. They are on their way while
/// it rests, too.
const MAX_FILES_MAKING_WAY: usize = 8;
const MAX_BYTES_MAKING_WAY: u64 = 512 * 1024;

/// A file on its way.
pub(super) struct Coming {
    pub(super) path: TreePath,
    pub(super) place: HeldPlace,
    pub(super) met: Option<Met>,
    pub(super) file: File,
    pub(super) stat: Stat,
    pub(super) wants: Wants,
    /// When it was opened, nanoseconds since 1970.
    pub(super) read_at: i64,
}

/// Those of one thread.
pub(super) struct Ahead {
    files: VecDeque<Coming>,
    bytes: u64,
    max_files: usize,
    max_bytes: u64,
}

impl Ahead {
    /// One thread's share of what a scan of this pace may ask for.
    pub(super) fn of(threads: usize, pace: Option<&Pacer>) -> Self {
        let (max_files, max_bytes) = match pace.map(Pacer::urgency) {
            Some(Urgency::Routine) => (MAX_FILES_MAKING_WAY, MAX_BYTES_MAKING_WAY),
            Some(Urgency::Awaited) | None => (MAX_FILES, MAX_BYTES),
        };
        Ahead {
            files: VecDeque::new(),
            bytes: 0,
            max_files: (max_files / threads).min(MAX_FILES_EACH),
            max_bytes: max_bytes / threads as u64,
        }
    }

    pub(super) fn push(&mut self, coming: Coming) {
        self.bytes += coming.stat.size;
        self.files.push_back(coming);
    }

    /// The one that was asked for first.
    pub(super) fn pop(&mut self) -> Option<Coming> {
        let first = self.files.pop_front()?;
        self.bytes -= first.stat.size;
        Some(first)
    }

    /// Whether one has to be read before another is asked for.
    pub(super) fn is_full(&self) -> bool {
        self.files.len() > self.max_files || self.bytes > self.max_bytes
    }
}
