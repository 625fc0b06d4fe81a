//! Sweeps of the disk beside other passes: neither closes what the other opened, and each comes in its time.

use super::*;

fn alone(name: &str) -> Drift {
    Drift {
        attribution: None,
        detail: Some(Drift::ON_DISK_ALONE.to_owned()),
        ..drift(name)
    }
}

fn open(sentinel: &Sentinel) -> Vec<DriftId> {
    sentinel.open().map(|(id, _)| *id).collect()
}

fn ids(drifts: &[Drift]) -> Vec<DriftId> {
    let mut ids: Vec<DriftId> = drifts.iter().map(Drift::id).collect();
    ids.sort_unstable();
    ids
}

fn scan_at(sentinel: &mut Sentinel, seconds: u64) -> Option<Pass> {
    let actions = steps(sentinel, Event::Tick, at(seconds));
    actions.into_iter().find_map(|action| match action {
        Action::Scan(pass, _) => Some(pass),
        _ => None,
    })
}

#[test]
fn what_the_disk_alone_holds_stays_open_until_a_sweep_finds_it_clean() {
    let mut sentinel = sentinel();
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(1));
    let reports = kept(steps(
        &mut sentinel,
        outcome(Pass::Disk, vec![alone("a")]),
        at(2),
    ));
    assert_eq!((reports.len(), reports[0].opened.len()), (1, 1));
    for pass in [Pass::Quick, Pass::Full, Pass::Quick] {
        let reports = kept(steps(&mut sentinel, outcome(pass, Vec::new()), at(3)));
        assert!(reports.is_empty(), "{pass:?} reads what the cache has");
        assert_eq!(open(&sentinel), ids(&[alone("a")]));
    }
    let reports = kept(steps(&mut sentinel, outcome(Pass::Disk, Vec::new()), at(4)));
    assert_eq!(reports[0].closed, [alone("a").id()]);
}

#[test]
fn what_processes_see_is_opened_by_a_sweep_and_closed_by_another_pass_alone() {
    let mut sentinel = sentinel();
    steps(&mut sentinel, outcome(Pass::Full, vec![drift("a")]), at(1));
    steps(
        &mut sentinel,
        outcome(Pass::Disk, vec![drift("b"), alone("b")]),
        at(2),
    );
    let all = ids(&[drift("a"), drift("b"), alone("b")]);
    assert_eq!(
        open(&sentinel),
        all,
        "the disk is clean at a, the cache was not"
    );
    steps(&mut sentinel, outcome(Pass::Quick, Vec::new()), at(3));
    assert_eq!(open(&sentinel), ids(&[alone("b")]));
}

#[test]
fn a_sweep_that_could_not_read_a_file_does_not_close_what_was_found_on_its_disk() {
    let mut sentinel = sentinel();
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(1));
    steps(
        &mut sentinel,
        outcome(Pass::Disk, vec![alone("a/b"), alone("c")]),
        at(2),
    );
    let mut event = outcome(Pass::Disk, vec![drift("a/b")]);
    if let Event::ScanFinished(outcome) = &mut event {
        outcome.gaps = vec![TreePath::new(b"a").unwrap()];
    }
    steps(&mut sentinel, event, at(3));
    assert_eq!(open(&sentinel), ids(&[drift("a/b"), alone("a/b")]));
}

#[test]
fn sweeps_come_at_their_interval_and_sooner_while_only_one_can_close_what_is_open() {
    const DAY: u64 = 86_400;
    let mut sentinel = sentinel();
    let full_at = |sentinel: &mut Sentinel, seconds| {
        steps(sentinel, outcome(Pass::Full, Vec::new()), at(seconds));
    };
    full_at(&mut sentinel, 1);
    assert_eq!(
        scan_at(&mut sentinel, 400),
        Some(Pass::Quick),
        "nothing was cached at boot"
    );
    steps(&mut sentinel, outcome(Pass::Quick, Vec::new()), at(401));
    full_at(&mut sentinel, 7 * DAY);
    assert_eq!(scan_at(&mut sentinel, 7 * DAY + 1), Some(Pass::Disk));
    steps(
        &mut sentinel,
        outcome(Pass::Disk, vec![alone("a")]),
        at(7 * DAY + 9),
    );
    full_at(&mut sentinel, 8 * DAY + 8);
    assert_eq!(
        scan_at(&mut sentinel, 8 * DAY + 9),
        Some(Pass::Disk),
        "it may be clean by now"
    );
    steps(
        &mut sentinel,
        outcome(Pass::Disk, Vec::new()),
        at(8 * DAY + 10),
    );
    full_at(&mut sentinel, 9 * DAY + 20);
    assert_eq!(scan_at(&mut sentinel, 9 * DAY + 21), None);
    full_at(&mut sentinel, 15 * DAY + 10);
    assert_eq!(scan_at(&mut sentinel, 15 * DAY + 10), Some(Pass::Disk));
}

#[test]
fn a_run_after_another_sweeps_the_disk_right_after_its_first_full_scan_unless_none_is_wanted() {
    for (disk, wanted) in [(Some(Duration::from_secs(700_000)), true), (None, false)] {
        let mut sentinel = sentinel_of(2, Some(1), ProbeMode::Collector);
        sentinel.setup.schedule.disk = disk;
        assert_eq!(scan_at(&mut sentinel, 50), Some(Pass::Full));
        steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(60));
        assert_eq!(scan_at(&mut sentinel, 61), wanted.then_some(Pass::Disk));
        if wanted {
            let failed = Event::ScanFailed(Pass::Disk, "x".into());
            steps(&mut sentinel, failed, at(70));
            assert_eq!(scan_at(&mut sentinel, 129), None);
            let limits = sentinel.coverage(at(129)).limits;
            assert_eq!(limits, ["the last disk sweep did not finish: x"]);
            assert_eq!(scan_at(&mut sentinel, 130), Some(Pass::Disk));
            let beside = scan_at(&mut sentinel, 360);
            assert_eq!(beside, Some(Pass::Quick), "no quick pass waits for it");
            steps(&mut sentinel, outcome(Pass::Disk, Vec::new()), at(361));
            assert!(sentinel.coverage(at(362)).limits.is_empty());
            assert_eq!(scan_at(&mut sentinel, 362), None, "one goes on");
        }
    }
}

/// A pass that goes from one second to another.
fn pass(sentinel: &mut Sentinel, expected: Pass, from: u64, to: u64) {
    assert_eq!(scan_at(sentinel, from), Some(expected));
    let Event::ScanFinished(mut finished) = outcome(expected, Vec::new()) else {
        unreachable!("an outcome");
    };
    let record = Some(ScanRecord::default());
    finished.coverage = Coverage::default();
    match expected {
        Pass::Full => finished.coverage.seen = record,
        Pass::Quick => finished.coverage.quick = record,
        Pass::Disk => {
            finished.coverage.disk = Some(ScanRecord {
                cached: 3,
                ..ScanRecord::default()
            });
        }
    }
    steps(sentinel, Event::ScanFinished(finished), at(to));
}

#[test]
fn an_age_counts_from_the_beginning_of_the_last_pass_that_ended_and_nothing_else_resets_it() {
    let mut sentinel = sentinel_of(2, Some(1), ProbeMode::Collector);
    assert_eq!(sentinel.coverage(at(5)).seen, None);
    pass(&mut sentinel, Pass::Full, 10, 100);
    pass(&mut sentinel, Pass::Disk, 100, 300);
    pass(&mut sentinel, Pass::Quick, 600, 601);
    let ages = |sentinel: &Sentinel, seconds| {
        let coverage = sentinel.coverage(at(seconds));
        [coverage.seen, coverage.disk].map(|record| {
            let record = record.unwrap();
            (
                record.age_seconds,
                record.oldest_seconds,
                record.ceiling_seconds.unwrap(),
            )
        })
    };
    let (full, disk) = (86_400 + 2 * 1800, 7 * 86_400 + 2 * 1800);
    assert_eq!(ages(&sentinel, 700), [(600, 690, full), (400, 600, disk)]);
    assert_eq!(scan_at(&mut sentinel, 100 + 86_400), Some(Pass::Full));
    assert_eq!(
        ages(&sentinel, 86_700)[0],
        (86_600, 86_690, full),
        "one goes on"
    );
    steps(
        &mut sentinel,
        Event::ScanFailed(Pass::Full, "interrupted".into()),
        at(86_800),
    );
    let coverage = sentinel.coverage(at(86_810));
    assert_eq!(
        coverage.seen.unwrap().oldest_seconds,
        86_800,
        "and did not end"
    );
    assert!(
        coverage
            .limits
            .iter()
            .any(|limit| limit.contains("3 files")),
        "what the sweep could not see stands: {:?}",
        coverage.limits
    );
    let late = sentinel.coverage(at(10 + full + 1));
    assert!(
        late.limits
            .iter()
            .any(|limit| limit.contains("the ceiling is")),
        "{:?}",
        late.limits
    );
    assert!(
        !sentinel
            .coverage(at(10 + full))
            .limits
            .iter()
            .any(|limit| limit.contains("ceiling"))
    );
}
