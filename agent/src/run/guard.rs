//! Receives the manifest that holds; keeps programs that it does not hold from running, where that is configured, and hands
//! on what that tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use driftmark_kernel::boot;
use tokio::sync::mpsc;

use crate::baseline::Baseline;
use crate::config::{Config, Enforce};
use crate::enforce::{Guard, Mode, Order, Told};
use crate::log::Chain;
use crate::sentinel::Event;
use crate::watch::attribution::CommandLine;

/// The guard, from outside.
#[derive(Debug)]
pub(super) struct Guards {
    mode: Option<Mode>,
    root: PathBuf,
    allow: Vec<PathBuf>,
    command_line: CommandLine,
    off_switch: PathBuf,
    told: mpsc::Sender<Word>,
    /// What is held against, while something is.
    baseline: Option<Arc<Baseline>>,
    state: State,
    /// How many have begun: what one before still had to say counts no more.
    number: u64,
}

/// What a guard tells, and which one.
pub(super) type Word = (u64, Told);

#[derive(Debug)]
enum State {
    /// There is nothing to hold anything against.
    Resting,
    Guarding {
        guard: Guard,
        limits: Vec<String>,
    },
    /// For as long as somebody says so.
    SwitchedOff,
    /// It is tried again after a while: this is when it ended, by time since boot.
    Ended {
        reason: String,
        at: Duration,
    },
}

/// What waits for the daemon. Whoever asks whether it may run waits for none of it.
const QUEUED: usize = 16;
/// A stopped agent keeps programs waiting that nobody has run yet, until the service manager ends it. So it is to look
/// this often.
pub(super) const WATCHED_WITHIN: Duration = Duration::from_secs(20);
/// A guard that has ended begins again after this.
const RETRY: Duration = Duration::from_secs(60);
/// Beside the status socket; root's to make.
const OFF_SWITCH: &str = "enforce-off";

impl Guards {
    /// Nothing is guarded before the first manifest.
    pub(super) fn new(config: &Config) -> (Self, mpsc::Receiver<Word>) {
        let (told, hearing) = mpsc::channel(QUEUED);
        let guards = Guards {
            mode: match config.enforce {
                Enforce::Off => None,
                Enforce::On(mode) => Some(mode),
            },
            root: config.root.clone(),
            allow: config.enforce_allow.clone(),
            command_line: config.command_line,
            off_switch: config.status_socket.with_file_name(OFF_SWITCH),
            told,
            baseline: None,
            state: State::Resting,
            number: 0,
        };
        (guards, hearing)
    }

    /// Nothing is guarded, whatever is configured.
    pub(super) fn never(&mut self) {
        self.mode = None;
    }

    /// Whether anything may ever be guarded.
    pub(super) fn may_guard(&self) -> bool {
        self.mode.is_some()
    }

    /// Holds to what this manifest holds, from now on.
    pub(super) fn guard(&mut self, baseline: Arc<Baseline>) {
        let same = |before: &Arc<Baseline>| {
            before.manifest.identity().blake3 == baseline.manifest.identity().blake3
        };
        if self.mode.is_none() || self.baseline.as_ref().is_some_and(same) {
            return;
        }
        self.baseline = Some(baseline);
        self.begin();
    }

    /// No manifest holds: everything runs.
    pub(super) fn rest(&mut self) {
        self.baseline = None;
        self.state = State::Resting;
    }

    /// Looks whether it is switched off, or to be tried again. Says whether there is any news.
    pub(super) fn look(&mut self, uptime: Duration) -> bool {
        if self.baseline.is_none() {
            return false;
        }
        match (self.is_switched_off(), &self.state) {
            (true, State::Guarding { .. }) => {
                tracing::warn!(switch = %self.off_switch.display(), "programs are not refused any more");
                self.state = State::SwitchedOff;
            }
            (false, State::SwitchedOff) => self.begin(),
            (_, State::Ended { at, .. }) if uptime.saturating_sub(*at) >= RETRY => self.begin(),
            _ => return false,
        }
        true
    }

    /// What the sentinel makes of what is told; the log has what somebody should know.
    pub(super) fn hear(&mut self, (number, told): Word) -> Option<Event> {
        let State::Guarding { limits, .. } = &mut self.state else {
            return None;
        };
        if number != self.number {
            return None;
        }
        match told {
            Told::Guarding { limits: now } => {
                tracing::info!(limits = ?now, mode = self.word(), "programs are guarded");
                if let State::Guarding { limits, .. } = &mut self.state {
                    *limits = now;
                }
                None
            }
            Told::Foreign(drift) => {
                let path = drift.path.to_string();
                let outcome = drift.detail.as_deref();
                tracing::warn!(path, outcome, "a program that the image does not hold");
                Some(Event::Happened(drift))
            }
            Told::Ended(reason) => {
                limits.clear();
                tracing::error!(reason, "programs are not refused any more");
                self.state = ended(reason);
                None
            }
        }
    }

    /// What runs although it should not, a sentence each.
    pub(super) fn limits(&self) -> Vec<String> {
        let why = match &self.state {
            State::Resting => return Vec::new(),
            State::Guarding { limits, .. } => return limits.clone(),
            State::SwitchedOff => format!("{} says so", self.off_switch.display()),
            State::Ended { reason, .. } => reason.clone(),
        };
        vec![format!(
            "programs that the image does not hold are not refused: {why}"
        )]
    }

    /// For people; none where nothing is ever guarded.
    pub(super) fn status(&self) -> Option<String> {
        self.mode?;
        let State::Guarding { guard, .. } = &self.state else {
            let why = self.limits().pop();
            return Some(
                why.unwrap_or_else(|| "there is no manifest to hold programs against".into()),
            );
        };
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let counts = &guard.counts;
        Some(format!(
            "{}: {} not of the image ({} of them not named), {} of containers, {} not to be told, {} lost",
            self.word(),
            count(&counts.foreign),
            count(&counts.unnamed),
            count(&counts.containers),
            count(&counts.untold),
            count(&counts.lost),
        ))
    }

    fn begin(&mut self) {
        // The one before ends first.
        self.state = State::Resting;
        let (Some(mode), Some(baseline)) = (self.mode, &self.baseline) else {
            return;
        };
        if self.is_switched_off() {
            self.state = State::SwitchedOff;
            return;
        }
        let order = Order {
            baseline: Arc::clone(baseline),
            root: self.root.clone(),
            mode,
            allow: self.allow.clone(),
            off_switch: self.off_switch.clone(),
            command_line: self.command_line,
        };
        self.number += 1;
        let (told, number) = (self.told.clone(), self.number);
        // Once the daemon ends nobody listens any more.
        let tell = move |saying| drop(told.blocking_send((number, saying)));
        self.state = match Guard::start(order, tell) {
            Ok(guard) => State::Guarding {
                guard,
                limits: vec!["programs are not guarded yet".to_owned()],
            },
            Err(error) => ended(Chain(&error).to_string()),
        };
    }

    fn is_switched_off(&self) -> bool {
        self.off_switch.exists()
    }

    fn word(&self) -> &'static str {
        self.mode.map_or("off", |mode| Enforce::On(mode).word())
    }
}

fn ended(reason: String) -> State {
    let at = Duration::from_nanos(boot::boottime_ns());
    State::Ended { reason, at }
}
