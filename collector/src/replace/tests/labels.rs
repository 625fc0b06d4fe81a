//! Holds judgement to be the same with and without what the host's package database says.

use std::sync::Arc;

use drift::coverage::{Coverage, ScanRecord};
use drift::finding::{Drift, DriftId, DriftKind, HostPackage, set_digest};
use drift::report::{AgentBuild, OpenDrift, Part, Report, RunId, StateUpdate};
use proptest::prelude::*;

use super::*;
use crate::ingest::{self, Circumstances, Incoming};
use crate::rate::Rate;
use crate::store::drifts;

/// What an agent says next: what opens or stays open, with its label, and what closes.
#[derive(Debug, Clone)]
struct Step {
    opened: Vec<(u8, Option<HostPackage>)>,
    closed: Vec<u8>,
    whole: bool,
    parts: u32,
}

fn label() -> impl Strategy<Value = Option<HostPackage>> {
    let text = prop_oneof![Just("openssl".to_owned()), ".{0,40}", "\\PC{0,40}"];
    let package =
        (text.clone(), text, any::<bool>()).prop_map(|(name, version, matches)| HostPackage {
            name,
            version,
            matches,
        });
    proptest::option::of(package)
}

fn step() -> impl Strategy<Value = Step> {
    let opened = proptest::collection::vec((0..12_u8, label()), 0..6);
    let closed = proptest::collection::vec(0..12_u8, 0..3);
    (opened, closed, any::<bool>(), 1..3_u32).prop_map(|(opened, closed, whole, parts)| Step {
        opened,
        closed,
        whole,
        parts,
    })
}

fn drift_of(number: u8) -> Drift {
    let places = [
        "etc/shadow",
        "usr/bin/tool",
        "opt/file",
        "var/lib/dpkg/status",
    ];
    let path = format!("{}-{number}", places[usize::from(number) % places.len()]);
    let path = drift::TreePath::new(path.as_bytes()).unwrap();
    let meaning = drift::class::classify(&path, &DriftKind::Added, Default::default(), None);
    Drift {
        attribution: None,
        path,
        kind: DriftKind::Added,
        changed: Default::default(),
        found: None,
        detail: None,
        class: meaning.class,
        severity: meaning.severity,
        technique: Vec::new(),
    }
}

fn reports(sequence: &mut u64, generation: u64, step: &Step) -> Vec<Report> {
    let mut opened: Vec<OpenDrift> = Vec::new();
    for (number, host_package) in &step.opened {
        let drift = drift_of(*number);
        let id = drift.id();
        if opened.iter().all(|open| open.id != id) {
            opened.push(OpenDrift {
                id,
                drift,
                host_package: host_package.clone(),
            });
        }
    }
    let is_open = |id: &DriftId| opened.iter().any(|open| open.id == *id);
    let mut closed: Vec<DriftId> = step.closed.iter().map(|it| drift_of(*it).id()).collect();
    closed.retain(|id| !is_open(id) && !step.whole);
    let mut ids: Vec<DriftId> = opened.iter().map(|open| open.id).collect();
    ids.sort_unstable();
    let part = |index: u32| {
        *sequence += 1;
        let (first, last) = (index == 1, index == step.parts);
        let half = opened.len() / 2;
        let mine = match (first, last) {
            (true, true) => &opened[..],
            (true, false) => &opened[..half],
            (false, _) => &opened[half..],
        };
        Report {
            run: RunId([1; 16]),
            sequence: *sequence,
            previous_run: None,
            part: Part {
                generation,
                index,
                count: step.parts,
            },
            agent: AgentBuild::default(),
            boot_id: "b".into(),
            phase: Phase::Running,
            image: Some(image()),
            unverifiable: None,
            states: if step.whole {
                StateUpdate::Whole
            } else {
                StateUpdate::Change
            },
            opened: mine.to_vec(),
            closed: if first { closed.clone() } else { Vec::new() },
            open_count: ids.len() as u64,
            set_digest: set_digest(ids.clone()),
            moments: Vec::new(),
            dropped_moments: 0,
            held_whole: false,
            held: Vec::new(),
            coverage: Coverage {
                seen: Some(ScanRecord::default()),
                ..Coverage::default()
            },
            agent_clock: 0,
            uptime_seconds: 0,
        }
    };
    (1..=step.parts).map(part).collect()
}

impl World {
    /// Takes a report in and judges; all that was decided, and all that is known of the instance.
    fn hears(&mut self, report: Report) -> String {
        let tx = self.db.transaction().unwrap();
        let body = Blake3::of(&serde_json::to_vec(&report).unwrap());
        let incoming = Incoming {
            instance: "i-vm-0".into(),
            key: Sha256::of(b"vm-0").as_bytes().to_owned(),
            body,
            bytes: 1_000,
            report,
        };
        let now = Circumstances {
            heartbeat: HEARTBEAT,
            refusals: Arc::new(Rate::new(10, Duration::from_secs(1))),
            now_ms: self.now_ms,
        };
        let accepted = ingest::accept(&tx, &incoming, &now).unwrap().unwrap();
        let instance = instances::by_id(&tx, "i-vm-0").unwrap().unwrap();
        let ids = drifts::ids(&tx, instance.row, drifts::Source::Agent).unwrap();
        let sum = drifts::sum(&tx, instance.row).unwrap();
        let shared = drifts::shared(&tx, "web", 1).unwrap();
        let situation = situation::load(&tx, &self.fleets, HEARTBEAT, 0, self.now_ms).unwrap();
        let decisions = judge(&situation, self.now_ms);
        let (verdict, changed) = (accepted.verdict, accepted.changed);
        let every = Filter {
            over: true,
            ..Filter::default()
        };
        let issued = orders::orders(&tx, &every).unwrap();
        tx.commit().unwrap();
        let said =
            format!("{verdict:?} {changed} {instance:?} {ids:?} {sum:?} {shared:?} {decisions:?}");
        // Ids of orders are random numbers, and all that may differ.
        issued.iter().fold(said, |said, order| {
            said.replace(&order.id, &format!("o-{}", order.generation))
        })
    }

    /// What is kept of labels, by path.
    fn labels(&self) -> Vec<(String, Option<HostPackage>)> {
        let instance = instances::by_id(&self.db, "i-vm-0").unwrap().unwrap();
        let mut kept: Vec<_> = drifts::list(&self.db, instance.row, 1_000)
            .unwrap()
            .into_iter()
            .map(|open| (open.drift.unwrap().path.to_text(), open.package))
            .collect();
        kept.sort_by(|one, other| one.0.cmp(&other.0));
        kept
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn judgement_is_the_same_whatever_a_hosts_package_database_says(steps in proptest::collection::vec(step(), 1..6)) {
        let (mut labelled, mut bare) = (World::new("replace"), World::new("replace"));
        let (mut ours, mut theirs) = (0, 0);
        for (number, step) in steps.iter().enumerate() {
            let generation = number as u64 + 1;
            let mut without = step.clone();
            without.opened.iter_mut().for_each(|(_, label)| *label = None);
            let said = reports(&mut ours, generation, step);
            for (said, unsaid) in said.into_iter().zip(reports(&mut theirs, generation, &without)) {
                prop_assert_eq!(labelled.hears(said), bare.hears(unsaid));
            }
            // The latest that was said of each is what is kept.
            let mut seen = Vec::new();
            for (number, label) in &step.opened {
                let path = drift_of(*number).path.to_text();
                if !seen.contains(&path) {
                    seen.push(path.clone());
                    prop_assert!(labelled.labels().contains(&(path, label.clone())));
                }
            }
            labelled.pass(15);
            bare.pass(15);
            labelled.settle();
            bare.settle();
            prop_assert_eq!(labelled.kinds(), bare.kinds());
        }
    }
}
