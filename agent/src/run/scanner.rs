//! Receives orders to scan; hands back what was found. On a thread of its own, at the lowest priority.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as orders;
use std::time::Duration;

use drift::TreePath;
use drift::compare::Finding;
use drift::report::ImageRef;
use tokio::sync::mpsc;

use crate::baseline::{Baseline, BaselinePaths};
use crate::config::Config;
use crate::held::HeldCache;
use crate::log::Chain;
use crate::packages::Labels;
use crate::scan::{Pass, Progress, ScanRequest, Verified, scan};
use crate::sentinel::{MAX_OPEN_DRIFTS, Outcome};

/// What the scanner says.
#[derive(Debug)]
pub(super) enum Said {
    /// The manifest verified.
    Opened {
        image: ImageRef,
        build_time: Option<i64>,
    },
    /// It did not.
    Refused(String),
    /// A pass ended.
    Finished(Box<Outcome>),
    /// A pass could not end.
    Failed(String),
}

/// The thread that scans, from outside.
#[derive(Debug)]
pub(super) struct Scanner {
    orders: orders::SyncSender<Order>,
    interrupt: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    seen: (u64, Duration),
    is_busy: bool,
}

#[derive(Debug, Clone, Copy)]
struct Order {
    pass: Pass,
    holds: bool,
}

/// A scan without any progress for this long hangs, and the watchdog may end it. A disk that retries a bad sector takes
/// minutes, not this.
const STALL: Duration = Duration::from_secs(600);
/// Where more than this could not be read, the rest is counted and everything that was open stays open.
const MAX_GAPS: usize = 10_000;

impl Scanner {
    /// Starts the thread. It opens the manifest at once and says how that went.
    pub(super) fn start(
        config: &Config,
        state_directory: &Path,
    ) -> std::io::Result<(Self, mpsc::Receiver<Said>)> {
        let (order_sender, order_receiver) = orders::sync_channel(1);
        let (said, hearing) = mpsc::channel(4);
        let interrupt = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(AtomicU64::new(0));
        let work = Work {
            paths: BaselinePaths {
                manifest: config.image.manifest.clone(),
                signature: config.image.signature.clone(),
                trust: config.image.trust.clone(),
            },
            root: config.root.clone(),
            threads: config.threads.unwrap_or_else(half_of_the_processors),
            state_directory: state_directory.to_owned(),
            interrupt: interrupt.clone(),
            progress: progress.clone(),
        };
        std::thread::Builder::new()
            .name("scan".into())
            .spawn(move || work.until_closed(&order_receiver, &said))?;
        let scanner = Scanner {
            orders: order_sender,
            interrupt,
            progress,
            seen: (0, Duration::ZERO),
            is_busy: false,
        };
        Ok((scanner, hearing))
    }

    /// Orders a pass; `holds` says whether what may change once may no longer change.
    pub(super) fn order(&mut self, pass: Pass, holds: bool, uptime: Duration) {
        self.is_busy = self.orders.try_send(Order { pass, holds }).is_ok();
        self.seen = (self.progress.load(Ordering::Relaxed), uptime);
    }

    /// The pass ended.
    pub(super) fn rests(&mut self) {
        self.is_busy = false;
    }

    /// Whether a pass is going on.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether a pass that is going on got anywhere lately.
    pub(super) fn makes_progress(&mut self, uptime: Duration) -> bool {
        let progress = self.progress.load(Ordering::Relaxed);
        if !self.is_busy || progress != self.seen.0 {
            self.seen = (progress, uptime);
        }
        uptime.saturating_sub(self.seen.1) < STALL
    }

    /// Ends a pass that is going on, soon.
    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }
}

/// The thread, from inside.
struct Work {
    paths: BaselinePaths,
    root: PathBuf,
    threads: usize,
    state_directory: PathBuf,
    interrupt: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
}

impl Work {
    fn until_closed(self, orders: &orders::Receiver<Order>, said: &mpsc::Sender<Said>) {
        // The threads that a scan starts inherit it. Where it is refused, a scan is merely less polite.
        let _ = rustix::process::setpriority_process(None, 19);
        let mut held = HeldCache::open(&self.state_directory).unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "held values are not remembered");
            HeldCache::default()
        });
        let mut verified = Verified::default();
        let mut baseline = self.open(said);
        let mut is_fresh = true;
        while let Ok(order) = orders.recv() {
            // A manifest that was replaced is noticed at the next full pass, not only at the next start.
            if baseline.is_none() || (order.pass == Pass::Full && !is_fresh) {
                baseline = self.open(said);
            }
            is_fresh = false;
            let Some(baseline) = &baseline else { continue };
            let saying = match self.scan(baseline, order, &mut verified, &mut held) {
                Ok(outcome) => Said::Finished(Box::new(outcome)),
                Err(error) => Said::Failed(Chain(&error).to_string()),
            };
            if said.blocking_send(saying).is_err() {
                return;
            }
            // What a scan used is six times what the daemon needs between scans.
            driftmark_kernel::process::trim_heap();
        }
    }

    fn open(&self, said: &mpsc::Sender<Said>) -> Option<Baseline> {
        let (baseline, saying) = match Baseline::open(&self.paths) {
            Ok(baseline) => {
                let saying = Said::Opened {
                    image: baseline.image(),
                    build_time: baseline.build_time(),
                };
                (Some(baseline), saying)
            }
            Err(error) => (None, Said::Refused(Chain(&error).to_string())),
        };
        said.blocking_send(saying).ok()?;
        baseline
    }

    fn scan(
        &self,
        baseline: &Baseline,
        order: Order,
        verified: &mut Verified,
        held: &mut HeldCache,
    ) -> Result<Outcome, crate::scan::ScanError> {
        let mut outcome = Outcome {
            pass: order.pass,
            drifts: Vec::new(),
            packages: BTreeMap::new(),
            gaps: Vec::new(),
            more_gaps: false,
            coverage: drift::coverage::Coverage::default(),
            held: order.holds.then(Vec::new),
        };
        let count = |_: Progress| {
            self.progress.fetch_add(1, Ordering::Relaxed);
        };
        let held_length = |path: &TreePath| held.length_of(path);
        let request = ScanRequest {
            baseline,
            root: &self.root,
            pass: order.pass,
            threads: self.threads,
            held_length: &held_length,
            interrupt: &self.interrupt,
            progress: &count,
        };
        let summary = scan(&request, verified, &mut |finding| match finding {
            Finding::Drift(difference) if outcome.drifts.len() <= MAX_OPEN_DRIFTS => {
                outcome.drifts.push(difference.drift);
            }
            Finding::Drift(_) => {}
            Finding::Gap(gap) if outcome.gaps.len() < MAX_GAPS => outcome.gaps.push(gap.path),
            Finding::Gap(_) => outcome.more_gaps = true,
            Finding::Held(value) => {
                if let Some(held) = &mut outcome.held {
                    held.push(value);
                }
            }
        })?;
        outcome.coverage = summary.coverage;
        let filesystems = &baseline.manifest.header().filesystems;
        let labels = Labels::read(&self.root, filesystems, &outcome.drifts, &self.interrupt);
        outcome.packages = labels.into_owners();
        outcome
            .held
            .iter()
            .flatten()
            .for_each(|value| held.keep(value));
        if let Err(error) = held.save() {
            tracing::warn!(error = %Chain(&error), "held values are not remembered over a restart");
        }
        Ok(outcome)
    }
}

fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}
