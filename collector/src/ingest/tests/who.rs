//! Receives drift that is open and is told again with who did it; holds both ways into the store to the same.

use drift::attribution::{Attribution, Confidence, Process};

use super::*;

/// A process that is known by nothing but its number.
fn by(pid: u32) -> Option<Box<Attribution>> {
    let process = Process {
        pid,
        ..Process::default()
    };
    Some(Box::new(Attribution {
        confidence: Confidence::Certain,
        process: Some(process),
    }))
}

/// Opens two drifts in `count` parts of a generation, and says who made the first.
fn told(generation: u64, count: u32, who: Option<Box<Attribution>>) -> Vec<Report> {
    let mut whole = opening(0, generation, 0..2);
    whole.open_count = 2;
    whole.set_digest = set_digest(whole.opened.iter().map(|open| open.id));
    whole.opened[0].drift.attribution = who;
    let part = |index: u32| Report {
        sequence: generation * 10 + u64::from(index),
        part: Part {
            generation,
            index,
            count,
        },
        opened: match (index, count) {
            (_, 1) => whole.opened.clone(),
            (1, _) => whole.opened[..1].to_vec(),
            _ => whole.opened[1..].to_vec(),
        },
        ..whole.clone()
    };
    (1..=count).map(part).collect()
}

/// Who made what is open.
async fn known(bench: &Bench) -> Vec<u32> {
    let row = bench.instance().await.row;
    let listed: Result<_, StoreError> = bench
        .store
        .read(move |db| Ok(drifts::list(db, row, 10)?))
        .await;
    let listed = listed.unwrap().into_iter();
    let processes = listed.filter_map(|open| open.drift?.attribution?.process);
    processes.map(|process| process.pid).collect()
}

#[tokio::test]
async fn who_did_it_may_become_known_of_what_is_open_and_is_soon_nobody_else() {
    for (count, states) in [
        (1, StateUpdate::Change),
        (2, StateUpdate::Change),
        (3, StateUpdate::Change),
        (1, StateUpdate::Whole),
        (2, StateUpdate::Whole),
    ] {
        let bench = Bench::new().await;
        let what = format!("{states:?} in {count} parts");
        let steps = [
            (None, &[][..]),
            (by(7), &[7]),
            // Whom the agent has not heard of in time.
            (by(8), &[8]),
            (None, &[8]),
            (Some(Box::new(Attribution::none())), &[8]),
            // Whoever does the same later.
            (by(9), &[8]),
        ];
        let mut before = None;
        for (generation, (who, expected)) in (1..).zip(steps) {
            if generation == 6 {
                let age = "UPDATE drifts SET opened_at_ms = opened_at_ms - 10000";
                let aged = bench.store.write(move |tx| Ok(tx.execute(age, [])?));
                let aged: Result<_, StoreError> = aged.await;
                aged.unwrap();
            }
            for part in told(generation, count, who) {
                let sent = Report { states, ..part };
                assert!(!bench.send(sent).await.unwrap().verdict.resend_all);
            }
            assert_eq!(known(&bench).await, expected, "{what}, {generation}");
            let instance = bench.instance().await;
            let held = (instance.open, instance.set_digest, instance.severity);
            assert_eq!(*before.get_or_insert(held.clone()), held, "{what}");
        }
        for part in told(9, 3 - count.min(2), None) {
            let other = Report {
                states: StateUpdate::Whole,
                ..part
            };
            bench.send(other).await.unwrap();
        }
        assert_eq!(known(&bench).await, [8], "{what}, and the other way after");
    }
}

#[tokio::test]
async fn who_did_it_becomes_known_of_what_is_kept_when_no_more_is_kept() {
    let bench = Bench::new().await;
    bench.send(told(1, 1, None).remove(0)).await.unwrap();
    let full: Result<_, StoreError> = bench
        .store
        .write(|tx| Ok(tx.execute("UPDATE instances SET overflow = 1", [])?))
        .await;
    assert_eq!(full.unwrap(), 1);
    bench.send(told(2, 1, by(7)).remove(0)).await.unwrap();
    assert_eq!(known(&bench).await, [7]);
    assert!(bench.instance().await.overflow);
}
