//! What the threads of a bake share: what is still to be read, and what was found.
//!
//! Nobody waits while there is anything to do, and what takes long does not come last: SHA-256 is no tree, so a long file is
//! one thread's from its first byte to its last. Long files are left for the end, the longest first, where the shortest
//! of them even out what is between the threads; a huge one is begun as soon as it is met.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use drift::TreePath;
use drift::compare::LinkGroups;
use drift::coverage::Gap;
use drift::observation::Group;

use super::hand::Hand;
use super::tree::Met;
use super::{Kept, Reading, Tree};
use crate::bake::BakeError;
use crate::scan::filesystems::Filesystems;
use crate::scan::{HeldPlace, Inodes, Progress};

/// Batches that wait, for each thread. Each file may hold a directory open, of which a process may often have no more
/// than 1,024.
const QUEUED_EACH: usize = 3;
/// Long files that wait: each holds a directory open.
const MAX_LONG: usize = 256;
/// From this length on a file is begun at once: it may take as long as all the rest.
const HUGE_BYTES: u64 = 256 * 1024 * 1024;

/// Paths that follow each other.
#[derive(Default)]
pub(super) struct Batch {
    /// Where the first of them is in the order of all paths.
    pub(super) start: u64,
    pub(super) met: VecDeque<Met>,
}

impl Batch {
    /// One path at a time, the queue would cost more than a small file.
    pub(super) const FULL: usize = 32;
}

/// Something to do.
pub(super) enum Job {
    Batch(Batch),
    Long(LongFile),
}

/// A file that is left for later, by its length.
pub(super) struct LongFile {
    pub(super) size: u64,
    pub(super) at: u64,
    pub(super) path: TreePath,
    pub(super) place: HeldPlace,
}

/// What the threads of a bake share.
pub(super) struct Pool<'a> {
    pub(super) filesystems: &'a Filesystems,
    pub(super) reading: Reading<'a>,
    /// What was read of files with several names.
    pub(super) inodes: Inodes,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// A thread has ended, and so the bake is over or has failed.
    over: AtomicBool,
    queue: Mutex<Queue>,
    more: Condvar,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    long: BinaryHeap<LongFile>,
    walked: bool,
}

#[derive(Default)]
struct Found {
    stretches: Vec<Kept>,
    groups: LinkGroups<()>,
    gaps: Vec<Gap>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(filesystems: &'a Filesystems, reading: Reading<'a>) -> Self {
        Pool {
            filesystems,
            reading,
            inodes: Inodes::default(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            over: AtomicBool::new(false),
            queue: Mutex::default(),
            more: Condvar::new(),
            found: Mutex::default(),
        }
    }

    /// Gives a thread its hand. However it ends, nobody is left to wait for a walk that is over.
    pub(super) fn work_at(
        &self,
        work: impl FnOnce(&mut Hand<'_>) -> Result<(), BakeError>,
    ) -> Result<(), BakeError> {
        let _over = Over(self);
        let told = AtomicU64::new(0);
        let at_work = |more| {
            told.fetch_add(more, Ordering::Relaxed);
            self.count(0, more);
        };
        let mut hand = Hand::new(self, &at_work, &told);
        work(&mut hand)?;
        hand.close();
        Ok(())
    }

    /// Takes a batch for the others, whose rest begins a new one; not while they have enough to do.
    pub(super) fn offer(&self, batch: &mut Batch) -> bool {
        let readers = self.reading.threads.saturating_sub(1);
        let mut queue = locked(&self.queue);
        if queue.batches.len() >= QUEUED_EACH * readers {
            return false;
        }
        let next = Batch {
            start: batch.start + batch.met.len() as u64,
            met: VecDeque::with_capacity(Batch::FULL),
        };
        queue.batches.push_back(std::mem::replace(batch, next));
        self.more.notify_one();
        true
    }

    /// Leaves a long file for later; gives it back if too many are left already.
    pub(super) fn leave(&self, long: LongFile) -> Option<LongFile> {
        let mut queue = locked(&self.queue);
        if queue.long.len() == MAX_LONG {
            return Some(long);
        }
        queue.long.push(long);
        self.more.notify_one();
        None
    }

    /// What to do next; none if there is nothing left. Waits while the walk may still bring something.
    pub(super) fn next(&self) -> Option<Job> {
        let mut queue = locked(&self.queue);
        loop {
            let is_huge = |long: &LongFile| long.size >= HUGE_BYTES;
            let is_first = queue.batches.is_empty() || queue.long.peek().is_some_and(is_huge);
            if is_first && let Some(long) = queue.long.pop() {
                return Some(Job::Long(long));
            }
            if let Some(batch) = queue.batches.pop_front() {
                return Some(Job::Batch(batch));
            }
            if queue.walked {
                return None;
            }
            let waited = self.more.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// # Errors
    /// There is nothing more to do for anyone, or it was told to end.
    pub(super) fn go_on(&self) -> Result<(), BakeError> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if is_set(self.reading.interrupt) || is_set(&self.over) {
            Err(BakeError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// The walk is over.
    pub(super) fn walked(&self) {
        locked(&self.queue).walked = true;
        self.more.notify_all();
    }

    pub(super) fn gap(&self, gap: Gap) {
        locked(&self.found).gaps.push(gap);
    }

    pub(super) fn see(&self, group: Group, path: &TreePath) {
        locked(&self.found).groups.see(group, path);
    }

    pub(super) fn keep(&self, stretch: Kept) {
        locked(&self.found).stretches.push(stretch);
    }

    /// Tells now and then how far it is.
    pub(super) fn count(&self, entries: u64, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let seen = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        if entries == 0 || seen.is_multiple_of(512) {
            (self.reading.progress)(Progress {
                entries: seen,
                bytes,
            });
        }
    }

    /// Everything, in path order.
    pub(super) fn finish(self) -> (Tree, Vec<Gap>) {
        let found = self.found.into_inner();
        let Found {
            mut stretches,
            groups,
            mut gaps,
        } = found.unwrap_or_else(PoisonError::into_inner);
        stretches.sort_by_key(|stretch| stretch.start);
        gaps.sort_by(|a, b| a.path.cmp(&b.path));
        (Tree { stretches, groups }, gaps)
    }
}

/// A thread that ends by a panic or an error ends the walk for all.
struct Over<'p, 'a>(&'p Pool<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.walked();
    }
}

impl Ord for LongFile {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.size, other.at).cmp(&(other.size, self.at))
    }
}

impl PartialOrd for LongFile {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for LongFile {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for LongFile {}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
