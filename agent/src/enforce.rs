//! Executions that wait in; whether they run out: with `enforce = "image-programs"` what the image does not hold does not
//! run.
//!
//! ```text
//! kernel ─▶ gate ─▶ judge ─▶ answer: at once, or, of what is refused, once it is known who asked ─▶ whoever was told to be told
//! ```
//!
//! - [`places`]: the file systems that are guarded, as they are mounted and go.
//! - [`judge`]: whether an execution is the image's, of what is in memory alone for all that the image has run before;
//!   [`known`] is what is in memory.
//! - [`answers`]: the thread that answers, and the one that closes the gate if that takes too long.
//! - [`telling`]: the thread that says who wanted to run what.
//!
//! Invariant: nobody is locked out. Whatever is not known to be none of the image's runs: what cannot be told, what is in
//! no process of this machine, what lies where nobody is asked. The gate is not opened where the image does not hold what
//! this machine itself runs by; it is closed when an answer takes [`PATIENCE`], when this process ends, however that is,
//! and when an operator says so ([`Order::off_switch`]). A program of the image that has changed is drift, and runs: a
//! shell or a loader that somebody wrote to would else be a machine that nobody can repair.
//!
//! The thread that answers waits for nobody: it opens nothing by a path outside of the image's own file systems, reads no
//! other process's memory (whoever that is could answer when it likes), logs nothing. Programs, not what they read: a
//! script is refused as itself, and its interpreter that is told to read it is a program of the image.

mod answers;
mod judge;
mod known;
mod places;
mod telling;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use drift::finding::Drift;
use drift::manifest::Filesystem;
use driftmark_kernel::fanotify::Gate;
use driftmark_kernel::{Stat, mounts};
use rustix::event::{EventfdFlags, eventfd};

use crate::baseline::Baseline;
use crate::log::Chain;
use crate::scan::filesystems::{Filesystems, canonical};
use crate::scan::mounts::table;
use crate::watch::attribution::CommandLine;
use judge::Judge;
use known::Known;
use places::Places;
use telling::Telling;

/// What becomes of programs that the image does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They run, and it is told that they would not.
    Permissive,
    /// They do not run.
    ImagePrograms,
}

/// What to guard.
#[derive(Debug, Clone)]
pub struct Order {
    /// What holds the image's programs.
    pub baseline: Arc<Baseline>,
    /// The root of the tree on this host. What is mounted there and below is guarded.
    pub root: PathBuf,
    /// What becomes of others.
    pub mode: Mode,
    /// Directories in which anything may be run.
    pub allow: Vec<PathBuf>,
    /// Nothing is refused while this file is there.
    pub off_switch: PathBuf,
    /// How much of command lines is told.
    pub command_line: CommandLine,
}

/// What a guard tells.
#[derive(Debug)]
pub enum Told {
    /// From now on executions are asked about, but for these limits, a sentence each.
    Guarding {
        /// What is not asked about.
        limits: Vec<String>,
    },
    /// A program that the image does not hold was refused, or would be.
    Foreign(Box<Drift>),
    /// Nothing is refused any more, and this is why.
    Ended(String),
}

/// What was answered, since the guard began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Programs that the image does not hold: refused, or, if permissive, not.
    pub foreign: AtomicU64,
    /// What has another root than this machine: its own image's.
    pub containers: AtomicU64,
    /// It could not be told what it is: it ran.
    pub untold: AtomicU64,
    /// Of `foreign`: too many at once to say who wanted to run them.
    pub unnamed: AtomicU64,
    /// The kernel refused it by itself, as this process had no descriptor left for it.
    pub lost: AtomicU64,
}

/// A guard that stands until it is dropped.
#[derive(Debug)]
pub struct Guard {
    ending: Arc<Ending>,
    /// What was answered.
    pub counts: Arc<Counts>,
}

/// Longer than this nobody waits for an answer: the gate is closed, and everything runs. An answer takes microseconds, and
/// some milliseconds where the image's own disk is asked; the rest is for a machine that has no time for the agent.
pub const PATIENCE: Duration = Duration::from_millis(500);

impl Guard {
    /// Begins. `tell` is called by threads of the guard; who waits for an answer never waits for it.
    ///
    /// # Errors
    /// No thread, or no descriptor, is left.
    pub fn start(order: Order, tell: impl Fn(Told) + Send + Sync + 'static) -> io::Result<Self> {
        let ending = Arc::new(Ending::new()?);
        let guard = Guard {
            ending: Arc::clone(&ending),
            counts: Arc::default(),
        };
        let counts = Arc::clone(&guard.counts);
        let thread = std::thread::Builder::new().name("guard".into());
        thread.spawn(move || {
            let guarding = Guarding {
                order,
                tell: &tell,
                ending: &ending,
                counts: &counts,
            };
            while !ending.is_over() {
                match guarding.guard() {
                    Ok(Ended::Remounted) => {}
                    Ok(Ended::Told) => return,
                    Err(reason) => return tell(Told::Ended(reason)),
                }
            }
        })?;
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.ending.end();
    }
}

/// Why a guard came to an end.
enum Ended {
    /// It is over, or why was told.
    Told,
    /// The image's file systems are mounted otherwise: it begins again.
    Remounted,
}

/// How all threads of a guard learn that it is over.
#[derive(Debug)]
struct Ending {
    over: AtomicBool,
    /// Readable from then on.
    wake: OwnedFd,
}

impl Ending {
    fn new() -> io::Result<Self> {
        Ok(Ending {
            over: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        // Never read: whoever polls it is waked, and the next one as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// What all threads of a guard have.
struct Guarding<'a> {
    order: Order,
    tell: &'a (dyn Fn(Told) + Send + Sync),
    ending: &'a Ending,
    counts: &'a Counts,
}

impl Guarding<'_> {
    /// Until it is over, or the image's file systems are mounted otherwise.
    ///
    /// # Errors
    /// A sentence: why nothing is refused, or not any more.
    fn guard(&self) -> Result<Ended, String> {
        let failed = |what: &'static str| {
            move |error: &dyn std::error::Error| format!("{what}: {}", Chain(error))
        };
        let Order { baseline, root, .. } = &self.order;
        let root = canonical(root).map_err(|error| failed("open the root")(&error))?;
        let changes = changes(&root).map_err(|error| failed("watch the mounts")(&error))?;
        let mounted = table(&root).map_err(|error| failed("read the mounts")(&error))?;
        let wanted = &baseline.manifest.header().filesystems;
        let filesystems = Filesystems::open(&root, wanted, &mounted)
            .map_err(|error| failed("open the file systems")(&error))?;
        let known = Known::of_image(baseline, &filesystems)
            .map_err(|error| failed("read the manifest")(&error))?;
        holds_what_runs(&root, &known)?;
        let mut judge = Judge::new(&self.order, &root, &filesystems, known)
            .map_err(|error| failed("look at the root")(&error))?;
        let telling = Telling::new(self, &root, &filesystems)
            .map_err(|error| failed("look at the root")(&error))?;
        let gate = Gate::open().map_err(|error| failed("open a gate")(&error))?;
        let ended = self.answer(
            &gate,
            move |pid, file| judge.judge(pid, file),
            |foreign| telling.tell(foreign),
            |ending| {
                let mut places = Places::new(&root, changes);
                // Whoever runs something while these are being marked is answered already.
                if !places.guard(&gate, &mounted) {
                    return Err(format!(
                        "the root is not guarded: {}",
                        places.limits().join("; ")
                    ));
                }
                loop {
                    (self.tell)(Told::Guarding {
                        limits: places.limits(),
                    });
                    while !places.have_changed(&gate) {
                        if !places.wait(self.ending, ending) {
                            return Ok(Ended::Told);
                        }
                        if are_mounted_otherwise(&filesystems, &root, wanted) {
                            return Ok(Ended::Remounted);
                        }
                    }
                }
            },
        );
        ended.map(|ended| ended.unwrap_or(Ended::Told))
    }
}

/// A descriptor that polls after each change to [`table`].
fn changes(root: &Path) -> io::Result<OwnedFd> {
    if root == Path::new("/") {
        return mounts::watch();
    }
    std::fs::File::open("/proc/self/mountinfo").map(OwnedFd::from)
}

/// Whether the image's file systems are others now, or lie elsewhere.
fn are_mounted_otherwise(open: &Filesystems, root: &Path, wanted: &[Filesystem]) -> bool {
    let mounted = table(root).unwrap_or_default();
    let now = Filesystems::open(root, wanted, &mounted);
    now.is_ok_and(|now| now.mounts() != open.mounts())
}

/// What this machine itself runs by is the image's, or else the manifest is that of another one: it would be locked out.
///
/// # Errors
/// A sentence that names what is not.
fn holds_what_runs(root: &Path, known: &Known) -> Result<(), String> {
    if root != Path::new("/") {
        return Ok(());
    }
    for path in RUNS_BY {
        let file = std::fs::File::open(path).map_err(|error| format!("open {path}: {error}"))?;
        let stat = Stat::of(&file).map_err(|error| format!("look at {path}: {error}"))?;
        if !known.has(&stat) {
            return Err(format!(
                "{path} is no program of the image: everything would be refused"
            ));
        }
    }
    Ok(())
}

/// Process 1, and the shell that everything else is started by.
const RUNS_BY: [&str; 2] = ["/proc/1/exe", "/bin/sh"];
