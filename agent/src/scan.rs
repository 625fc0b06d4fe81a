//! Reads an image's file systems, compares them with the manifest, and hands on what comes of it.
//!
//! ```text
//! manifest ─▶ parts, each a stretch of paths ─▶ threads: walk ─▶ merge ─▶ read ─▶ judge ─▶ the caller's sink
//! ```
//!
//! Every path belongs to one part, so no queue of files waits between threads, and memory is that of their buffers and of
//! the marks. What only the whole can tell comes last: long files, which all threads hash together, and
//! hard-link groups.
//!
//! The walk never follows a symbolic link, never leaves its file systems, never opens a FIFO or device, and has no
//! cap on count or size. What could not be read is a gap, never drift.

mod ahead;
pub mod filesystems;
mod glance;
mod inodes;
mod long;
pub mod look;
pub mod mounts;
mod order;
mod pipeline;
mod portrait;
mod read;
mod shared;
mod tally;
pub mod verified;
mod verity_roots;
mod walk;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use drift::TreePath;
use drift::compare::{CompareError, Finding};
use drift::coverage::Coverage;

use crate::baseline::Baseline;
use crate::pace::Pacer;

pub(crate) use inodes::Inodes;
pub use look::{Look, Reach};
pub use pipeline::scan;
pub(crate) use read::{Digests, Read, Reader, Wants};
pub use verified::Verified;
pub(crate) use walk::{HeldPlace, Visit, Walk, directory_entry, group, other_entry, unreadable};

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Read and hash every file.
    Full,
    /// Trust what was verified before where its metadata has not moved since.
    Quick,
    /// Read and hash every file as it is on the disk, around the page cache.
    Disk,
}

/// What is looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What comes first in the manifest.
    OfPaths,
    /// Parts of the manifest with configuration, executables and libraries, and long files among them at once: what runs
    /// at boot is what an intruder would have run.
    RunsFirst,
}

/// What to scan, against what, and how.
pub struct ScanRequest<'a> {
    /// The image's verified manifest.
    pub baseline: &'a Baseline,
    /// The root of the tree on this host.
    pub root: &'a Path,
    /// How thoroughly.
    pub pass: Pass,
    /// Threads that read and hash; at least one.
    pub threads: usize,
    /// How long an append-only file was when it was held, if it was.
    pub held_length: &'a (dyn Fn(&TreePath) -> Option<u64> + Sync),
    /// Set it to end the scan early.
    pub interrupt: &'a AtomicBool,
    /// What keeps it back for others' sake; none: nothing does.
    pub pace: Option<&'a Pacer>,
    /// What is looked at first.
    pub order: Order,
    /// Told now and then how far the scan is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Paths looked at.
    pub entries: u64,
    /// Bytes of content read.
    pub bytes: u64,
}

/// What a finished scan amounts to.
#[derive(Debug, Clone, Default)]
pub struct ScanSummary {
    /// What was verified and what was not, with the record of this scan at age 0.
    pub coverage: Coverage,
    /// Paths looked at.
    pub entries: u64,
    /// Bytes of content read.
    pub bytes: u64,
    /// Drifts found.
    pub drifts: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Files read or measured again by a quick pass because their metadata was not to be trusted.
    pub rehashed: u64,
    /// Files that the kernel's fs-verity measurement proved, so that they were not read.
    pub measured: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a scan did not finish: what it found until then is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The root of the tree cannot be opened.
    #[error("open the root of the tree {}", drift::escape(root.as_os_str().as_encoded_bytes()))]
    Root {
        /// Its path.
        root: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The manifest cannot be read, or the walk is out of order.
    #[error("compare with the manifest")]
    Compare(#[from] CompareError),
    /// Not one thread may be started.
    #[error("start a thread to scan with")]
    Threads(#[source] std::io::Error),
    /// It was told to end.
    #[error("the scan was interrupted")]
    Interrupted,
}

/// A sink for findings.
pub type Sink<'a> = dyn FnMut(Finding) + 'a;
