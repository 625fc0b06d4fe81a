//! Mounted file systems in; which process starts which program, wherever that lies, out.
//!
//! In a queue of its own: whoever asks who did something reads this one first, so that what a process was started as is known
//! before anything that it did is looked at, though it has ended by then. Nobody is waked by each start: a machine may
//! start thousands of programs a second that change nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use drift::TreePath;
use driftmark_kernel::fanotify::{
    Actor, Buffer, Holder, Located, Mask, Place, Shows, Sight, Watch,
};
use driftmark_kernel::{Mount, Tree};

use super::eyes::shows;
use super::live::READS_IN_A_ROW;
use crate::supervise::Keeper;

/// Programs that are started.
#[derive(Debug)]
pub(super) struct Starts {
    watch: Watch,
    /// What is queued happened while nobody read.
    pub(super) is_late: bool,
    places: Vec<Started>,
    /// When somebody may be waked by it again.
    pub(super) next: Duration,
}

/// A file system that programs can be started from. Nothing of it is held: whoever unmounts it is done with it.
#[derive(Debug)]
struct Started {
    /// As events call it.
    filesystem: u64,
    /// As the mount table does, and the mount that it was marked through.
    device: (u32, u32),
    mount: u64,
    /// The path of its top.
    point: Vec<u8>,
    shows: Shows,
}

/// Where containers come and go there are hundreds, most of which take no mark.
const MOST_FILESYSTEMS: usize = 64;

impl Starts {
    /// It is read at least this often where programs are started, so that it does not overflow.
    pub(super) const REST: Duration = Duration::from_secs(1);

    /// What the service manager keeps it as. It is about whatever is mounted, and ignores nothing.
    pub(super) const KEPT_AS: &str = "programs";

    /// None where there can be none: whoever has ended is not known by its program then.
    pub(super) fn open(mounts: &[Mount], keeper: &Keeper) -> Option<Starts> {
        let kept = keeper.take(Starts::KEPT_AS);
        let is_late = kept.is_some();
        let watch = kept.map_or_else(Watch::open, Ok).ok()?;
        let watch = watch.asking(Mask::OPEN_EXEC);
        if !is_late {
            keeper.keep(Starts::KEPT_AS, &watch);
        }
        let mut starts = Starts {
            watch,
            is_late,
            places: Vec::new(),
            next: Duration::ZERO,
        };
        starts.mark(mounts);
        Some(starts)
    }

    /// Marks what was mounted since, and lets go of what is not mounted any more.
    pub(super) fn mark(&mut self, mounts: &[Mount]) {
        let is_its =
            |mount: &Mount, place: &Started| (mount.id, mount.dev) == (place.mount, place.device);
        let is_mounted = |place: &Started| mounts.iter().any(|mount| is_its(mount, place));
        self.places.retain(is_mounted);
        // All of a file system, if a mount shows that, and else a part.
        let mut mounts: Vec<&Mount> = mounts
            .iter()
            .filter(|mount| mount.runs_programs())
            .collect();
        mounts.sort_by_key(|mount| mount.root != b"/");
        for mount in mounts {
            let is_new = self.places.iter().all(|place| place.device != mount.dev);
            if is_new && self.places.len() < MOST_FILESYSTEMS {
                // A file system that refuses is one whose programs are not known once they have ended.
                self.places.extend(self.started(mount));
            }
        }
    }

    fn started(&self, mount: &Mount) -> Option<Started> {
        let shows = shows(Some(mount));
        let holder = holder(&mount.point, shows)?;
        let Sight::Whole { filesystem } = self.watch.watch_filesystem(holder.as_fd()) else {
            return None;
        };
        Some(Started {
            filesystem,
            device: mount.dev,
            mount: mount.id,
            point: mount.point.clone(),
            shows,
        })
    }

    /// Takes what is queued, in so many readings at most, as programs may be started all the time: who has started which, by
    /// its absolute path. How much that was.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(
        &mut self,
        buffer: &mut Buffer,
        ran: &mut dyn FnMut(Actor, &[u8]),
    ) -> io::Result<usize> {
        let (mut count, mut held) = (0, HashMap::new());
        for _ in 0..READS_IN_A_ROW {
            let Some(events) = self.watch.read(buffer)? else {
                self.is_late = false;
                break;
            };
            for event in events.filter_map(Result::ok) {
                count += 1;
                if event.is_overflow() {
                    tracing::warn!(
                        "more programs were started than there is room for: some are not known"
                    );
                }
                let place = event.place.as_ref();
                if let Some(path) = place.and_then(|place| self.path_of(place, &mut held)) {
                    ran(event.actor, &path);
                }
            }
        }
        Ok(count)
    }

    /// `held` are the file systems of this reading.
    fn path_of(
        &self,
        place: &Place<'_>,
        held: &mut HashMap<u64, Option<Holder>>,
    ) -> Option<Vec<u8>> {
        let filesystem = place.directory.filesystem;
        let mut places = self.places.iter();
        let started = places.find(|one| one.filesystem == filesystem)?;
        let hold = || holder(&started.point, started.shows);
        let holder = held.entry(filesystem).or_insert_with(hold).as_ref()?;
        let Ok(Located::Here { path, .. }) = holder.locate(&place.directory) else {
            return None;
        };
        let point = started.point.strip_suffix(b"/").unwrap_or(&started.point);
        let names = [point, &path, place.name].into_iter().enumerate();
        let there = names.filter(|(nth, name)| *nth == 0 || !name.is_empty());
        Some(there.map(|(_, name)| name).collect::<Vec<_>>().join(&b'/'))
    }
}

/// Programs that are not the image's, and were told of lately: one that is started again and again is told of now and then.
#[derive(Debug, Default)]
pub(crate) struct Strangers(HashMap<TreePath, Stranger>);

#[derive(Debug)]
struct Stranger {
    last_told: Duration,
    /// It is a container's: counted, and not told.
    is_contained: bool,
}

impl Strangers {
    /// Somebody may make a new one for each start: then all are told anew, and what is told is bounded elsewhere.
    const MOST: usize = 1024;
    const QUIET: Duration = Duration::from_secs(600);

    /// Whether one that is started now is to be told of.
    pub(crate) fn is_news(&mut self, path: &TreePath, now: Duration) -> bool {
        let told = self.0.get(path);
        if told.is_some_and(|told| now.saturating_sub(told.last_told) < Strangers::QUIET) {
            return false;
        }
        if self.0.len() >= Strangers::MOST {
            self.0.clear();
        }
        let stranger = Stranger {
            last_told: now,
            is_contained: false,
        };
        self.0.insert(path.clone(), stranger);
        true
    }

    /// It turned out to be a container's.
    pub(super) fn contained(&mut self, path: &TreePath) {
        if let Some(stranger) = self.0.get_mut(path) {
            stranger.is_contained = true;
        }
    }

    /// Whether it was a container's when it was last looked at.
    pub(super) fn is_contained(&self, path: &TreePath) -> bool {
        self.0
            .get(path)
            .is_some_and(|stranger| stranger.is_contained)
    }
}

impl AsFd for Starts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

fn holder(point: &[u8], shows: Shows) -> Option<Holder> {
    let tree = Tree::open(Path::new(OsStr::from_bytes(point))).ok()?;
    Holder::of(&tree, shows).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_of_now_and_then_and_no_more_are_remembered_than_may_be() {
        let mut strangers = Strangers::default();
        let path = |number: usize| TreePath::new(number.to_string().as_bytes()).unwrap();
        let at = |quiet: f64| Strangers::QUIET.mul_f64(1.0 + quiet);
        assert!(strangers.is_news(&path(0), at(0.0)));
        assert!(!strangers.is_news(&path(0), at(0.9)));
        assert!(strangers.is_news(&path(0), at(1.0)));
        for number in 0..3 * Strangers::MOST {
            assert!(strangers.is_news(&path(number + 1), at(1.0)));
            assert!(strangers.0.len() <= Strangers::MOST);
        }
    }
}
