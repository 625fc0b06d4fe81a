//! A manifest in; from then on all that happens to what it holds is told, until the watch is dropped.

mod events;
mod mounting;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drift::TreePath;
use drift::attribution::Attribution;
use drift::finding::Drift;
use driftmark_kernel::fanotify::{Buffer, Mask};
use driftmark_kernel::{boot, mounts};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use self::mounting::{Mounted, Mounts};
use super::actors::{Actors, Touch, Touches};
use super::attribution::{CommandLine, Witness};
use super::eyes::{Eyes, Opening, Ways};
use super::looking::{Gaze, Sighting};
use super::seen::Seen;
use super::settle::{Change, Settle};
use super::starts::{Starts, Strangers};
use crate::baseline::{Baseline, InImage};
use crate::log::Chain;
use crate::scan::Look;
use crate::scan::filesystems::Filesystems;
use crate::scan::look::Linked;
use crate::scan::mounts::table;
use crate::supervise::Keeper;

/// What to watch.
#[derive(Debug, Clone)]
pub struct Order {
    /// Against what.
    pub baseline: Arc<Baseline>,
    /// The root of the tree on this host, spelled out.
    pub root: PathBuf,
    /// How much of command lines is told.
    pub command_line: CommandLine,
    /// Where queues are kept while no agent is there.
    pub keeper: Arc<Keeper>,
    /// When an agent before this one had last seen all, by time since boot; none where none is known of.
    pub seen_until: Option<Duration>,
}

/// What a watch tells.
#[derive(Debug)]
pub enum Told {
    /// All that happens from now on is seen, but for these limits, a sentence each.
    Watching {
        /// What is seen less.
        limits: Vec<String>,
        /// Whether what happened before is seen too, since an agent before this one ended. Else nobody saw it.
        is_resumed: bool,
    },
    /// What has become of paths that were changed.
    Seen(Box<Sighting>),
    /// Events were lost, or no agent was there: between these moments, by time since boot, anything may have happened.
    Blind {
        /// When all was last seen.
        from: Duration,
        /// When it is seen again.
        until: Duration,
    },
    /// A program was started that is none of the image's.
    Executed(Box<Drift>),
    /// Only a pass over the tree can tell what has changed.
    InDoubt,
    /// Nothing is watched, and this is why.
    Ended(String),
}

/// A watch that goes on until it is dropped.
#[derive(Debug)]
pub struct LiveWatch {
    over: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    asked: Asked,
    container_starts: Arc<AtomicU64>,
    seen: Arc<Seen>,
}

/// What somebody else wants to be looked at, and who may have changed it.
type Asked = Arc<Mutex<BTreeMap<TreePath, Arc<Attribution>>>>;

/// Whoever is told. Called by two threads.
type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// A reading that brought so many events is followed by a rest: whoever writes then gets further, and one waking does for
/// many of them.
const BUSY_EVENTS: usize = 32;
const BUSY_REST: Duration = Duration::from_millis(5);
/// Readings of one queue in a row, before what is due is looked at: 270 events each at most.
pub(super) const READS_IN_A_ROW: usize = 64;
/// Where marks are not in step with the tree, all begins again, which may take so large a part of the time:
const SHARE_OF_BEGINNING: u32 = 10;
/// and not before so long.
const BEGINNING_REST: Duration = Duration::from_secs(1);
/// A pass is asked for this often at most on account of what events alone leave open: inodes with several names where
/// nothing is held have them made and removed all the time, where backups or repositories are kept.
const DOUBT_REST: Duration = Duration::from_secs(60);
/// More programs than a machine starts again and again.
const MOST_PROGRAMS: usize = 512;
/// Looks begin so long after others: in a storm many are taken in one go, and whoever makes it gets further.
const LOOKS_APART: Duration = Duration::from_millis(5);
/// When nothing was looked at for so long, nothing is kept for it.
const LOOKS_REST: Duration = Duration::from_secs(1);

impl LiveWatch {
    /// Begins. `tell` is called by threads of the watch, and keeps them waiting.
    ///
    /// # Errors
    /// No thread, or no descriptor, is left.
    pub fn start(order: Order, tell: impl Fn(Told) + Send + Sync + 'static) -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let over = Arc::new(AtomicBool::new(false));
        let tell: Tell = Arc::new(tell);
        let watch = LiveWatch {
            over: Arc::clone(&over),
            wake: Arc::clone(&wake),
            asked: Asked::default(),
            container_starts: Arc::default(),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&watch.seen);
        let asked = Arc::clone(&watch.asked);
        let container_starts = Arc::clone(&watch.container_starts);
        let thread = std::thread::Builder::new().name("watch".into());
        thread.spawn(move || {
            let mut around = Around {
                order,
                tell,
                over,
                wake,
                asked,
                container_starts,
                seen,
            };
            loop {
                match around.watch() {
                    // From here on what happens in between is this agent's to find out.
                    Ok(Ended::Anew) => around.order.seen_until = None,
                    Ok(Ended::Told) => return,
                    Ok(Ended::Blinded(reason)) | Err(reason) => {
                        return (around.tell)(Told::Ended(reason));
                    }
                }
            }
        })?;
        Ok(watch)
    }

    /// Has these paths looked at, as if whoever is named had changed them: what is stored through a mapping makes no event.
    pub fn look_at(&self, paths: BTreeMap<TreePath, Arc<Attribution>>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = paths;
        awake(&self.wake);
    }

    /// Until when all that happened was seen, by time since boot; zero where it never was. Ask now and then: the time for
    /// which it was blind is told by that.
    pub fn seen_until(&self) -> Duration {
        self.seen.asked(now())
    }

    /// How many programs containers were seen to start since it began.
    pub fn container_starts(&self) -> u64 {
        self.container_starts.load(Ordering::Relaxed)
    }
}

impl Drop for LiveWatch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        awake(&self.wake);
    }
}

pub(super) fn awake(wake: &OwnedFd) {
    // A counter that is full wakes as well.
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
}

/// What both threads have.
struct Around {
    order: Order,
    tell: Tell,
    over: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    asked: Asked,
    container_starts: Arc<AtomicU64>,
    seen: Arc<Seen>,
}

/// Why a watch came to an end.
enum Ended {
    Told,
    /// The image's file systems are mounted otherwise, or what is marked is not what should be: it begins again.
    Anew,
    /// Nothing can be read any more, and this is why.
    Blinded(String),
}

/// Looks, and what was done there.
type Job = (Vec<Look>, BTreeMap<TreePath, Touch>);

/// The watch, while the image's file systems are mounted as they are.
struct Live<'a> {
    around: &'a Around,
    ways: Ways<'a>,
    eyes: Eyes,
    /// When all may begin again.
    next_beginning: Duration,
    starts: Option<Starts>,
    /// What was read of them.
    started: Buffer,
    strangers: Strangers,
    programs: RefCell<InImage>,
    witness: Witness,
    actors: Actors,
    touches: Touches,
    settle: Settle,
    /// Something is marked that must not be ignored any more.
    is_to_renew: bool,
    /// Only a pass can tell what was seen, and that was not told yet.
    is_in_doubt: bool,
    /// When it may be told again.
    next_doubt: Duration,
}

impl Around {
    fn watch(&self) -> Result<Ended, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: &dyn std::error::Error| format!("{what}: {}", Chain(error))
        };
        let Order { baseline, root, .. } = &self.order;
        let root = crate::scan::filesystems::canonical(root)
            .map_err(|error| failed("open the root")(&error))?;
        let changes = mounts::watch().map_err(|error| failed("watch the mounts")(&error))?;
        let wanted = &baseline.manifest.header().filesystems;
        let mounted = table(&root).unwrap_or_default();
        let filesystems = Filesystems::open(&root, wanted, &mounted)
            .map_err(|error| failed("open the file systems")(&error))?;
        let linked = Linked::read(baseline).map_err(|error| failed("read the manifest")(&error))?;
        baseline.manifest.forget_blocks();
        let command_line = self.order.command_line;
        let witness =
            Witness::new(command_line).map_err(|error| failed("look at the root")(&error))?;
        let ways = Ways {
            filesystems: &filesystems,
            rules: baseline.manifest.rules(),
        };
        let began = now();
        let keeper = &self.order.keeper;
        let eyes = Eyes::open(&Opening {
            ways,
            root: &root,
            mounts: &mounted,
            wake: &self.wake,
            keeper,
            manifest: baseline.manifest.identity().blake3,
        });
        let rest = BEGINNING_REST.max((now() - began) * SHARE_OF_BEGINNING);
        let limits = eyes.limits.clone();
        if eyes.all.is_empty() {
            return Err(limits.join("; "));
        }
        let starts = Starts::open(&mounted, keeper);
        let kept: Vec<&str> = eyes.kept_as().chain([Starts::KEPT_AS]).collect();
        keeper.keep_only(&kept);
        let (is_resumed, seen_until) = (eyes.is_resumed, self.order.seen_until);
        if let Some(from) = seen_until.filter(|_| !is_resumed) {
            let until = now();
            (self.tell)(Told::Blind { from, until });
        }
        (self.tell)(Told::Watching { limits, is_resumed });
        // What a queue that was kept had no room for may have happened any time since the agent before saw all.
        self.seen.all(match is_resumed {
            true => seen_until.unwrap_or_default(),
            false => now(),
        });
        let mut live = Live {
            around: self,
            ways,
            eyes,
            next_beginning: now() + rest,
            starts,
            started: Buffer::default(),
            strangers: Strangers::default(),
            programs: RefCell::new(InImage::of_most(MOST_PROGRAMS)),
            witness,
            actors: Actors::default(),
            touches: Touches::default(),
            settle: Settle::default(),
            is_to_renew: false,
            is_in_doubt: false,
            next_doubt: Duration::ZERO,
        };
        let mut seen_mounts = Mounts::begin(self, changes, root, &filesystems, &mounted);
        let gaze = &Gaze {
            baseline,
            filesystems: &filesystems,
            linked: &linked,
            over: &self.over,
        };
        std::thread::scope(|scope| {
            let (jobs, ordered) = sync_channel::<Job>(1);
            let (done, again) = sync_channel::<Vec<TreePath>>(1);
            let looking = std::thread::Builder::new().name("look".into());
            looking
                .spawn_scoped(scope, move || self.look(gaze, &ordered, &done))
                .map_err(|error| failed("start a thread")(&error))?;
            Ok(live.until_over(&jobs, &again, &mut seen_mounts))
        })
    }

    /// Takes the looks that are ordered, until nobody orders any more.
    fn look(&self, gaze: &Gaze<'_>, jobs: &Receiver<Job>, done: &SyncSender<Vec<TreePath>>) {
        while let Ok(job) = jobs.recv() {
            let mut next = Some(job);
            let mut lookups = gaze.baseline.manifest.lookups();
            while let Some((looks, touches)) = next {
                let Some((sighting, again)) = gaze.take(looks, &touches, &mut lookups) else {
                    return;
                };
                (self.tell)(Told::Seen(Box::new(sighting)));
                if done.send(again).is_err() {
                    return;
                }
                awake(&self.wake);
                next = jobs.recv_timeout(LOOKS_REST).ok();
            }
            // What looks have read of the manifest is read again for the next one.
            drop(lookups);
            gaze.baseline.manifest.forget_blocks();
            driftmark_kernel::process::trim_heap();
        }
    }
}

impl Live<'_> {
    fn until_over(
        &mut self,
        jobs: &SyncSender<Job>,
        again: &Receiver<Vec<TreePath>>,
        mounts: &mut Mounts,
    ) -> Ended {
        let mut looking: Option<Vec<Look>> = None;
        let mut next_looks = Duration::ZERO;
        loop {
            if self.around.over.load(Ordering::Relaxed) {
                return Ended::Told;
            }
            let ended = match again.try_recv() {
                Ok(paths) => Some(paths),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Ended::Told,
            };
            let count = match self.read() {
                Ok(count) => count,
                Err(reason) => return Ended::Blinded(reason),
            };
            if self.is_to_renew {
                self.renew();
            }
            let is_out_of_step = self.eyes.are_out_of_step();
            if is_out_of_step && self.next_beginning <= now() {
                return Ended::Anew;
            }
            if self.is_in_doubt && self.next_doubt <= now() {
                (self.is_in_doubt, self.next_doubt) = (false, now() + DOUBT_REST);
                (self.around.tell)(Told::InDoubt);
            }
            if let Some(again) = ended {
                // All was read that happened before these looks ended, and they saw.
                let looked = looking.take().unwrap_or_default();
                self.touches.may_be_told(&looked);
                for path in again {
                    self.settle.changed(path, Change::Writing, now());
                }
            }
            self.take_what_was_asked();
            if looking.is_none() && next_looks <= now() {
                let looks = self.settle.due(now());
                if !looks.is_empty() {
                    next_looks = now() + LOOKS_APART;
                    let touches = self.touches.take(&looks);
                    let is_sent = jobs.try_send((looks.clone(), touches)).is_ok();
                    looking = is_sent.then_some(looks);
                }
            }
            let due = match looking {
                Some(_) => None,
                None => self.settle.next().map(|due| due.max(next_looks)),
            };
            let beginning = is_out_of_step.then_some(self.next_beginning);
            let due = [due, beginning].into_iter().flatten().min();
            if !self.wait(count, due, mounts) {
                continue;
            }
            match mounts.look(self.around) {
                Mounted::AsBefore(table) => {
                    self.starts
                        .iter_mut()
                        .for_each(|starts| starts.mark(&table));
                }
                Mounted::Unknown => {}
                Mounted::Otherwise => return Ended::Anew,
            }
        }
    }

    /// What is asked for is looked at as if it had been changed without a deed that could be over.
    fn take_what_was_asked(&mut self) {
        let asked = &self.around.asked;
        let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, by) in asked {
            self.touches.note(&path, Mask(0), &by);
            self.settle.changed(path, Change::Done, now());
        }
    }

    /// Waits for something to do. Says whether mounts may have changed.
    fn wait(&self, count: usize, due: Option<Duration>, mounts: &Mounts) -> bool {
        let now = now();
        let is_busy = count >= BUSY_EVENTS;
        let looks_at_mounts = mounts.next <= now;
        let starts = self.starts.as_ref().filter(|starts| starts.next <= now);
        let rests = self.starts.as_ref().filter(|starts| starts.next > now);
        let until = [
            due,
            is_busy.then(|| now + BUSY_REST),
            (!looks_at_mounts).then_some(mounts.next),
            rests.map(|starts| starts.next),
            self.is_in_doubt.then_some(self.next_doubt),
        ];
        let until = until.into_iter().flatten().min();
        let mut polled = vec![PollFd::new(&*self.around.wake, PollFlags::IN)];
        if looks_at_mounts {
            polled.push(PollFd::new(&mounts.changes, PollFlags::PRI));
        }
        polled.extend(starts.map(|starts| PollFd::new(starts, PollFlags::IN)));
        if !is_busy {
            let queues = self.eyes.all.iter().filter_map(|eye| eye.watch());
            polled.extend(queues.map(|queue| PollFd::new(queue, PollFlags::IN)));
        }
        let until = until.map(|until| {
            let wait = until.saturating_sub(now);
            Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        // Interrupted, it merely looks around too early.
        self.around.seen.waits(count == 0);
        let _ = poll(&mut polled, until.as_ref());
        self.around.seen.waits(false);
        let woken = |polled: &PollFd<'_>| !polled.revents().is_empty();
        if polled.first().is_some_and(woken) {
            let _ = rustix::io::read(&*self.around.wake, &mut [0; 8]);
        }
        looks_at_mounts && polled.get(1).is_some_and(woken)
    }
}

/// Since boot.
fn now() -> Duration {
    Duration::from_nanos(boot::boottime_ns())
}
