//! Receives orders to scan; hands back what was found. On a thread of its own, at the lowest priority.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as orders;
use std::time::Duration;

use drift::TreePath;
use drift::compare::Finding;
use drift::finding::Drift;
use drift::report::ImageRef;
use tokio::sync::mpsc;

use crate::baseline::{Baseline, BaselinePaths};
use crate::config::{Config, Pace, Schedule};
use crate::held::HeldCache;
use crate::log::Chain;
use crate::pace::{Budget, Pacer, Pressure, Urgency};
use crate::packages::Labels;
use crate::scan::{Order, Pass, Progress, ScanRequest, Verified, scan};
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
    Failed(Pass, String),
}

/// The threads that scan, from outside: a sweep of the disk takes its time, and has one of its own.
#[derive(Debug)]
pub(super) struct Scanner {
    scan: Lane,
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

#[derive(Debug, Clone, Copy)]
struct Ordered {
    pass: Pass,
    holds: bool,
}

/// A scan without any progress for this long hangs, and the watchdog may end it. A disk that retries a bad sector takes
/// minutes, not this.
const STALL: Duration = Duration::from_secs(600);
/// The first full scan may take so long: until then nobody knows how this instance is, and a replacement waits for it.
const FIRST_WITHIN: Duration = Duration::from_secs(120);
/// Where more than this could not be read, the rest is counted and everything that was open stays open.
const MAX_GAPS: usize = 10_000;

impl Scanner {
    /// Starts the thread. It opens the manifest at once and says how that went.
    pub(super) fn start(
        config: &Config,
        state_directory: &Path,
    ) -> std::io::Result<(Self, mpsc::Receiver<Said>)> {
        let (said, hearing) = mpsc::channel(4);
        let interrupt = Arc::new(AtomicBool::new(false));
        let doubt = Arc::new(AtomicBool::new(false));
        let work = |progress: &Arc<AtomicU64>| Work {
            paths: BaselinePaths {
                manifest: config.image.manifest.clone(),
                signature: config.image.signature.clone(),
                trust: config.image.trust.clone(),
            },
            root: config.root.clone(),
            threads: config.threads.unwrap_or_else(half_of_the_processors),
            schedule: config.schedule,
            max_bytes_per_second: match config.pace {
                Pace::Adaptive => Some(config.max_bytes_per_second),
                Pace::Unpaced => None,
            },
            state_directory: state_directory.to_owned(),
            interrupt: interrupt.clone(),
            progress: progress.clone(),
            doubt: doubt.clone(),
        };
        let sweeping = said.clone();
        let scanner = Scanner {
            scan: Lane::start("scan", &work, move |work, orders| {
                work.until_closed(orders, &said);
            })?,
            sweep: Lane::start("sweep", &work, move |work, orders| {
                work.sweep_until_closed(orders, &sweeping);
            })?,
            interrupt,
        };
        Ok((scanner, hearing))
    }

    /// Orders a pass; `holds` says whether what may change once may no longer change.
    pub(super) fn order(&mut self, pass: Pass, holds: bool, uptime: Duration) {
        let lane = self.lane(pass);
        lane.is_busy = lane.orders.try_send(Ordered { pass, holds }).is_ok();
        lane.seen = (lane.progress.load(Ordering::Relaxed), uptime);
    }

    /// The pass ended.
    pub(super) fn rests(&mut self, pass: Pass) {
        self.lane(pass).is_busy = false;
    }

    /// Whether a pass is going on.
    pub(super) fn is_busy(&self) -> bool {
        self.scan.is_busy || self.sweep.is_busy
    }

    /// Whether every pass that is going on got anywhere lately.
    pub(super) fn makes_progress(&mut self, uptime: Duration) -> bool {
        let lanes = [&mut self.scan, &mut self.sweep];
        lanes.map(|lane| lane.makes_progress(uptime)) == [true, true]
    }

    fn lane(&mut self, pass: Pass) -> &mut Lane {
        match pass {
            Pass::Full | Pass::Quick => &mut self.scan,
            Pass::Disk => &mut self.sweep,
        }
    }

    /// Ends a pass that is going on, soon.
    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }
}

impl Lane {
    fn start(
        name: &str,
        work: &dyn Fn(&Arc<AtomicU64>) -> Work,
        run: impl FnOnce(Work, &orders::Receiver<Ordered>) + Send + 'static,
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

/// A thread, from inside.
struct Work {
    paths: BaselinePaths,
    root: PathBuf,
    threads: usize,
    schedule: Schedule,
    /// None where nothing keeps it back.
    max_bytes_per_second: Option<u64>,
    state_directory: PathBuf,
    interrupt: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    /// A sweep has found what a quick pass may not find by what it trusts.
    doubt: Arc<AtomicBool>,
}

impl Work {
    fn until_closed(self, orders: &orders::Receiver<Ordered>, said: &mpsc::Sender<Said>) {
        self.make_way();
        let mut held = HeldCache::open(&self.state_directory).unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "held values are not remembered");
            HeldCache::default()
        });
        let mut verified = Verified::default();
        let mut baseline = self.open(said);
        let (mut is_fresh, mut is_first) = (true, true);
        while let Ok(order) = orders.recv() {
            // A manifest that was replaced is noticed at the next full pass, not only at the next start.
            if baseline.is_none() || (order.pass == Pass::Full && !is_fresh) {
                baseline = self.open(said);
            }
            is_fresh = false;
            let Some(baseline) = &baseline else { continue };
            let looks_first = match is_first {
                true => Order::RunsFirst,
                false => Order::OfPaths,
            };
            if self.doubt.swap(false, Ordering::Relaxed) {
                verified = Verified::default();
            }
            let how = (order, looks_first);
            let saying = match self.scan(baseline, how, &mut verified, &mut held) {
                Ok(outcome) => {
                    is_first = false;
                    Said::Finished(Box::new(outcome))
                }
                Err(error) => Said::Failed(order.pass, Chain(&error).to_string()),
            };
            if said.blocking_send(saying).is_err() {
                return;
            }
            // What a scan used is six times what the daemon needs between scans.
            driftmark_kernel::process::trim_heap();
        }
    }

    /// Sweeps the disk. What other passes trust, hold and say of the manifest is theirs.
    fn sweep_until_closed(self, orders: &orders::Receiver<Ordered>, said: &mpsc::Sender<Said>) {
        self.make_way();
        while let Ok(order) = orders.recv() {
            let (nothing, none_held) = (&mut Verified::default(), &mut HeldCache::default());
            let swept = match Baseline::open(&self.paths) {
                Ok(baseline) => self
                    .scan(&baseline, (order, Order::OfPaths), nothing, none_held)
                    .map_err(|error| Chain(&error).to_string()),
                Err(error) => Err(Chain(&error).to_string()),
            };
            let saying = match swept {
                Ok(outcome) => {
                    let is_seen = |drift: &Drift| !drift.is_on_disk_alone();
                    if outcome.drifts.iter().any(is_seen) {
                        self.doubt.store(true, Ordering::Relaxed);
                    }
                    Said::Finished(Box::new(outcome))
                }
                Err(reason) => Said::Failed(order.pass, reason),
            };
            if said.blocking_send(saying).is_err() {
                return;
            }
            driftmark_kernel::process::trim_heap();
        }
    }

    /// The threads that a scan starts inherit it. Where it is refused, a scan is merely less polite.
    fn make_way(&self) {
        let _ = rustix::process::setpriority_process(None, 19);
        if self.max_bytes_per_second.is_none() {
            return;
        }
        if let Err(error) = driftmark_kernel::process::be_idle_at_the_disk() {
            tracing::debug!(%error, "scans are not of the disk's idle class");
        }
        if !Pressure::open().is_told() {
            tracing::info!(
                "this kernel does not tell who waits for what: scans make way by what they use alone"
            );
        }
    }

    /// What keeps a pass back that begins now.
    fn pacer(&self, pass: Pass, order: Order) -> Option<Pacer> {
        let (within, urgency) = match (pass, order) {
            (Pass::Full, Order::RunsFirst) => (FIRST_WITHIN, Urgency::Awaited),
            (Pass::Quick, _) => (self.schedule.quick, Urgency::Awaited),
            (Pass::Full | Pass::Disk, _) => (self.schedule.finish, Urgency::Routine),
        };
        let budget = Budget {
            bytes_per_second: self.max_bytes_per_second?,
            within: within.min(self.schedule.finish),
            urgency,
        };
        Some(Pacer::new(budget, Pressure::open()))
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
        (order, looks_first): (Ordered, Order),
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
            // What is held is what processes see.
            held: (order.holds && order.pass != Pass::Disk).then(Vec::new),
        };
        let count = |_: Progress| {
            self.progress.fetch_add(1, Ordering::Relaxed);
        };
        let held_length = |path: &TreePath| held.length_of(path);
        let pacer = self.pacer(order.pass, looks_first);
        let request = ScanRequest {
            baseline,
            root: &self.root,
            pass: order.pass,
            threads: self.threads,
            held_length: &held_length,
            interrupt: &self.interrupt,
            pace: pacer.as_ref(),
            order: looks_first,
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
        if order.pass != Pass::Disk
            && let Err(error) = held.save()
        {
            tracing::warn!(error = %Chain(&error), "held values are not remembered over a restart");
        }
        Ok(outcome)
    }
}

fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}
