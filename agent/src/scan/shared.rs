//! What the threads of a scan share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use drift::TreePath;
use drift::compare::{Expectation, LinkGroups, Settled};
use drift::coverage::{Gap, GapReason};
use drift::entry::{Entry, Links};
use drift::manifest::Manifest;
use drift::observation::{Found, Group};
use driftmark_kernel::Stat;

use super::filesystems::Filesystems;
use super::inodes::Inodes;
use super::long::Long;
use super::portrait::Portrait;
use super::tally::Count;
use super::verified::{Marks, Share};
use super::{Order, Pass, Progress, ScanError};
use crate::baseline::ManifestFile;
use crate::pace::Pacer;

/// The parts that no thread has taken yet.
pub(super) type PartQueue<'v> = Mutex<std::vec::IntoIter<Share<'v>>>;

/// So many threads for each that there is from the start, where a scan waits for its disk: they keep it busy with what can
/// only be asked for one by one, names and inodes above all, and take turns on the cores.
const HANDS_EACH: usize = 8;
/// More would not make a disk any faster, and each has buffers of its own.
const MAX_HANDS: usize = 16;
/// Long files that wait for the end of the walk: each holds a file and a directory open.
const MAX_LONG: usize = 64;

/// What the threads of a scan share.
pub(super) struct Shared<'a> {
    pub(super) manifest: &'a Manifest<ManifestFile>,
    pub(super) filesystems: &'a Filesystems,
    pub(super) expectation: Expectation<'a>,
    pub(super) pass: Pass,
    pub(super) order: Order,
    /// Threads that there are from the start.
    pub(super) threads: usize,
    /// Threads that there may be once it turns out that much is on the disk alone.
    pub(super) hands: usize,
    pub(super) held_length: &'a (dyn Fn(&TreePath) -> Option<u64> + Sync),
    pub(super) names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
    pub(super) interrupt: &'a AtomicBool,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    pub(super) pace: Option<&'a Pacer>,
    /// A thread has ended the scan.
    pub(super) over: AtomicBool,
    /// What was read of files with several names.
    pub(super) inodes: Inodes,
    state: State,
}

#[derive(Default)]
struct State {
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of files that are not done yet.
    at_work: AtomicU64,
    /// Bytes of long files that nobody has read yet.
    long_left: AtomicU64,
    /// The latest moment that anything was read which is now marked.
    read_until: AtomicI64,
    groups: Mutex<LinkGroups<Waits>>,
    later: Mutex<Later>,
    told: Mutex<HashSet<(TreePath, GapReason)>>,
    long: Mutex<LongFiles>,
    long_or_over: Condvar,
    /// It is known that much is on the disk alone.
    is_cold: AtomicBool,
}

#[derive(Default)]
struct LongFiles {
    files: Vec<Arc<Long>>,
    /// Threads that walk, or are about to.
    walking: usize,
}

/// What is kept when all threads are done.
#[derive(Default)]
pub(super) struct Later {
    /// How the parts looked.
    pub(super) portraits: Vec<Portrait>,
    /// Entries that could not be read after their part was left.
    pub(super) forgotten: Vec<u64>,
    /// Of files that were judged after their part was left.
    pub(super) judged: Vec<Judged>,
    /// Names of complete link groups that have to be judged.
    pub(super) settled: Vec<Settled<Waits>>,
}

/// What is known of a name until all names of its link group are.
pub(super) enum Waits {
    /// It is the entry of this place, and marked; its links may still be others.
    AsExpected(u64),
    Whole(Box<Whole>),
}

/// All of it. Its links are known last.
pub(super) struct Whole {
    pub(super) expected: Option<Entry>,
    pub(super) found: Found,
    pub(super) judged: Option<Judged>,
}

/// A file that was read, to be remembered.
#[derive(Clone, Copy)]
pub(super) struct Judged {
    pub(super) ordinal: u64,
    pub(super) stat: Stat,
    pub(super) read_at: i64,
    /// Something was told of it, a drift or a value that is held: the next pass has to tell it again.
    pub(super) told: bool,
}

impl Judged {
    pub(super) fn note(&self, marks: &mut Marks<'_>) {
        if self.told {
            marks.forget(self.ordinal);
        } else {
            marks.mark(self.ordinal, &self.stat, self.read_at);
        }
    }
}

/// What a scan is led by, but for what it keeps.
pub(super) struct Led<'a> {
    pub(super) manifest: &'a Manifest<ManifestFile>,
    pub(super) filesystems: &'a Filesystems,
    pub(super) names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
}

impl<'a> Shared<'a> {
    pub(super) fn new(led: &Led<'a>, request: &'a super::ScanRequest<'_>) -> Self {
        let threads = request.threads.max(1);
        let hands = match (request.pass, request.pace) {
            (Pass::Full, None) => threads.max(MAX_HANDS.min(threads * HANDS_EACH)),
            _ => threads,
        };
        Shared {
            manifest: led.manifest,
            filesystems: led.filesystems,
            names_of_image: led.names_of_image,
            expectation: Expectation::new(led.manifest.header()),
            pass: request.pass,
            order: request.order,
            threads,
            hands,
            held_length: request.held_length,
            interrupt: request.interrupt,
            progress: request.progress,
            pace: request.pace,
            over: AtomicBool::new(false),
            inodes: Inodes::default(),
            state: State::default(),
        }
    }

    /// # Errors
    /// The scan is over, or was told to end.
    pub(super) fn go_on(&self) -> Result<(), ScanError> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if is_set(self.interrupt) || is_set(&self.over) {
            Err(ScanError::Interrupted)
        } else {
            Ok(())
        }
    }

    pub(super) fn groups(&self) -> MutexGuard<'_, LinkGroups<Waits>> {
        locked(&self.state.groups)
    }

    /// Keeps a name of a link group, which is to have these links, until all its names are known.
    pub(super) fn hold(&self, group: Group, path: &TreePath, links: Option<Links>, waits: Waits) {
        let mut complete = self.groups().hold(group, path, links, waits);
        complete.retain(|settled| !is_met(settled));
        if !complete.is_empty() {
            locked(&self.state.later).settled.extend(complete);
        }
    }

    /// Keeps how a part looked.
    pub(super) fn drawn(&self, portrait: Portrait) {
        locked(&self.state.later).portraits.push(portrait);
    }

    pub(super) fn note_later(&self, judged: Judged) {
        locked(&self.state.later).judged.push(judged);
    }

    /// Nothing is known of an entry that was looked at after its part was left.
    pub(super) fn forget_later(&self, ordinal: u64) {
        locked(&self.state.later).forgotten.push(ordinal);
    }

    /// Whether a gap was not told yet: one above several parts is met in each.
    pub(super) fn is_new(&self, gap: &Gap) -> bool {
        locked(&self.state.told).insert((gap.path.clone(), gap.reason))
    }

    /// Whether one more long file may wait until all threads can hash it together.
    pub(super) fn takes_long(&self) -> bool {
        locked(&self.state.long).files.len() < MAX_LONG
    }

    pub(super) fn add_long(&self, long: Long) {
        let left = &self.state.long_left;
        left.fetch_add(long.length(), Ordering::Relaxed);
        locked(&self.state.long).files.push(Arc::new(long));
        self.state.long_or_over.notify_all();
    }

    /// Whether it turns out only now that much is on the disk alone.
    pub(super) fn turns_cold(&self) -> bool {
        self.hands > self.threads && !self.state.is_cold.swap(true, Ordering::Relaxed)
    }

    /// A thread will walk.
    pub(super) fn walks(&self) {
        locked(&self.state.long).walking += 1;
    }

    /// A thread has done with walking.
    pub(super) fn walked(&self) {
        locked(&self.state.long).walking -= 1;
        self.state.long_or_over.notify_all();
    }

    /// A long file; none if there are no more. Waits while a thread still walks, which may find one.
    pub(super) fn long(&self, nth: usize) -> Option<Arc<Long>> {
        let mut long = locked(&self.state.long);
        loop {
            if let Some(found) = long.files.get(nth) {
                return Some(Arc::clone(found));
            }
            if long.walking == 0 {
                return None;
            }
            let waited = self.state.long_or_over.wait(long);
            long = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How far a thread got since it last told.
    pub(super) fn tell(&self, count: &mut Count) {
        let (entries, bytes) = count.since_told();
        let add = |to: &AtomicU64, more| to.fetch_add(more, Ordering::Relaxed) + more;
        (self.progress)(Progress {
            entries: add(&self.state.entries, entries),
            bytes: add(&self.state.bytes, bytes).max(self.state.at_work.load(Ordering::Relaxed)),
        });
    }

    /// A thread got further in a file of which nothing else tells yet: that is progress too.
    pub(super) fn at_work(&self, more: u64) {
        let told = self.state.bytes.load(Ordering::Relaxed);
        let at_work = self.state.at_work.load(Ordering::Relaxed).max(told) + more;
        self.state.at_work.store(at_work, Ordering::Relaxed);
        (self.progress)(Progress {
            entries: self.state.entries.load(Ordering::Relaxed),
            bytes: at_work,
        });
    }

    /// A thread read so much of a long file, or passed it by.
    pub(super) fn long_done(&self, bytes: u64) {
        let left = &self.state.long_left;
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// A thread did a little, and read so many bytes: it rests if it is time to. That is progress too: who rests does not
    /// hang.
    pub(super) fn rest(&self, bytes: u64) {
        let Some(pace) = self.pace else { return };
        if pace.step(bytes, &|| self.part(), &|| self.go_on().is_err()) {
            self.at_work(0);
        }
    }

    /// How much of the scan is done, from 0 to 1: of its paths, and of the bytes that wait for their end.
    fn part(&self) -> f64 {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (entries, all) = (get(&self.state.entries), self.manifest.header().entry_count);
        let read = get(&self.state.bytes).max(get(&self.state.at_work));
        let of_paths = entries as f64 / all.max(1) as f64;
        let of_long = (read + 1) as f64 / (read + 1 + get(&self.state.long_left)) as f64;
        of_paths.min(1.0) * of_long
    }

    /// A thread read until this moment.
    pub(super) fn read_until(&self, read_at: i64) {
        self.state.read_until.fetch_max(read_at, Ordering::Relaxed);
    }

    /// What is left to do when all threads have ended, and the latest moment that any of them read.
    pub(super) fn finish(self) -> (Later, i64) {
        let State {
            groups,
            later,
            read_until,
            ..
        } = self.state;
        let groups = groups.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut later = later.into_inner().unwrap_or_else(PoisonError::into_inner);
        let rest = groups.settle().filter(|settled| !is_met(settled));
        later.settled.extend(rest);
        (later, read_until.into_inner())
    }
}

/// Whether all of a name is as the manifest says.
fn is_met(settled: &Settled<Waits>) -> bool {
    matches!(settled.waited, Waits::AsExpected(_))
        && settled.expected.as_ref() == Some(&settled.links)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
