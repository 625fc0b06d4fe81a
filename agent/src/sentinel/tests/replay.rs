//! Whatever is lost on the way, what a collector replays ends as what the agent found.

use std::collections::{BTreeSet, VecDeque};

use drift::finding::set_digest;
use drift::report::StateUpdate;
use proptest::prelude::*;

use super::*;

/// What a collector makes of reports: generations applied when complete, numbers taken once.
#[derive(Default)]
pub(super) struct Collector {
    seen: BTreeSet<(RunId, u64)>,
    parts: Vec<Report>,
    pub(super) open: BTreeSet<DriftId>,
    pub(super) mismatch: bool,
}

impl Collector {
    pub(super) fn take(&mut self, report: &Report) -> Verdict {
        report.check_limits().unwrap();
        assert!(serde_json::to_vec(report).unwrap().len() <= Report::MAX_BYTES);
        if self.seen.insert((report.run, report.sequence)) {
            let generation = |report: &Report| (report.run, report.part.generation);
            self.parts
                .retain(|part| generation(part) == generation(report));
            self.parts.push(report.clone());
            if self.parts.len() == report.part.count as usize {
                self.apply();
            }
        }
        verdict(report.sequence, self.mismatch)
    }

    fn apply(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        if parts[0].states == StateUpdate::Whole {
            self.open.clear();
        }
        for part in &parts {
            for closed in &part.closed {
                self.open.remove(closed);
            }
            self.open.extend(part.opened.iter().map(|open| open.id));
        }
        self.mismatch = set_digest(self.open.iter().copied()) != parts[0].set_digest;
    }
}

/// The agent's side: a sentinel, what it spooled, and the heartbeat that waits.
struct World {
    sentinel: Sentinel,
    run: u8,
    spool: VecDeque<Report>,
    mention: Option<Report>,
    collector: Collector,
    seconds: u64,
    truth: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Turn {
    Scan(Vec<u8>),
    Look(Vec<u8>),
    FailedScan,
    Deliver,
    LoseTheAnswer,
    LoseSpooledStates,
    RefuseOne,
    RestoreCollectorFromBackup,
    Restart,
    Wait(u16),
}

impl World {
    fn new() -> Self {
        World {
            sentinel: sentinel_of(1, None, ProbeMode::Collector),
            run: 1,
            spool: VecDeque::new(),
            mention: None,
            collector: Collector::default(),
            seconds: 10,
            truth: Vec::new(),
        }
    }

    fn step(&mut self, event: Event) {
        for action in steps(&mut self.sentinel, event, at(self.seconds)) {
            match action {
                Action::Keep(report) => {
                    self.mention = None;
                    self.spool.push_back(*report);
                }
                Action::Mention(report) => self.mention = Some(*report),
                Action::Scan(..) | Action::Sweep(_) | Action::Probe(_) => {}
            }
        }
    }

    fn scan(&mut self, pass: Pass) {
        let drifts = self
            .truth
            .iter()
            .map(|name| drift(&format!("etc/{name}")))
            .collect();
        self.step(outcome(pass, drifts));
    }

    fn deliver(&mut self) {
        let Some(report) = self.spool.front().cloned().or_else(|| self.mention.clone()) else {
            return;
        };
        let verdict = self.collector.take(&report);
        self.spool
            .retain(|waiting| waiting.run != report.run || waiting.sequence > verdict.acknowledged);
        self.mention
            .take_if(|waiting| waiting.sequence == report.sequence && waiting.run == report.run);
        let is_of_this_run = report.run == self.sentinel.setup.run;
        self.step(if is_of_this_run {
            Event::Acknowledged(verdict)
        } else {
            Event::AcknowledgedEarlier(verdict)
        });
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Scan(truth) => {
                self.truth = truth;
                let pass = if self.sentinel.phase() == Phase::Running {
                    Pass::Quick
                } else {
                    Pass::Full
                };
                self.scan(pass);
            }
            Turn::Look(truth) => {
                self.truth = truth;
                let names = |names: Vec<u8>| -> Vec<String> {
                    let names = names.into_iter();
                    names.map(|name| format!("etc/{name}")).collect()
                };
                let (all, found) = (names((0..12).collect()), names(self.truth.clone()));
                self.step(watched::seen(&all, &found));
            }
            Turn::FailedScan => self.step(Event::ScanFailed(Pass::Full, "the disk is gone".into())),
            Turn::Deliver => self.deliver(),
            Turn::LoseTheAnswer => {
                if let Some(report) = self.spool.front().or(self.mention.as_ref()) {
                    self.collector.take(report);
                }
            }
            Turn::LoseSpooledStates => {
                if self.spool.pop_front().is_some() {
                    self.step(Event::Dropped {
                        states: true,
                        moments: 0,
                    });
                }
            }
            Turn::RefuseOne => {
                if self
                    .spool
                    .pop_front()
                    .is_some_and(|report| report.run == self.sentinel.setup.run)
                {
                    self.step(Event::Refused);
                }
            }
            Turn::RestoreCollectorFromBackup => {
                self.collector.open.clear();
                self.collector.mismatch = true;
            }
            Turn::Restart => {
                let previous = self.run;
                self.run += 1;
                self.sentinel = sentinel_of(self.run, Some(previous), ProbeMode::Collector);
                self.mention = None;
            }
            Turn::Wait(seconds) => {
                self.seconds += u64::from(seconds);
                self.step(Event::Tick);
            }
        }
    }

    /// The agent scans once more, and nothing is lost any more.
    fn calm_down(&mut self) {
        self.scan(Pass::Full);
        for _ in 0..200 {
            while !self.spool.is_empty() || self.mention.is_some() {
                self.deliver();
            }
            self.seconds += 60;
            self.step(Event::Tick);
        }
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => prop::collection::vec(0_u8..12, 0..8).prop_map(Turn::Scan),
        4 => prop::collection::vec(0_u8..12, 0..8).prop_map(Turn::Look),
        1 => Just(Turn::FailedScan),
        6 => Just(Turn::Deliver),
        2 => Just(Turn::LoseTheAnswer),
        1 => Just(Turn::LoseSpooledStates),
        1 => Just(Turn::RefuseOne),
        1 => Just(Turn::RestoreCollectorFromBackup),
        1 => Just(Turn::Restart),
        3 => (1_u16..400).prop_map(Turn::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_was_lost_the_collector_ends_with_what_the_agent_found(turns in prop::collection::vec(turn(), 0..60)) {
        let mut world = World::new();
        for turn in turns {
            world.turn(turn);
        }
        world.calm_down();
        let agents: BTreeSet<DriftId> = world.sentinel.open().map(|(id, _)| *id).collect();
        let found: BTreeSet<DriftId> = world.truth.iter().map(|name| drift(&format!("etc/{name}")).id()).collect();
        prop_assert_eq!(&agents, &found);
        prop_assert_eq!(&world.collector.open, &found);
        prop_assert!(!world.collector.mismatch);
    }
}
