//! What goes between the threads of a scan, and what they share.

use std::sync::{Mutex, PoisonError};

use drift::TreePath;
use drift::compare::{CompareError, Met};
use drift::coverage::Gap;
use drift::entry::Entry;
use drift::observation::Found;
use driftmark_kernel::Stat;

use super::walk::Place;
use super::{Pass, Progress, Verified, Wants};

/// Files go to the readers in batches of this many: one at a time, the queue would cost more than a small file.
pub(super) const BATCH: usize = 32;
/// Batches waiting for a reader, or for the judge: the walk never runs further ahead than this.
pub(super) const QUEUED_BATCHES: usize = 8;

/// A file to be read, with the entry that it met.
pub(super) struct Job {
    pub(super) path: TreePath,
    pub(super) stat: Stat,
    pub(super) place: Place,
    pub(super) met: Option<Met>,
    pub(super) wants: Wants,
}

/// What comes of one path, to be judged.
#[allow(
    clippy::large_enum_variant,
    reason = "a few batches at a time; a box each would be an allocation per path"
)]
pub(super) enum Outcome {
    Found {
        met: Option<Met>,
        found: Found,
        stat: Stat,
        read_at: i64,
    },
    /// A quick pass trusts what was verified before.
    Trusted,
    Missing(Entry),
    /// A gap covers so many entries, among them these names of link groups.
    Gap {
        gap: Gap,
        entries: u64,
        linked: Vec<Entry>,
    },
    /// A file that was not read: what is known of it without opening it, and why not, unless that is enough.
    Unread {
        expected: Option<Entry>,
        seen: Entry,
        gap: Option<Gap>,
    },
    Failed(CompareError),
    Interrupted,
}

/// What the threads share of a request.
pub(super) struct Parts<'a, 'v> {
    pub(super) pass: Pass,
    pub(super) threads: usize,
    pub(super) verified: &'a Mutex<&'v mut Verified>,
    pub(super) held_length: &'a (dyn Fn(&TreePath) -> Option<u64> + Sync),
    pub(super) interrupt: &'a std::sync::atomic::AtomicBool,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    pub(super) told: Mutex<Progress>,
}

impl Parts<'_, '_> {
    /// How far the judge is.
    pub(super) fn tell(&self, entries: u64, bytes: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entries = entries;
        told.bytes = told.bytes.max(bytes);
        (self.progress)(*told);
    }

    /// A reader got further in a long file, of which the judge knows nothing yet: that is progress too.
    pub(super) fn at_work(&self, bytes: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.bytes += bytes;
        (self.progress)(*told);
    }
}
