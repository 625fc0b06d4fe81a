//! Orders to scan in, what was found out; from inside the threads that do it.
//!
//! What processes see is told by one pass at a time, the quick ones: so what is told is of now, in the order in which it
//! was seen, and nothing is closed because somebody had looked before it was opened. A full pass reads beside them for as
//! long as it takes, and marks what is well. When it has ended, a quick pass over its marks looks at all else at once, and
//! tells what it finds for both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as orders;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use drift::TreePath;
use drift::compare::Finding;
use drift::coverage::Coverage;
use tokio::sync::mpsc;

use super::{Ordered, Said};
use crate::baseline::{Baseline, BaselineError, BaselinePaths};
use crate::clock::Now;
use crate::config::Schedule;
use crate::held::HeldCache;
use crate::log::Chain;
use crate::pace::{Budget, Pacer, Pressure, Urgency};
use crate::packages::Labels;
use crate::scan::{
    Order, Pass, Progress, ScanError, ScanRequest, ScanSummary, Sink, Verified, scan,
};
use crate::sentinel::{Identified, MAX_OPEN_DRIFTS, Outcome};

/// The first full scan may take so long: until then nobody knows how this instance is, and a replacement waits for it.
const FIRST_WITHIN: Duration = Duration::from_secs(120);
/// Where more than this could not be read, the rest is counted and everything that was open stays open.
const MAX_GAPS: usize = 10_000;
/// Who waits for its turn asks so often whether all is to end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// A thread, from inside.
pub(super) struct Work {
    pub(super) paths: BaselinePaths,
    pub(super) root: PathBuf,
    pub(super) threads: usize,
    pub(super) schedule: Schedule,
    /// None where nothing keeps it back.
    pub(super) max_bytes_per_second: Option<u64>,
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) held: Arc<Mutex<HeldCache>>,
    pub(super) said: mpsc::Sender<Said>,
    pub(super) interrupt: Arc<AtomicBool>,
    pub(super) progress: Arc<AtomicU64>,
}

/// What passes go by. Whoever has it is the one that tells what processes see.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The manifest, as it verified when the last full pass began.
    baseline: Option<Arc<Baseline>>,
    verified: Verified,
    /// A full pass reads, and goes by the blocks of the manifest.
    full_reads: bool,
}

/// Why a pass tells nothing.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// What there was was refused a moment ago.
    #[error("no manifest is verified")]
    NoManifest,
}

impl Work {
    pub(super) fn full_until_closed(self, orders: &orders::Receiver<Ordered>) {
        self.make_way();
        let (mut is_open, mut is_first) = (self.open_baseline(), true);
        while let Ok(order) = orders.recv() {
            // A manifest that was replaced is noticed at the next full pass, not only at the next start.
            let is_open = std::mem::take(&mut is_open) || self.open_baseline();
            if !is_open {
                continue;
            }
            let looks_first = match is_first {
                true => Order::RunsFirst,
                false => Order::OfPaths,
            };
            let read = self.read_all(&order, looks_first);
            let is_heard = self.in_turn(order.pass, |known| {
                known.full_reads = false;
                let (full, verified) = read?;
                known.verified.take_over(verified);
                let outcome = self.look_after(full, &order, known)?;
                is_first = false;
                Ok(outcome)
            });
            if !is_heard {
                return;
            }
        }
    }

    pub(super) fn quick_until_closed(self, orders: &orders::Receiver<Ordered>) {
        self.make_way();
        while let Ok(order) = orders.recv() {
            if !self.in_turn(order.pass, |known| self.quick(&order, known)) {
                return;
            }
        }
    }

    /// Sweeps the disk. What other passes hold and say of the manifest is theirs.
    pub(super) fn sweep_until_closed(self, orders: &orders::Receiver<Ordered>) {
        self.make_way();
        while let Ok(order) = orders.recv() {
            let swept = Baseline::open(&self.paths)
                .map_err(PassError::from)
                .and_then(|baseline| {
                    let mut nothing = Verified::default();
                    self.find(&baseline, (&order, Order::OfPaths), &mut nothing)
                });
            let is_heard = self.in_turn(order.pass, |known| {
                let outcome = swept?;
                // It has found what a quick pass may not find by what it trusts.
                let is_seen = |it: &Arc<Identified>| !it.drift.is_on_disk_alone();
                if outcome.drifts.iter().any(is_seen) {
                    known.verified.begin_anew();
                }
                Ok(outcome)
            });
            if !is_heard {
                return;
            }
        }
    }

    /// Reads everything, while quick passes go on. What it marks is what is well; all else is looked at afterwards.
    fn read_all(
        &self,
        order: &Ordered,
        looks_first: Order,
    ) -> Result<(ScanSummary, Verified), PassError> {
        let (baseline, mut verified) = {
            let mut known = self.turn()?;
            let baseline = known.baseline.clone().ok_or(PassError::NoManifest)?;
            known.full_reads = true;
            (baseline, known.verified.beside())
        };
        let how = (order.pass, looks_first);
        let summary = self.scan(&baseline, how, &mut verified, &mut |_| {})?;
        Ok((summary, verified))
    }

    /// The quick pass after a full one.
    fn look_after(
        &self,
        full: ScanSummary,
        order: &Ordered,
        known: &mut Known,
    ) -> Result<Outcome, PassError> {
        let order = Ordered {
            pass: Pass::Quick,
            ..order.clone()
        };
        let looking_since = Some(Now::read().uptime);
        let mut outcome = self.quick(&order, known)?;
        outcome.pass = Pass::Full;
        outcome.looking_since = looking_since;
        outcome.coverage.quick = None;
        outcome.coverage.seen = full.coverage.seen;
        outcome.coverage = outcome.coverage.noted();
        Ok(outcome)
    }

    fn quick(&self, order: &Ordered, known: &mut Known) -> Result<Outcome, PassError> {
        let baseline = known.baseline.as_ref().ok_or(PassError::NoManifest)?;
        self.find(baseline, (order, Order::OfPaths), &mut known.verified)
    }

    /// Opens the manifest and says how that went, before any pass that goes by it. Whether there is one.
    fn open_baseline(&self) -> bool {
        let Ok(mut known) = self.turn() else {
            return false;
        };
        // Not two at once.
        known.baseline = None;
        let saying = match Baseline::open(&self.paths) {
            Ok(baseline) => {
                let baseline = Arc::new(baseline);
                known.baseline = Some(Arc::clone(&baseline));
                Said::Opened {
                    image: baseline.image(),
                    build_time: baseline.build_time(),
                    baseline,
                }
            }
            Err(error) => Said::Refused(Chain(&error).to_string()),
        };
        self.said.blocking_send(saying).is_ok() && known.baseline.is_some()
    }

    /// Does what ends a pass while no other tells anything, and says what came of it before another may. Whether anybody
    /// listens.
    fn in_turn(
        &self,
        pass: Pass,
        end: impl FnOnce(&mut Known) -> Result<Outcome, PassError>,
    ) -> bool {
        let is_heard = match self.turn() {
            Ok(mut known) => {
                let saying = match end(&mut known) {
                    Ok(outcome) => Said::Finished(Box::new(outcome)),
                    Err(error) => Said::Failed(pass, Chain(&error).to_string()),
                };
                // The watch reads a block again for a look.
                if let Some(baseline) = known.baseline.as_ref().filter(|_| !known.full_reads) {
                    baseline.manifest.forget_blocks();
                }
                self.said.blocking_send(saying).is_ok()
            }
            Err(error) => {
                let saying = Said::Failed(pass, Chain(&error).to_string());
                self.said.blocking_send(saying).is_ok()
            }
        };
        // What a scan used is six times what the daemon needs between scans.
        driftmark_kernel::process::trim_heap();
        is_heard
    }

    /// Waits until no other pass tells anything. Who waits does not hang: the other one makes progress, or is seen to
    /// hang itself.
    fn turn(&self) -> Result<MutexGuard<'_, Known>, ScanError> {
        loop {
            match self.known.try_lock() {
                Ok(known) => return Ok(known),
                Err(TryLockError::Poisoned(known)) => return Ok(known.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(ScanError::Interrupted);
            }
            self.progress.fetch_add(1, Ordering::Relaxed);
            std::thread::park_timeout(LOOK_UP);
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

    /// Scans, and keeps what it finds.
    fn find(
        &self,
        baseline: &Baseline,
        (order, looks_first): (&Ordered, Order),
        verified: &mut Verified,
    ) -> Result<Outcome, PassError> {
        let mut outcome = Outcome {
            pass: order.pass,
            looking_since: None,
            drifts: Vec::new(),
            packages: BTreeMap::new(),
            gaps: Vec::new(),
            more_gaps: false,
            coverage: Coverage::default(),
            // What is held is what processes see.
            held: (order.holds && order.pass != Pass::Disk).then(Vec::new),
        };
        let how = (order.pass, looks_first);
        let summary = self.scan(baseline, how, verified, &mut |finding| match finding {
            Finding::Drift(difference) if outcome.drifts.len() <= MAX_OPEN_DRIFTS => {
                outcome.drifts.push(order.open.identified(difference.drift));
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
        let drifts = outcome.drifts.iter().map(|it| &it.drift);
        let labels = Labels::read(&self.root, filesystems, drifts, &self.interrupt);
        outcome.packages = labels.into_owners();
        self.hold(&outcome);
        Ok(outcome)
    }

    fn scan(
        &self,
        baseline: &Baseline,
        (pass, looks_first): (Pass, Order),
        verified: &mut Verified,
        sink: &mut Sink<'_>,
    ) -> Result<ScanSummary, ScanError> {
        let count = |_: Progress| {
            self.progress.fetch_add(1, Ordering::Relaxed);
        };
        // A sweep sees nothing of what is held.
        let held_length = |path: &TreePath| match pass {
            Pass::Disk => None,
            Pass::Full | Pass::Quick => self.held().length_of(path),
        };
        let pacer = self.pacer(pass, looks_first);
        let request = ScanRequest {
            baseline,
            root: &self.root,
            pass,
            threads: self.threads,
            held_length: &held_length,
            interrupt: &self.interrupt,
            pace: pacer.as_ref(),
            order: looks_first,
            progress: &count,
        };
        scan(&request, verified, sink)
    }

    fn hold(&self, outcome: &Outcome) {
        let mut held = self.held();
        let values = outcome.held.iter().flatten();
        values.for_each(|value| held.keep(value));
        if let Err(error) = held.save() {
            tracing::warn!(error = %Chain(&error), "held values are not remembered over a restart");
        }
    }

    fn held(&self) -> MutexGuard<'_, HeldCache> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn half_of_the_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}
