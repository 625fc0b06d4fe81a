//! Receives the manifest that holds; keeps a watch on what it holds, and hands on what that tells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use drift::attribution::Attribution;
use drift::compare::{Code, Stray, judge_code};
use drift::finding::Drift;
use drift::{Blake3, TreePath};
use tokio::sync::mpsc;

use crate::baseline::Baseline;
use crate::config::{Config, Watches};
use crate::log::Chain;
use crate::run::last_seen::LastSeen;
use crate::sentinel::Event;
use crate::supervise::Keeper;
use crate::watch::attribution::CommandLine;
use crate::watch::{LiveWatch, Order, Told};

/// The watch, from outside.
#[derive(Debug)]
pub(super) struct Sight {
    root: PathBuf,
    watches: Watches,
    command_line: CommandLine,
    told: mpsc::Sender<Word>,
    keeper: Arc<Keeper>,
    seen: LastSeen,
    /// The manifest that it is about, and the watch.
    now: Option<(Blake3, LiveWatch)>,
    /// How many have begun: what one before still had to say is about another manifest.
    number: u64,
    /// Programs that are not the image's, and were told of when they were started.
    started: BTreeSet<TreePath>,
}

/// More programs than this are told again by a sweep.
const MOST_STARTED: usize = 256;

/// What a watch tells, and which one.
pub(super) type Word = (u64, Told);

/// What waits for the daemon: whoever looks waits with it, and so looks at more in one go.
const QUEUED: usize = 4;

impl Sight {
    /// Nothing is watched before the first manifest.
    pub(super) fn new(config: &Config, keeper: &Arc<Keeper>) -> (Self, mpsc::Receiver<Word>) {
        let (told, hearing) = mpsc::channel(QUEUED);
        let sight = Sight {
            root: config.root.clone(),
            watches: config.watches,
            command_line: config.command_line,
            told,
            keeper: Arc::clone(keeper),
            seen: LastSeen::open(&config.status_socket),
            now: None,
            number: 0,
            started: BTreeSet::new(),
        };
        (sight, hearing)
    }

    /// Watches what this manifest holds, from now on. Gives what is to be said of it at once.
    pub(super) fn watch(&mut self, baseline: Arc<Baseline>) -> Option<Event> {
        let manifest = baseline.manifest.identity().blake3;
        if self.now.as_ref().is_some_and(|(of, _)| *of == manifest) {
            return None;
        }
        // The one before ends first: it would tell what is against another manifest.
        self.now = None;
        if self.watches == Watches::Nothing {
            self.keeper.keep_only(&[]);
            let reason = "it is switched off (`watch.enabled`)";
            return Some(Event::WatchEnded(reason.to_owned()));
        }
        let order = Order {
            baseline,
            root: self.root.clone(),
            command_line: self.command_line,
            keeper: Arc::clone(&self.keeper),
            seen_until: self.seen.by_another.take(),
        };
        self.number += 1;
        let (told, number) = (self.told.clone(), self.number);
        // Once the daemon ends nobody listens any more.
        let tell = move |saying| drop(told.blocking_send((number, saying)));
        match LiveWatch::start(order, tell) {
            Ok(watch) => {
                self.now = Some((manifest, watch));
                None
            }
            // Tried again when the manifest is opened next.
            Err(error) => Some(Event::WatchEnded(Chain(&error).to_string())),
        }
    }

    /// Keeps until when all was seen, for the next start. Call it once a second.
    pub(super) fn tick(&self) {
        let until = self.now.as_ref().map(|(_, watch)| watch.seen_until());
        if let Some(until) = until.filter(|until| !until.is_zero()) {
            self.seen.note(until);
        }
    }

    /// No manifest holds: there is nothing to hold anything against.
    pub(super) fn rest(&mut self) {
        self.now = None;
    }

    /// Has these looked at, as changed by whoever is named.
    pub(super) fn look_at(&self, paths: BTreeMap<TreePath, Arc<Attribution>>) {
        if let Some((_, watch)) = self.now.as_ref().filter(|_| !paths.is_empty()) {
            watch.look_at(paths);
        }
    }

    /// Whether the watch told of this already: that a program runs which it saw being started.
    pub(super) fn has_told(&self, drift: &Drift) -> bool {
        let is_it = || judge_code(&drift.path, Code::Program, Stray::Foreign).id() == drift.id();
        self.started.contains(&drift.path) && is_it()
    }

    /// How many programs containers were seen to start, by the watch that there is.
    pub(super) fn container_starts(&self) -> u64 {
        let watch = self.now.as_ref().map(|(_, watch)| watch);
        watch.map_or(0, LiveWatch::container_starts)
    }

    /// What the sentinel makes of what is told; the log has what somebody should know.
    pub(super) fn hear(&mut self, (number, told): Word) -> Option<Event> {
        if self.now.is_none() || number != self.number {
            return None;
        }
        Some(match told {
            Told::Watching { limits, is_resumed } => match is_resumed {
                true => {
                    tracing::info!(?limits, "the watch goes on where the one before it ended");
                    Event::Resumed(limits)
                }
                false => {
                    tracing::info!(?limits, "the watch begins");
                    Event::Watching(limits)
                }
            },
            Told::Seen(seen) => {
                if !seen.drifts.is_empty() {
                    let first = seen.drifts.first().map(|drift| drift.path.to_string());
                    let by = seen
                        .drifts
                        .first()
                        .and_then(|drift| seen.actor(&drift.path)?.process.as_ref())
                        .and_then(|process| process.executable.as_ref())
                        .map(|executable| executable.path.as_str());
                    tracing::info!(drifts = seen.drifts.len(), first, by, "the watch saw drift");
                }
                Event::Seen(seen)
            }
            Told::Blind { from, until } => {
                let milliseconds = until.saturating_sub(from).as_millis() as u64;
                tracing::warn!(
                    milliseconds,
                    "nothing was watched for a while, or events were lost"
                );
                Event::Blind { from, until }
            }
            Told::Executed(drift) => {
                if self.started.len() >= MOST_STARTED {
                    self.started.clear();
                }
                self.started.insert(drift.path.clone());
                let path = drift.path.to_string();
                tracing::warn!(
                    path,
                    "a program that the image does not contain was started"
                );
                Event::Happened(drift)
            }
            Told::InDoubt => Event::InDoubt,
            Told::Ended(reason) => {
                tracing::error!(reason, "nothing is watched between scans");
                // Tried again when the manifest is opened next.
                self.now = None;
                Event::WatchEnded(reason)
            }
        })
    }
}
