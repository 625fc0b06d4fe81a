//! Changes of paths in, with when they came; what has to be looked at again, and when, out.
//!
//! Pure: time is an argument (any clock that only goes forward). Invariant: for each change that comes in, a look at its
//! path, or at a directory above it with all that is in it, comes out that is taken after the change. Everything else here
//! is for having fewer looks: one for many changes, ever rarer ones at what never rests, and one at a whole directory
//! where there are too many to remember.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use drift::TreePath;

pub use crate::scan::{Look, Reach};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its content is being written, and whoever writes is not done.
    Writing,
    /// It was written, made, removed, renamed, or an attribute of it was set: there is nothing to wait for.
    Done,
    /// All that is below it may be other than it was: a directory was moved here or away, or events were lost.
    Below,
}

/// What has changed and was not looked at since.
#[derive(Debug, Default)]
pub struct Settle {
    waiting: BTreeMap<TreePath, Waiting>,
    /// Of the paths in it.
    waiting_bytes: usize,
    looked: HashMap<TreePath, Looked>,
    looked_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Duration,
    due: Duration,
    reach: Reach,
}

/// The last look at a path, and how long after it the next one may be.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Duration,
    rest: Duration,
}

impl Settle {
    /// A path that is being written is looked at when nothing was written for so long,
    pub const QUIET: Duration = Duration::from_millis(50);
    /// and at the latest so long after it began: a file that is written for hours drifts all the while.
    pub const PATIENCE: Duration = Duration::from_secs(1);
    /// The second look at a path is at least so long after the first, and each further one twice as long after the one
    /// before,
    pub const SHORTEST_REST: Duration = Duration::from_millis(10);
    /// up to this, by which what never rests costs next to nothing.
    pub const LONGEST_REST: Duration = Duration::from_secs(10);
    /// More paths than this are remembered by their directories: two megabytes with paths as they are,
    pub const MOST: usize = 16 * 1024;
    /// and so are fewer that are longer than this together, as anybody may make paths of [`TreePath::MAX_BYTES`].
    pub const MOST_BYTES: usize = 4 * 1024 * 1024;
    /// So many looks are taken at once, and the last of them alone may be at a directory with all that is in it: what they
    /// find is kept until it is told.
    pub const MOST_AT_ONCE: usize = 1024;

    /// Takes a change that came at `now`.
    pub fn changed(&mut self, path: TreePath, change: Change, now: Duration) {
        let wished = match change {
            Change::Writing => now + Settle::QUIET,
            Change::Done | Change::Below => now,
        };
        let reach = match change {
            Change::Below => Reach::Below,
            Change::Writing | Change::Done => Reach::Itself,
        };
        let rested = self.rested(&path);
        let mut waiting = Waiting {
            since: now,
            due: wished.max(rested),
            reach,
        };
        if let Some(before) = self.waiting.get(&path) {
            waiting.since = before.since;
            waiting.reach = before.reach.max(reach);
            waiting.due = match change {
                Change::Writing if before.due > now => waiting.due.max(before.due),
                _ => waiting.due.min(before.due.max(now)),
            };
        }
        // A rest is kept whatever the patience.
        let patience = (waiting.since + Settle::PATIENCE).max(rested);
        waiting.due = waiting.due.min(patience);
        if self.is_covered(&path, waiting.due) {
            self.remove(&path);
            return;
        }
        if waiting.reach == Reach::Below {
            self.drop_covered(&path, waiting.due);
        }
        let bytes = bytes_of(&path);
        if self.waiting.insert(path, waiting).is_none() {
            self.waiting_bytes += bytes;
        }
        if self.has_more_than(Settle::MOST, Settle::MOST_BYTES) {
            self.gather();
        }
    }

    /// When the next look is due; none while nothing waits.
    pub fn next(&self) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Takes looks that are due at `now`, in path order, none within another; the first ones where there are more than
    /// [`Settle::MOST_AT_ONCE`]. Ask again until there are none.
    pub fn due(&mut self, now: Duration) -> Vec<Look> {
        let mut looks: Vec<Look> = Vec::new();
        let (mut covered_by, mut left) = (None::<TreePath>, Settle::MOST_AT_ONCE);
        let due = self.waiting.extract_if(.., |path, waiting| {
            // What is looked at anyway needs no look of its own later.
            if covered_by
                .as_ref()
                .is_some_and(|above| path.is_within(above))
            {
                return true;
            }
            let is_taken = waiting.due <= now && left > 0;
            match waiting.reach {
                Reach::Below if is_taken => {
                    covered_by = Some(path.clone());
                    left = 0;
                }
                _ => left -= usize::from(is_taken),
            }
            is_taken
        });
        for (path, waiting) in due {
            self.waiting_bytes -= bytes_of(&path);
            let is_within = |look: &Look| look.reach == Reach::Below && path.is_within(&look.path);
            if !looks.last().is_some_and(is_within) {
                looks.push(Look {
                    path,
                    reach: waiting.reach,
                });
            }
        }
        for look in &looks {
            self.remember(&look.path, now);
        }
        looks
    }

    /// When a path may be looked at again.
    fn rested(&self, path: &TreePath) -> Duration {
        let last = self.looked.get(path);
        last.map_or(Duration::ZERO, |last| last.at + last.rest)
    }

    /// Whether a look at a directory above comes as soon.
    fn is_covered(&self, path: &TreePath, due: Duration) -> bool {
        let above = std::iter::successors(path.parent(), TreePath::parent);
        above
            .filter_map(|above| self.waiting.get(&above))
            .any(|waiting| waiting.reach == Reach::Below && waiting.due <= due)
    }

    fn drop_covered(&mut self, path: &TreePath, due: Duration) {
        let below = (Bound::Excluded(path), Bound::Unbounded);
        let below = self.waiting.range::<TreePath, _>(below);
        let within = below.take_while(|(other, _)| other.is_within(path));
        let covered: Vec<TreePath> = within
            .filter(|(_, waiting)| waiting.due >= due)
            .map(|(other, _)| other.clone())
            .collect();
        for other in covered {
            self.remove(&other);
        }
    }

    fn remove(&mut self, path: &TreePath) {
        if self.waiting.remove(path).is_some() {
            self.waiting_bytes -= bytes_of(path);
        }
    }

    fn remember(&mut self, path: &TreePath, now: Duration) {
        let is_full = |looked: &HashMap<_, _>, bytes: usize| {
            looked.len() >= Settle::MOST || bytes + bytes_of(path) > Settle::MOST_BYTES
        };
        if is_full(&self.looked, self.looked_bytes) {
            // What has rested by now begins anew; where nothing has, all do, which costs looks and loses none.
            self.looked.retain(|_, last| now < last.at + last.rest * 2);
            self.looked_bytes = self.looked.keys().map(bytes_of).sum();
            if is_full(&self.looked, self.looked_bytes) {
                self.looked.clear();
                self.looked_bytes = 0;
            }
        }
        let rest = match self.looked.get(path) {
            Some(last) if now < last.at + last.rest * 2 + Settle::QUIET => {
                (last.rest * 2).min(Settle::LONGEST_REST)
            }
            _ => Settle::SHORTEST_REST,
        };
        let looked = Looked { at: now, rest };
        if self.looked.insert(path.clone(), looked).is_none() {
            self.looked_bytes += bytes_of(path);
        }
    }

    fn has_more_than(&self, paths: usize, bytes: usize) -> bool {
        self.waiting.len() > paths || self.waiting_bytes > bytes
    }

    /// Remembers directories instead of what is in them, the deepest first, until half of the room is free.
    fn gather(&mut self) {
        let deepest = self.waiting.keys().map(depth_of).max().unwrap_or(0);
        for depth in depths_above(deepest) {
            if !self.has_more_than(Settle::MOST / 2, Settle::MOST_BYTES / 2) {
                break;
            }
            self.gather_at(depth);
        }
    }

    /// Remembers the directories at this depth instead of what is in them.
    fn gather_at(&mut self, depth: usize) {
        let mut gathered: BTreeMap<TreePath, Waiting> = BTreeMap::new();
        for (path, waiting) in std::mem::take(&mut self.waiting) {
            let (path, waiting) = match above(&path, depth) {
                Some(above) => {
                    let rested = self.rested(&above);
                    let gathered = Waiting {
                        due: waiting.due.max(rested),
                        reach: Reach::Below,
                        ..waiting
                    };
                    (above, gathered)
                }
                None => (path, waiting),
            };
            gathered
                .entry(path)
                .and_modify(|other| {
                    other.since = other.since.min(waiting.since);
                    other.due = other.due.min(waiting.due);
                    other.reach = other.reach.max(waiting.reach);
                })
                .or_insert(waiting);
        }
        self.waiting_bytes = gathered.keys().map(bytes_of).sum();
        self.waiting = gathered;
    }
}

/// Half as deep each time, down to the root: all that waits is gone through for each of them.
fn depths_above(deepest: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(deepest), |depth| (*depth > 0).then_some(depth / 2)).skip(1)
}

fn bytes_of(path: &TreePath) -> usize {
    path.as_bytes().len()
}

fn depth_of(path: &TreePath) -> usize {
    path.components().count()
}

/// The directory at this depth that a path lies deeper in; none for one that does not.
fn above(path: &TreePath, depth: usize) -> Option<TreePath> {
    if depth_of(path) <= depth {
        return None;
    }
    let names: Vec<&[u8]> = path.components().take(depth).collect();
    TreePath::new(&names.join(&b'/')).ok()
}
