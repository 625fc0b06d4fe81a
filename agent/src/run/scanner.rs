//! Receives orders to scan; hands back what was found. On threads of their own, at the lowest priority.

mod work;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as orders;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drift::report::ImageRef;
use tokio::sync::mpsc;

use crate::baseline::{Baseline, BaselinePaths};
use crate::config::{Config, Pace};
use crate::held::HeldCache;
use crate::log::Chain;
use crate::scan::Pass;
use crate::sentinel::{OpenBefore, Outcome};
use work::{Known, Work};

/// What the scanner says.
#[derive(Debug)]
pub(super) enum Said {
    /// The manifest verified.
    Opened {
        baseline: Arc<Baseline>,
        image: ImageRef,
        build_time: Option<i64>,
    },
    /// It did not.
    Refused(String),
    /// A pass ended.
    Finished(Box<Outcome>),
    /// A pass could not end.
    Failed(Pass, String),
}

/// The threads that scan, from outside: one for each kind of pass. A full one and a sweep of the disk take their time, and
/// a quick one does not wait for them.
#[derive(Debug)]
pub(super) struct Scanner {
    full: Lane,
    quick: Lane,
    sweep: Lane,
    interrupt: Arc<AtomicBool>,
}

/// One of them.
#[derive(Debug)]
struct Lane {
    orders: orders::SyncSender<Ordered>,
    progress: Arc<AtomicU64>,
    seen: (u64, Duration),
    is_busy: bool,
}

#[derive(Debug, Clone)]
struct Ordered {
    pass: Pass,
    open: OpenBefore,
    holds: bool,
}

/// A scan without any progress for this long hangs, and the watchdog may end it. A disk that retries a bad sector takes
/// minutes, not this.
const STALL: Duration = Duration::from_secs(600);

impl Scanner {
    /// Starts the threads. The manifest is opened at once; it is said how that went.
    pub(super) fn start(
        config: &Config,
        state_directory: &Path,
    ) -> std::io::Result<(Self, mpsc::Receiver<Said>)> {
        let (said, hearing) = mpsc::channel(4);
        let interrupt = Arc::new(AtomicBool::new(false));
        let known = Arc::new(Mutex::new(Known::default()));
        let held = HeldCache::open(state_directory).unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "held values are not remembered");
            HeldCache::default()
        });
        let held = Arc::new(Mutex::new(held));
        let work = |progress: &Arc<AtomicU64>| Work {
            paths: BaselinePaths {
                manifest: config.image.manifest.clone(),
                signature: config.image.signature.clone(),
                trust: config.image.trust.clone(),
            },
            root: config.root.clone(),
            threads: config.threads.unwrap_or_else(work::half_of_the_processors),
            schedule: config.schedule,
            max_bytes_per_second: match config.pace {
                Pace::Adaptive => Some(config.max_bytes_per_second),
                Pace::Unpaced => None,
            },
            known: known.clone(),
            held: held.clone(),
            said: said.clone(),
            interrupt: interrupt.clone(),
            progress: progress.clone(),
        };
        let scanner = Scanner {
            full: Lane::start("full", &work, Work::full_until_closed)?,
            quick: Lane::start("quick", &work, Work::quick_until_closed)?,
            sweep: Lane::start("sweep", &work, Work::sweep_until_closed)?,
            interrupt,
        };
        Ok((scanner, hearing))
    }

    /// Orders a pass; `holds` says whether what may change once may no longer change.
    pub(super) fn order(
        &mut self,
        (pass, open): (Pass, OpenBefore),
        holds: bool,
        uptime: Duration,
    ) {
        let lane = self.lane(pass);
        let ordered = Ordered { pass, open, holds };
        lane.is_busy = lane.orders.try_send(ordered).is_ok();
        lane.seen = (lane.progress.load(Ordering::Relaxed), uptime);
    }

    /// The pass ended.
    pub(super) fn rests(&mut self, pass: Pass) {
        self.lane(pass).is_busy = false;
    }

    /// Whether a pass is going on.
    pub(super) fn is_busy(&self) -> bool {
        self.full.is_busy || self.quick.is_busy || self.sweep.is_busy
    }

    /// Whether every pass that is going on got anywhere lately.
    pub(super) fn makes_progress(&mut self, uptime: Duration) -> bool {
        let lanes = [&mut self.full, &mut self.quick, &mut self.sweep];
        // Each is looked at, whatever the others do.
        lanes.map(|lane| lane.makes_progress(uptime)) == [true; 3]
    }

    fn lane(&mut self, pass: Pass) -> &mut Lane {
        match pass {
            Pass::Full => &mut self.full,
            Pass::Quick => &mut self.quick,
            Pass::Disk => &mut self.sweep,
        }
    }

    /// Ends the passes that are going on, soon.
    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }
}

impl Lane {
    fn start(
        name: &str,
        work: &dyn Fn(&Arc<AtomicU64>) -> Work,
        run: fn(Work, &orders::Receiver<Ordered>),
    ) -> std::io::Result<Self> {
        let (orders, received) = orders::sync_channel(1);
        let progress = Arc::new(AtomicU64::new(0));
        let work = work(&progress);
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(work, &received))?;
        Ok(Lane {
            orders,
            progress,
            seen: (0, Duration::ZERO),
            is_busy: false,
        })
    }

    fn makes_progress(&mut self, uptime: Duration) -> bool {
        let progress = self.progress.load(Ordering::Relaxed);
        if !self.is_busy || progress != self.seen.0 {
            self.seen = (progress, uptime);
        }
        uptime.saturating_sub(self.seen.1) < STALL
    }
}
