//! What has and has not been verified, and how long ago.

use serde::{Deserialize, Serialize};

use crate::TreePath;

/// What an agent has verified of its instance, and what it has not: nothing is skipped in silence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Entries of the manifest that the last full scan compared.
    pub verified_entries: u64,
    /// Entries that the manifest holds.
    pub expected_entries: u64,
    /// The last finished full scan, which reads what processes see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<ScanRecord>,
    /// The last finished quick scan, which trusts metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick: Option<ScanRecord>,
    /// The last finished disk sweep, which reads around the page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ScanRecord>,
    /// The last finished sweep of the processes, which finds what no event tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessSweep>,
    /// What could not be verified, at most [`Coverage::MAX_GAPS`], in path order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// How many gaps there are in all.
    #[serde(default)]
    pub gap_count: u64,
    /// Attributes that this build does not hold, by their words: never compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_held: Vec<String>,
    /// Limits that concern the whole instance, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What the verdict rests on besides the agent's own reading, one sentence each. Unlike a limit, none of it leaves
    /// anything unverified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The image's file systems that are mounted straight from a dm-verity device, in path order, at most
    /// [`Coverage::MAX_VERITY_ROOTS`]; `None` before the first pass, and where that could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity_roots: Option<Vec<VerityRoot>>,
}

/// One finished sweep of the processes: what they run, have mapped, and see mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessSweep {
    /// Seconds since it began, by `CLOCK_BOOTTIME`.
    pub age_seconds: u64,
    /// How long it took, in milliseconds.
    pub took_milliseconds: u64,
    /// Processes that were looked at; the kernel's own threads are none.
    pub processes: u64,
    /// Of these, those whose root is not the image's: containers, and what has changed its root.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub containers: u64,
    /// Programs that the watch saw containers start, since it began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub container_starts: u64,
    /// Processes, or mount namespaces, that could not be looked at.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread: u64,
    /// Mount namespaces beside the image's own that were looked at.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub namespaces: u64,
    /// Files of the image that processes have mapped for writing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mapped: u64,
    /// The first of these, in path order: at most [`ProcessSweep::MAX_MAPPED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapped_paths: Vec<TreePath>,
}

impl ProcessSweep {
    /// A report names so many files that are mapped for writing.
    pub const MAX_MAPPED: usize = 8;

    /// What it could not see, a sentence each.
    pub fn limits(&self) -> impl Iterator<Item = String> + use<> {
        let unread = (self.unread > 0).then(|| {
            format!(
                "the last sweep of the processes could not look at {} of them",
                self.unread
            )
        });
        let first = self.mapped_paths.first().map_or(String::new(), |path| {
            let others = if self.mapped > 1 { ", …" } else { "" };
            format!(" ({path}{others})")
        });
        let mapped = (self.mapped > 0).then(|| {
            format!(
                "processes have {} files of the image mapped for writing{first}: no event tells what they store there",
                self.mapped
            )
        });
        unread.into_iter().chain(mapped)
    }
}

/// A file system that is mounted straight from a dm-verity device, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerityRoot {
    /// Where it is mounted.
    pub mount_point: TreePath,
    /// The root of the device's hash tree, hexadecimal: at most [`VerityRoot::MAX_HASH_DIGITS`].
    pub root_hash: String,
    /// The hash algorithm, by the kernel's name: `sha256`.
    pub algorithm: String,
    /// Whether the kernel met a block on it that does not fit the root hash.
    #[serde(default)]
    pub corrupted: bool,
}

impl VerityRoot {
    /// No hash of Linux has more than 64 bytes.
    pub const MAX_HASH_DIGITS: usize = 128;
}

impl Coverage {
    /// A report names at most this many gaps; the count says how many there are.
    pub const MAX_GAPS: usize = 100;
    /// More limits than an agent knows of.
    pub const MAX_LIMITS: usize = 32;
    /// More notes than an agent knows of.
    pub const MAX_NOTES: usize = 32;
    /// As many file systems as an image may have, with `/` and `/usr`.
    pub const MAX_VERITY_ROOTS: usize = 258;

    /// Says what it rests on, by what its passes counted.
    #[must_use]
    pub fn noted(mut self) -> Self {
        self.notes.clear();
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.measured > 0) {
            self.notes.push(format!(
                "{} files of {} bytes were measured by fs-verity and not read: what is written beneath them, straight to \
                 the disk, is left to the kernel, which checks whatever is read of them, and to the disk sweep",
                seen.measured, seen.measured_bytes
            ));
        }
        self
    }
}

/// One finished pass over the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScanRecord {
    /// Seconds since it ended, by `CLOCK_BOOTTIME`: ages survive a clock that is set.
    pub age_seconds: u64,
    /// Seconds since it began: nothing that it verified was verified longer ago. What it could not verify is a gap.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oldest_seconds: u64,
    /// What [`ScanRecord::oldest_seconds`] does not exceed while passes end in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_seconds: Option<u64>,
    /// How long it took, in milliseconds.
    pub took_milliseconds: u64,
    /// Paths looked at.
    pub entries: u64,
    /// Bytes of content read.
    pub bytes: u64,
    /// Files read or measured again because their metadata was not to be trusted (quick scans).
    #[serde(default)]
    pub rehashed: u64,
    /// Files whose content the kernel's fs-verity measurement proved, so that they were not read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub measured: u64,
    /// How many bytes these have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub measured_bytes: u64,
    /// Files that could only be read through the page cache (disk sweeps): their file systems have no other reads.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: u64,
}

impl ScanRecord {
    /// What a disk sweep could not see, as a sentence; none if it saw everything.
    pub fn cached_limit(&self) -> Option<String> {
        (self.cached > 0).then(|| {
            format!(
                "the disk sweep could read {} files through the page cache only",
                self.cached
            )
        })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Something that could not be verified. Never drift: a failing disk must not kill a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Where.
    pub path: TreePath,
    /// Why.
    pub reason: GapReason,
    /// The system's own words, escaped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Why something could not be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// It could not be read.
    Unreadable,
    /// It kept changing while it was read.
    Changing,
    /// It lies deeper than [`TreePath::MAX_BYTES`].
    TooDeep,
    /// A file system of the image is not mounted.
    FilesystemMissing,
    /// Something is mounted over it, and the agent may not look beneath.
    UnderMount,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

impl GapReason {
    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            GapReason::Unreadable => "could not be read",
            GapReason::Changing => "kept changing while it was read",
            GapReason::TooDeep => "lies too deep to be named",
            GapReason::FilesystemMissing => "is a file system of the image that is not mounted",
            GapReason::UnderMount => "lies under a mount that the agent may not look beneath",
            GapReason::Unknown => "could not be verified",
        }
    }
}
