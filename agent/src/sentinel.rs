//! Receives what scans found, what the collector answered and what time it is; hands on what to do.
//!
//! Pure: no I/O, no clock, no randomness. Every change of mind is one call of [`Sentinel::step`], and what it wants done
//! comes out as [`Action`]s, so a test can live through years of scans, losses and restarts in a second.
//!
//! ```text
//!              baseline refused            first full scan ended
//!  Starting ───────────────────▶ Starting ───────────────────────▶ Running ──goodbye──▶ Stopped
//!  nothing is opened or closed   (unverifiable)   a Whole          Changes
//! ```
//!
//! The invariant that the tests hold it to: once everything it sent is acknowledged, the set of drifts that the
//! collector replays is the set that the last scan, and the looks since, found. Whatever is lost on the way (a full
//! spool, a refused report, a collector restored from a backup) ends in a Whole, which needs nothing from before.
//!
//! A run that has not finished a full scan knows nothing: it opens and closes nothing, so that neither a restart nor a
//! missing manifest makes an instance look clean.

mod course;
mod coverage;
mod generation;
mod health;
mod looked;
mod news;
mod open;
mod set;
mod swept;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drift::TreePath;
use drift::class::Class;
use drift::coverage::Coverage;
use drift::finding::{Drift, DriftId, HostPackage};
use drift::report::{
    AgentBuild, ExecutingOrder, HeldPrefix, HeldValue, ImageRef, Phase, Report, RunId, Verdict,
};

use crate::clock::Now;
use crate::config::{ProbeMode, Schedule};
use crate::scan::Pass;
use crate::sweep::Swept;
use crate::watch::Sighting;
use course::Courses;

pub use health::Health;
use looked::Watching;
use news::News;
use open::Open;
pub use open::{Identified, OpenBefore};
pub use set::MAX_OPEN_DRIFTS;

/// What a sentinel is told once.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This start.
    pub run: RunId,
    /// The start before.
    pub previous_run: Option<RunId>,
    /// Who is speaking.
    pub agent: AgentBuild,
    /// This boot.
    pub boot_id: String,
    /// How often to scan.
    pub schedule: Schedule,
    /// What makes the probe unhealthy.
    pub probe_mode: ProbeMode,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The manifest verified.
    BaselineOpened(ImageRef),
    /// It did not, and this is why.
    BaselineRefused(String),
    /// A pass over the whole tree ended.
    ScanFinished(Box<Outcome>),
    /// A pass could not end, and this is why.
    ScanFailed(Pass, String),
    /// Something happened and was over before it could be held.
    Happened(Box<Drift>),
    /// The watch has begun, and sees this less, a sentence each.
    Watching(Vec<String>),
    /// The same, and it goes on where that of an agent before this one ended: nothing has happened unseen in between.
    Resumed(Vec<String>),
    /// The watch found what has become of paths that were changed.
    Seen(Box<Sighting>),
    /// The watch lost events between these moments, by time since boot, or nobody watched.
    Blind {
        /// When all was last seen.
        from: Duration,
        /// When it is seen again.
        until: Duration,
    },
    /// Only a pass over the tree can tell what the watch saw.
    InDoubt,
    /// Nothing is watched any more, and this is why.
    WatchEnded(String),
    /// A sweep of the processes ended.
    Swept(Box<Swept>),
    /// It could not, and this is why.
    SweepFailed(String),
    /// The collector has this report of this run.
    Acknowledged(Verdict),
    /// The collector has a report of an earlier run, and this is what it makes of us.
    AcknowledgedEarlier(Verdict),
    /// The collector will never have this report.
    Refused,
    /// The spool had no room: reports on states, on this many moments, or both, are lost.
    Dropped {
        /// Whether reports on states were lost.
        states: bool,
        /// How many moments were lost.
        moments: u64,
    },
    /// Time went by.
    Tick,
    /// The agent is to stop.
    Goodbye,
}

/// What one pass found.
#[derive(Debug)]
pub struct Outcome {
    /// Which pass.
    pub pass: Pass,
    /// When it began to look at what it tells, by time since boot: a full pass reads first, and looks at the end. None: when
    /// it began.
    pub looking_since: Option<Duration>,
    /// Everything that drifted, in any order.
    pub drifts: Vec<Arc<Identified>>,
    /// What the host's package database says of them. It changes what is shown and nothing else.
    pub packages: BTreeMap<TreePath, HostPackage>,
    /// Where it could not look.
    pub gaps: Vec<TreePath>,
    /// Whether there were more gaps than are listed.
    pub more_gaps: bool,
    /// Coverage with the record of this pass, age 0.
    pub coverage: Coverage,
    /// All values that are held; none while they may still change.
    pub held: Option<Vec<HeldValue>>,
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    /// Send this; it must survive a crash.
    Keep(Box<Report>),
    /// Send this if nothing else is waiting; the next one is as good.
    Mention(Box<Report>),
    /// Start a pass. This is open.
    Scan(Pass, OpenBefore),
    /// Sweep the processes. Of these files of the image it is known that they have other content.
    Sweep(BTreeSet<TreePath>),
    /// Answer the health probe so.
    Probe(Health),
}

/// The state machine.
#[derive(Debug)]
pub struct Sentinel {
    setup: Setup,
    phase: Phase,
    image: Option<ImageRef>,
    unverifiable: Option<String>,
    open: Open,
    packages: BTreeMap<TreePath, HostPackage>,
    watch: Watching,
    /// What was not told yet, and when it may be.
    news: News,
    next_telling: Duration,
    /// Moments that are to be told.
    untold: Vec<Drift>,
    overflowed: bool,
    held: Option<BTreeMap<TreePath, HeldValue>>,
    coverage: Coverage,
    limit: Option<String>,
    /// What is not refused, where programs that the image does not hold are.
    unguarded: Vec<String>,
    courses: Courses,
    whole: Whole,
    /// The last report of the last Whole: what the collector asks before it has that is answered already.
    whole_sequence: u64,
    sequence: u64,
    generation: u64,
    moments: u64,
    dropped_moments: u64,
    heartbeat: Duration,
    spoken: Option<Duration>,
    heard: Option<Duration>,
    order: Option<ExecutingOrder>,
    health: Option<Health>,
}

/// Whether the collector must be told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// As soon as there is something to tell: the first full scan has not ended.
    AtFirstScan,
    /// When the collector is there (`wanted`), and not before this time since boot.
    AtContact {
        wanted: bool,
        not_before: Duration,
        pause: Duration,
    },
}

/// Between two Wholes that the collector asks for; doubled each time, so that neither a collector that never agrees nor
/// a spool too small for a Whole keeps an instance busy.
const RESYNC_PAUSE: Duration = Duration::from_secs(2);
const MAX_RESYNC_PAUSE: Duration = Duration::from_secs(3600);
/// The collector's heartbeat setting is kept within these.
const HEARTBEAT_SECONDS: (u64, u64) = (1, 3600);

impl Sentinel {
    /// A sentinel that knows nothing yet.
    pub fn new(setup: Setup) -> Self {
        Sentinel {
            setup,
            phase: Phase::Starting,
            image: None,
            unverifiable: None,
            open: Open::default(),
            packages: BTreeMap::new(),
            watch: Watching::default(),
            news: News::default(),
            next_telling: Duration::ZERO,
            untold: Vec::new(),
            overflowed: false,
            held: None,
            coverage: Coverage::default(),
            limit: None,
            unguarded: Vec::new(),
            courses: Courses::default(),
            whole: Whole::AtFirstScan,
            whole_sequence: 0,
            sequence: 0,
            generation: 0,
            moments: 0,
            dropped_moments: 0,
            heartbeat: Duration::from_secs(60),
            spoken: None,
            heard: None,
            order: None,
            health: None,
        }
    }

    /// Takes in `event`, which happened at `now`, and gives `act` what is to be done about it.
    pub fn step(&mut self, event: Event, now: Now, act: &mut dyn FnMut(Action)) {
        match event {
            Event::BaselineOpened(image) => {
                self.image = Some(image);
                if self.unverifiable.take().is_some() {
                    self.mention(now, act);
                }
            }
            Event::BaselineRefused(reason) => self.baseline_refused(reason, now, act),
            Event::ScanFinished(outcome) => self.scan_finished(*outcome, now, act),
            Event::ScanFailed(pass, reason) => self.courses.of(pass).fail(reason, now.uptime),
            Event::Happened(drift) => {
                self.happened(*drift, now);
                self.tell_moments(now, act);
            }
            Event::Watching(limits) => self.watching(limits, now),
            Event::Resumed(limits) => self.resumed(limits),
            Event::Seen(seen) => self.seen(*seen, now, act),
            Event::Blind { from, until } => self.blind(from, until, now),
            Event::InDoubt => self.reconcile(now),
            Event::WatchEnded(reason) => self.watch_ended(reason),
            Event::Swept(swept) => self.swept(*swept, now, act),
            Event::SweepFailed(reason) => self.courses.processes.fail(reason, now.uptime),
            Event::Acknowledged(verdict) => {
                self.listen(&verdict, now);
                let asked = verdict.resend_all && verdict.acknowledged >= self.whole_sequence;
                self.resync(asked, now, act);
            }
            Event::AcknowledgedEarlier(verdict) => self.listen(&verdict, now),
            Event::Refused => self.want_whole(),
            Event::Dropped { states, moments } => {
                self.dropped_moments += moments;
                if states {
                    self.want_whole();
                }
            }
            Event::Tick => self.tick(now, act),
            Event::Goodbye => {
                self.phase = Phase::Stopped;
                self.mention(now, act);
            }
        }
        self.answer_probe(now, act);
    }

    /// How many drifts are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The drifts that are open, by id.
    pub fn open(&self) -> impl Iterator<Item = (&DriftId, &Drift)> {
        self.open.iter().map(|(it, _)| (&it.id, &it.drift))
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The image that it verifies against.
    pub fn image(&self) -> Option<&ImageRef> {
        self.image.as_ref()
    }

    /// Why it cannot verify.
    pub fn unverifiable(&self) -> Option<&str> {
        self.unverifiable.as_deref()
    }

    /// When the collector was last heard, by time since boot.
    pub fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// Moments that were lost.
    pub fn dropped_moments(&self) -> u64 {
        self.dropped_moments
    }

    fn baseline_refused(&mut self, reason: String, now: Now, act: &mut dyn FnMut(Action)) {
        self.courses.full.give_up(now.uptime);
        self.image = None;
        let is_news = self.unverifiable.as_ref() != Some(&reason);
        self.unverifiable = Some(reason);
        if is_news {
            self.mention(now, act);
        }
    }

    fn scan_finished(&mut self, outcome: Outcome, now: Now, act: &mut dyn FnMut(Action)) {
        let pass = outcome.pass;
        let began = self.record_pass(&outcome, now);
        let began = outcome.looking_since.unwrap_or(began);
        let news = self.take_over(outcome, began);
        if pass != Pass::Disk {
            self.reconciled(began);
        }
        if self.whole == Whole::AtFirstScan {
            if self.courses.full.ended.is_none() {
                return;
            }
            self.phase = Phase::Running;
            self.whole = Whole::AtContact {
                wanted: false,
                not_before: now.uptime,
                pause: RESYNC_PAUSE,
            };
            self.tell_whole(now, act);
        } else {
            self.news.add(news);
            self.tell_news(now, act);
        }
    }

    fn listen(&mut self, verdict: &Verdict, now: Now) {
        self.heard = Some(now.uptime);
        self.order = verdict.order.clone();
        let (least, most) = HEARTBEAT_SECONDS;
        self.heartbeat = Duration::from_secs(verdict.settings.heartbeat_seconds.clamp(least, most));
    }

    /// The collector is there: tells it everything if that is wanted by either side, and the pause is over.
    fn resync(&mut self, asked: bool, now: Now, act: &mut dyn FnMut(Action)) {
        let Whole::AtContact {
            wanted,
            not_before,
            pause,
        } = self.whole
        else {
            return;
        };
        if !asked && !wanted {
            self.whole = Whole::AtContact {
                wanted,
                not_before,
                pause: RESYNC_PAUSE,
            };
            return;
        }
        if now.uptime < not_before {
            self.whole = Whole::AtContact {
                wanted,
                not_before,
                pause,
            };
            return;
        }
        self.tell_whole(now, act);
        self.whole = Whole::AtContact {
            wanted: false,
            not_before: now.uptime + pause,
            pause: (pause * 2).min(MAX_RESYNC_PAUSE),
        };
    }

    fn want_whole(&mut self) {
        if let Whole::AtContact { wanted, .. } = &mut self.whole {
            *wanted = true;
        }
    }

    fn whole_is_wanted(&self) -> bool {
        matches!(self.whole, Whole::AtContact { wanted: true, .. })
    }

    fn tick(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        for pass in [Pass::Full, Pass::Quick, Pass::Disk] {
            if self.is_due(pass, now.uptime) {
                self.courses.of(pass).begin(now.uptime);
                act(Action::Scan(pass, OpenBefore::of(&self.open)));
            }
        }
        if self.sweep_is_due(now.uptime) {
            self.courses.processes.begin(now.uptime);
            act(Action::Sweep(self.drifted_files()));
        }
        self.tell_news_in_time(now, act);
        if self
            .spoken
            .is_none_or(|spoken| now.uptime.saturating_sub(spoken) >= self.heartbeat)
        {
            self.mention(now, act);
        }
    }

    /// A report with nothing in it: a heartbeat.
    fn mention(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        self.tell_news(now, act);
        let report = self.report(now);
        act(Action::Mention(Box::new(report)));
    }

    fn answer_probe(&mut self, now: Now, act: &mut dyn FnMut(Action)) {
        let health = self.judge_health(now.uptime);
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            act(Action::Probe(health));
        }
    }
}

/// Of the agent's own files: program, unit, configuration, manifest and what that is trusted by.
fn is_own(drift: &Drift) -> bool {
    drift.class == Class::Sentinel
}

/// What makes two sights of a held value the same news: of an append-only file that is held, its held beginning.
fn essence(held: &HeldValue) -> (Option<drift::Blake3>, Option<HeldPrefix>) {
    match &held.prefix {
        Some(prefix) => (None, Some(prefix.clone())),
        None => (held.value, None),
    }
}

#[cfg(test)]
mod tests;
