//! Receives events in all orders; holds the sentinel to what it promises.

use super::*;
use drift::class::{Class, Severity};
use drift::coverage::{Gap, GapReason, ScanRecord};
use drift::entry::AttributeSet;
use drift::finding::DriftKind;
use drift::report::{InstanceState, Settings, StateUpdate};
use replay::Collector;

mod beside;
mod disk;
mod own;
mod replay;
mod swept;
mod watched;

fn drift(name: &str) -> Drift {
    Drift {
        attribution: None,
        path: TreePath::new(name.as_bytes()).unwrap(),
        kind: DriftKind::Added,
        changed: AttributeSet::EMPTY,
        found: None,
        detail: None,
        class: Class::Other,
        severity: Severity::Info,
        technique: Vec::new(),
    }
}

fn outcome(pass: Pass, drifts: Vec<Drift>) -> Event {
    Event::ScanFinished(Box::new(Outcome {
        pass,
        looking_since: None,
        drifts: drifts.into_iter().map(|it| Arc::new(it.into())).collect(),
        packages: BTreeMap::new(),
        gaps: Vec::new(),
        more_gaps: false,
        coverage: Coverage {
            seen: Some(ScanRecord::default()),
            ..Coverage::default()
        },
        held: None,
    }))
}

fn at(seconds: u64) -> Now {
    Now {
        uptime: Duration::from_secs(seconds),
        clock_milliseconds: 1_000_000 + seconds as i64 * 1000,
    }
}

fn sentinel_of(run: u8, previous: Option<u8>, probe_mode: ProbeMode) -> Sentinel {
    Sentinel::new(Setup {
        run: RunId([run; 16]),
        previous_run: previous.map(|run| RunId([run; 16])),
        agent: AgentBuild::default(),
        boot_id: "b".into(),
        schedule: Schedule {
            full: Duration::from_secs(86_400),
            quick: Duration::from_secs(300),
            processes: Some(Duration::from_secs(60)),
            disk: Some(Duration::from_secs(7 * 86_400)),
            finish: Duration::from_secs(1800),
        },
        probe_mode,
    })
}

fn sentinel() -> Sentinel {
    sentinel_of(1, None, ProbeMode::Collector)
}

fn steps(sentinel: &mut Sentinel, event: Event, now: Now) -> Vec<Action> {
    let mut actions = Vec::new();
    sentinel.step(event, now, &mut |action| actions.push(action));
    actions
}

fn kept(actions: Vec<Action>) -> Vec<Report> {
    let of = |action| match action {
        Action::Keep(report) => Some(*report),
        _ => None,
    };
    actions.into_iter().filter_map(of).collect()
}

fn verdict(acknowledged: u64, resend_all: bool) -> Verdict {
    let settings = Settings::default();
    Verdict {
        acknowledged,
        state: InstanceState::Clean,
        order: None,
        resend_all,
        settings,
    }
}

#[test]
fn nothing_is_opened_or_closed_before_the_first_full_scan_has_ended() {
    let mut sentinel = sentinel();
    for event in [
        Event::Tick,
        Event::BaselineRefused("no".into()),
        Event::Acknowledged(verdict(1, true)),
    ] {
        assert!(kept(steps(&mut sentinel, event, at(1))).is_empty());
    }
    assert_eq!(sentinel.phase(), Phase::Starting);
    assert!(
        kept(steps(
            &mut sentinel,
            outcome(Pass::Quick, vec![drift("a")]),
            at(2)
        ))
        .is_empty()
    );
    let reports = kept(steps(
        &mut sentinel,
        outcome(Pass::Full, vec![drift("a")]),
        at(3),
    ));
    assert_eq!(
        (reports.len(), reports[0].states, reports[0].phase),
        (1, StateUpdate::Whole, Phase::Running)
    );
}

#[test]
fn a_change_carries_only_what_is_new() {
    let mut sentinel = sentinel();
    steps(
        &mut sentinel,
        outcome(Pass::Full, vec![drift("a"), drift("b")]),
        at(3),
    );
    let reports = kept(steps(
        &mut sentinel,
        outcome(Pass::Quick, vec![drift("b"), drift("c")]),
        at(9),
    ));
    let [report] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(report.states, StateUpdate::Change);
    assert_eq!(
        report.opened.iter().map(|open| open.id).collect::<Vec<_>>(),
        [drift("c").id()]
    );
    assert_eq!(report.closed, [drift("a").id()]);
    assert_eq!(report.open_count, 2);
    assert!(
        kept(steps(
            &mut sentinel,
            outcome(Pass::Quick, vec![drift("c"), drift("b")]),
            at(10)
        ))
        .is_empty()
    );
}

#[test]
fn a_hundred_thousand_drifts_go_in_parts_within_every_limit() {
    let mut sentinel = sentinel();
    let drifts = (0..100_000)
        .map(|number| drift(&format!("srv/{number}")))
        .collect();
    let mut collector = Collector::default();
    let mut count = 0;
    sentinel.step(outcome(Pass::Full, drifts), at(3), &mut |action| {
        if let Action::Keep(report) = action {
            count += 1;
            assert_eq!(
                (report.part.index, report.sequence),
                (count, u64::from(count))
            );
            collector.take(&report);
        }
    });
    assert_eq!(count, 100);
    assert_eq!(collector.open.len(), 100_000);
    assert!(!collector.mismatch);
}

#[test]
fn drifts_with_the_longest_names_still_fit() {
    let mut sentinel = sentinel();
    let long = |number: u32| {
        let mut path = format!("{number}").into_bytes();
        while path.len() < TreePath::MAX_BYTES - 256 {
            path.push(b'/');
            path.extend([0x01; 250]);
        }
        Drift {
            attribution: None,
            path: TreePath::new(&path).unwrap(),
            ..drift("x")
        }
    };
    let drifts: Vec<_> = (0..40).map(long).collect();
    let gaps = drifts.iter().map(|drift| Gap {
        path: drift.path.clone(),
        reason: GapReason::Unreadable,
        detail: "x".repeat(100_000),
    });
    let mut event = outcome(Pass::Full, drifts.clone());
    if let Event::ScanFinished(outcome) = &mut event {
        outcome.coverage.gaps = gaps.cycle().take(500).collect();
        outcome.coverage.gap_count = 500;
    }
    let mut collector = Collector::default();
    for report in kept(steps(&mut sentinel, event, at(1))) {
        collector.take(&report);
        assert_eq!(report.coverage.gap_count, 500);
    }
    assert_eq!(collector.open.len(), 40);
}

#[test]
fn what_became_unreadable_stays_open() {
    let mut sentinel = sentinel();
    steps(
        &mut sentinel,
        outcome(Pass::Full, vec![drift("etc/a"), drift("srv/b")]),
        at(3),
    );
    let mut event = outcome(Pass::Quick, Vec::new());
    if let Event::ScanFinished(outcome) = &mut event {
        outcome.gaps = vec![TreePath::new(b"etc").unwrap()];
    }
    let reports = kept(steps(&mut sentinel, event, at(9)));
    assert_eq!(reports[0].closed, [drift("srv/b").id()]);
    assert_eq!(sentinel.open_count(), 1);
}

#[test]
fn held_values_are_always_told_as_a_whole_set() {
    let held = |name: &str, value: &[u8]| HeldValue {
        path: TreePath::new(name.as_bytes()).unwrap(),
        value: Some(drift::Blake3::of(value)),
        length: None,
        prefix: None,
    };
    let pass = |pass, values: Option<Vec<HeldValue>>| {
        let mut event = outcome(pass, Vec::new());
        if let Event::ScanFinished(outcome) = &mut event {
            outcome.held = values;
        }
        event
    };
    let mut sentinel = sentinel();
    let first = kept(steps(&mut sentinel, pass(Pass::Full, None), at(1)));
    assert!(!first[0].held_whole, "the first-boot window is open");
    let both = vec![held("a", b"1"), held("b", b"1")];
    let reports = kept(steps(
        &mut sentinel,
        pass(Pass::Quick, Some(both.clone())),
        at(2),
    ));
    assert_eq!((reports[0].held_whole, reports[0].held.len()), (true, 2));
    assert!(
        kept(steps(&mut sentinel, pass(Pass::Quick, Some(both)), at(3))).is_empty(),
        "nothing new"
    );
    for values in [
        vec![held("a", b"2"), held("b", b"1")],
        vec![held("a", b"2")],
        vec![],
    ] {
        let count = values.len();
        let reports = kept(steps(&mut sentinel, pass(Pass::Quick, Some(values)), at(4)));
        assert_eq!(
            (reports[0].held_whole, reports[0].held.len()),
            (true, count)
        );
    }
}

#[test]
fn only_an_executing_order_of_the_replacer_probe_is_unhealthy() {
    let order = |replacer: &str| {
        let order = ExecutingOrder {
            id: "7".into(),
            replacer: replacer.into(),
            reason: "drift".into(),
        };
        Event::Acknowledged(Verdict {
            order: Some(order),
            ..verdict(1, false)
        })
    };
    let mut sentinel = sentinel();
    let mut healthy = |event| {
        steps(&mut sentinel, event, at(5));
        sentinel.health.clone().unwrap().healthy
    };
    assert!(healthy(Event::BaselineRefused("badly signed".into())));
    assert!(healthy(outcome(Pass::Full, vec![drift("a")])));
    assert!(healthy(order("command")));
    assert!(!healthy(order("probe")));
    assert!(
        healthy(Event::Acknowledged(verdict(1, false))),
        "a later answer without an order ends it"
    );
}

#[test]
fn a_local_probe_is_unhealthy_at_the_first_drift() {
    let mut sentinel = sentinel_of(1, None, ProbeMode::Local);
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(1));
    assert!(sentinel.health.as_ref().unwrap().healthy);
    steps(&mut sentinel, outcome(Pass::Quick, vec![drift("a")]), at(2));
    assert!(!sentinel.health.as_ref().unwrap().healthy);
}

#[test]
fn scans_come_at_their_intervals_and_a_failed_one_soon_again() {
    let mut sentinel = sentinel();
    let scan_at = |sentinel: &mut Sentinel, seconds| {
        steps(sentinel, Event::Tick, at(seconds))
            .into_iter()
            .find_map(|action| match action {
                Action::Scan(pass, _) => Some(pass),
                _ => None,
            })
    };
    assert_eq!(scan_at(&mut sentinel, 1), Some(Pass::Full));
    assert_eq!(scan_at(&mut sentinel, 2), None, "one at a time");
    steps(
        &mut sentinel,
        Event::ScanFailed(Pass::Full, "x".into()),
        at(10),
    );
    assert_eq!(scan_at(&mut sentinel, 69), None);
    assert_eq!(scan_at(&mut sentinel, 70), Some(Pass::Full));
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(100));
    assert_eq!(scan_at(&mut sentinel, 399), None);
    assert_eq!(scan_at(&mut sentinel, 400), Some(Pass::Quick));
    steps(&mut sentinel, outcome(Pass::Quick, Vec::new()), at(401));
    assert_eq!(scan_at(&mut sentinel, 100 + 86_400), Some(Pass::Full));
}

#[test]
fn a_collector_that_never_agrees_is_told_everything_ever_more_rarely() {
    let mut sentinel = sentinel();
    steps(&mut sentinel, outcome(Pass::Full, vec![drift("a")]), at(0));
    let mut wholes = 0;
    for seconds in 1..7200 {
        wholes += kept(steps(
            &mut sentinel,
            Event::Acknowledged(verdict(u64::MAX, true)),
            at(seconds),
        ))
        .len();
    }
    assert!((5..20).contains(&wholes), "{wholes}");
}

#[test]
fn moments_are_told_once_and_numbered() {
    let mut sentinel = sentinel();
    let first = kept(steps(
        &mut sentinel,
        Event::Happened(Box::new(drift("a"))),
        at(1),
    ));
    let second = kept(steps(
        &mut sentinel,
        Event::Happened(Box::new(drift("a"))),
        at(2),
    ));
    assert_eq!(
        (first[0].moments[0].number, second[0].moments[0].number),
        (1, 2)
    );
    steps(
        &mut sentinel,
        Event::Dropped {
            states: false,
            moments: 2,
        },
        at(3),
    );
    let last = kept(steps(
        &mut sentinel,
        Event::Happened(Box::new(drift("b"))),
        at(4),
    ));
    assert_eq!(last[0].dropped_moments, 2);
}
