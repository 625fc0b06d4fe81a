//! What was verified before, so that a quick pass can trust what has not moved since.
//!
//! It lies only in the direction of more work: a mark is kept for an entry that was found to be as the manifest says,
//! and it is believed only on the same boot, by a clock that was not set back, for an inode whose `ctime` is older by
//! more than [`SETTLED_NANOSECONDS`] than the moment it was read.

use std::collections::HashMap;

use drift::Blake3;
use driftmark_kernel::Stat;
use serde::{Deserialize, Serialize};

/// A change within the kernel's clock tick of the reading may have the same `ctime` as the reading saw.
const SETTLED_NANOSECONDS: i64 = 20_000_000;

/// Marks of entries that were found to be as the manifest says, by their ordinal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verified {
    /// The manifest that they were verified against.
    pub manifest: Option<Blake3>,
    /// The boot on which they were.
    pub boot_id: String,
    /// The latest moment that a mark was made, nanoseconds since 1970.
    latest: i64,
    marks: HashMap<u64, Mark>,
}

/// What an entry looked like when it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    device: (u32, u32),
    inode: u64,
    size: u64,
    changed: i64,
}

impl Verified {
    /// Forgets everything that was not verified against this manifest, on this boot, by a clock that went on since.
    pub fn prepare(&mut self, manifest: Blake3, boot_id: &str, now: i64) {
        if self.manifest != Some(manifest) || self.boot_id != boot_id || now < self.latest {
            *self = Verified {
                manifest: Some(manifest),
                boot_id: boot_id.to_owned(),
                latest: now,
                ..Self::default()
            };
        }
    }

    /// Whether the entry looks exactly as it did when it was verified.
    pub fn trusts(&self, ordinal: u64, stat: &Stat) -> bool {
        self.marks.get(&ordinal) == Some(&Mark::of(stat))
    }

    /// Whether anything is marked.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Notes that an entry was found to be as the manifest says, read from the moment `read_at` on.
    pub fn mark(&mut self, ordinal: u64, stat: &Stat, read_at: i64) {
        let mark = Mark::of(stat);
        if read_at.saturating_sub(mark.changed) > SETTLED_NANOSECONDS {
            self.latest = self.latest.max(read_at);
            self.marks.insert(ordinal, mark);
        } else {
            self.marks.remove(&ordinal);
        }
    }

    /// Notes that an entry was not as the manifest says.
    pub fn forget(&mut self, ordinal: u64) {
        self.marks.remove(&ordinal);
    }
}

impl Mark {
    fn of(stat: &Stat) -> Self {
        let changed = stat
            .ctime
            .0
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(stat.ctime.1));
        Mark {
            device: stat.dev,
            inode: stat.ino,
            size: stat.size,
            changed,
        }
    }
}
