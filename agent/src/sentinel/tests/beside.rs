//! Quick passes beside a full one that takes its time: each comes when it is due, whatever the other does.

use super::*;

fn scans_at(sentinel: &mut Sentinel, seconds: u64) -> Vec<Pass> {
    let actions = steps(sentinel, Event::Tick, at(seconds));
    let of = |action| match action {
        Action::Scan(pass, _) => Some(pass),
        _ => None,
    };
    actions.into_iter().filter_map(of).collect()
}

const DAY: u64 = 86_400;

/// One whose second full pass goes on for half an hour.
fn in_its_second_full_pass() -> Sentinel {
    let mut sentinel = sentinel();
    assert_eq!(scans_at(&mut sentinel, 1), [Pass::Full]);
    assert!(
        scans_at(&mut sentinel, 500).is_empty(),
        "nothing to trust yet"
    );
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(600));
    assert_eq!(scans_at(&mut sentinel, 900), [Pass::Quick]);
    steps(
        &mut sentinel,
        outcome(Pass::Quick, Vec::new()),
        at(600 + DAY - 10),
    );
    assert_eq!(scans_at(&mut sentinel, 600 + DAY), [Pass::Full]);
    sentinel
}

#[test]
fn quick_passes_come_at_their_interval_while_a_full_one_goes_on() {
    let mut sentinel = in_its_second_full_pass();
    let begun = 600 + DAY;
    for nth in 1..=5 {
        let due = begun - 10 + nth * 300;
        assert!(scans_at(&mut sentinel, due - 1).is_empty());
        assert_eq!(scans_at(&mut sentinel, due), [Pass::Quick]);
        assert!(scans_at(&mut sentinel, due).is_empty(), "one at a time");
        let found = vec![drift("etc/a")];
        let reports = kept(steps(&mut sentinel, outcome(Pass::Quick, found), at(due)));
        assert_eq!(
            reports.len(),
            usize::from(nth == 1),
            "told at once, and once"
        );
    }
    let ended = begun + 1700;
    let found = vec![drift("etc/a")];
    let reports = kept(steps(&mut sentinel, outcome(Pass::Full, found), at(ended)));
    assert!(reports.is_empty(), "it was told before: {reports:?}");
    let seen = sentinel.coverage(at(ended)).seen.unwrap();
    assert_eq!((seen.age_seconds, seen.oldest_seconds), (0, 1700));
    assert!(
        scans_at(&mut sentinel, ended + 299).is_empty(),
        "its end was a quick one"
    );
    assert_eq!(scans_at(&mut sentinel, ended + 300), [Pass::Quick]);
}

#[test]
fn a_pass_that_fails_keeps_no_other_kind_from_its_time() {
    let mut sentinel = in_its_second_full_pass();
    let begun = 600 + DAY;
    let quick_failed = Event::ScanFailed(Pass::Quick, "x".into());
    assert_eq!(scans_at(&mut sentinel, begun + 290), [Pass::Quick]);
    steps(&mut sentinel, quick_failed, at(begun + 291));
    let full_failed = Event::ScanFailed(Pass::Full, "y".into());
    steps(&mut sentinel, full_failed, at(begun + 300));
    let limits = sentinel.coverage(at(begun + 301)).limits;
    let expected = [
        "the last scan did not finish: y",
        "the last quick scan did not finish: x",
    ];
    assert_eq!(limits, expected);
    assert!(scans_at(&mut sentinel, begun + 350).is_empty());
    assert_eq!(scans_at(&mut sentinel, begun + 351), [Pass::Quick]);
    assert_eq!(scans_at(&mut sentinel, begun + 360), [Pass::Full]);
    steps(
        &mut sentinel,
        outcome(Pass::Quick, Vec::new()),
        at(begun + 361),
    );
    let limits = sentinel.coverage(at(begun + 362)).limits;
    assert_eq!(limits, ["the last scan did not finish: y"]);
}

#[test]
fn without_a_manifest_nothing_but_a_full_pass_looks_for_one() {
    let mut sentinel = in_its_second_full_pass();
    let begun = 600 + DAY;
    let refused = Event::BaselineRefused("no".into());
    steps(&mut sentinel, refused, at(begun + 1));
    assert!(scans_at(&mut sentinel, begun + 60).is_empty());
    assert_eq!(scans_at(&mut sentinel, begun + 400), [Pass::Full]);
    let image = ImageRef {
        name: "web".into(),
        version: "1".into(),
        build: "amd64".into(),
        manifest: drift::Blake3::of(b"m"),
    };
    let opened = Event::BaselineOpened(image);
    steps(&mut sentinel, opened, at(begun + 400));
    assert_eq!(scans_at(&mut sentinel, begun + 401), [Pass::Quick]);
}
