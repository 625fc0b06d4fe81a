//! What the watch says between scans, and beside them.

use drift::attribution::{Attribution, Confidence, Process};
use drift::report::OpenDrift;

use super::*;
use crate::scan::{Look, Reach};

fn look(name: &str, reach: Reach) -> Look {
    let path = TreePath::new(name.as_bytes()).unwrap();
    Look { path, reach }
}

/// Looks at names alone found these of them drifted, by process 7.
fn sighting(names: &[impl AsRef<str>], drifted: &[impl AsRef<str>]) -> Sighting {
    let by = Arc::new(Attribution {
        confidence: Confidence::Certain,
        process: Some(Process {
            pid: 7,
            ..Process::default()
        }),
    });
    let looks = names.iter();
    let looks: Vec<Look> = looks
        .map(|name| look(name.as_ref(), Reach::Itself))
        .collect();
    Sighting {
        actors: looks
            .iter()
            .map(|look| (look.path.clone(), Arc::clone(&by)))
            .collect(),
        looks,
        drifts: drifted.iter().map(|name| drift(name.as_ref())).collect(),
        ..Sighting::default()
    }
}

pub(super) fn seen(names: &[impl AsRef<str>], drifted: &[impl AsRef<str>]) -> Event {
    Event::Seen(Box::new(sighting(names, drifted)))
}

const NONE: [&str; 0] = [];

pub(super) fn scanned(drifted: &[&str]) -> Sentinel {
    let mut sentinel = sentinel();
    let drifts = drifted.iter().map(|name| drift(name)).collect();
    steps(&mut sentinel, Event::Tick, at(0));
    steps(&mut sentinel, outcome(Pass::Full, drifts), at(10));
    sentinel
}

fn is_open(sentinel: &Sentinel, name: &str) -> bool {
    let path = TreePath::new(name.as_bytes()).unwrap();
    sentinel.open().any(|(_, drift)| drift.path == path)
}

fn passes(actions: &[Action]) -> Vec<Pass> {
    let of = |action: &Action| match action {
        Action::Scan(pass, _) => Some(*pass),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn pid(drift: &Drift) -> Option<u32> {
    let process = drift.attribution.as_ref()?.process.as_ref()?;
    Some(process.pid)
}

#[test]
fn a_look_opens_and_closes_at_once_and_says_who_did_it() {
    let mut sentinel = scanned(&["old"]);
    let reports = kept(steps(&mut sentinel, seen(&["a", "b"], &["a"]), at(11)));
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].opened.len(), 1);
    assert_eq!(reports[0].open_count, 2);
    assert_eq!(pid(&reports[0].opened[0].drift), Some(7));
    let reports = kept(steps(&mut sentinel, seen(&["a", "old"], &NONE), at(12)));
    assert_eq!(reports[0].closed.len(), 2);
    assert_eq!(reports[0].open_count, 0);
    assert!(kept(steps(&mut sentinel, seen(&["a"], &NONE), at(13))).is_empty());
}

#[test]
fn what_a_pass_opened_first_is_opened_again_with_who_did_it_and_once() {
    let mut sentinel = scanned(&["a"]);
    let reports = kept(steps(&mut sentinel, seen(&["a"], &["a"]), at(11)));
    assert_eq!(reports[0].opened.len(), 1);
    assert_eq!(pid(&reports[0].opened[0].drift), Some(7));
    assert_eq!(reports[0].open_count, 1);
    assert!(kept(steps(&mut sentinel, seen(&["a"], &["a"]), at(12))).is_empty());
}

#[test]
fn what_could_not_be_looked_at_stays_open_and_so_does_what_others_see() {
    let mut sentinel = scanned(&["old"]);
    let mut unseen = sighting(&["old"], &NONE);
    unseen.unseen = vec![TreePath::new(b"old").unwrap()];
    steps(&mut sentinel, Event::Seen(Box::new(unseen)), at(11));
    assert!(is_open(&sentinel, "old"));
    let mut covered = drift("mnt");
    covered.kind = DriftKind::Covered;
    steps(&mut sentinel, outcome(Pass::Full, vec![covered]), at(12));
    let mut all = sighting(&NONE, &NONE);
    all.looks = vec![look("mnt", Reach::Below)];
    steps(&mut sentinel, Event::Seen(Box::new(all)), at(13));
    assert!(is_open(&sentinel, "mnt"));
}

#[test]
fn of_a_look_and_a_pass_the_later_one_has_the_word() {
    for (began, looked, is_the_pass) in [(310, 320, false), (340, 330, true)] {
        let mut sentinel = scanned(&["gone"]);
        let mut events = [(began, Event::Tick), (looked, seen(&["a", "gone"], &["a"]))];
        events.sort_by_key(|(at, _)| *at);
        for (time, event) in events {
            steps(&mut sentinel, event, at(time));
        }
        let drifts = vec![drift("gone"), drift("other")];
        steps(&mut sentinel, outcome(Pass::Quick, drifts), at(350));
        let open = ["a", "gone", "other"].map(|name| is_open(&sentinel, name));
        assert_eq!(open, [!is_the_pass, is_the_pass, true], "{began} {looked}");
    }
}

#[test]
fn a_full_pass_has_the_later_word_but_where_was_looked_since_it_looked_itself() {
    const BEGAN: u64 = 10 + 86_400;
    for (looked, is_the_pass) in [(BEGAN + 100, true), (BEGAN + 1650, false)] {
        let mut sentinel = scanned(&["gone"]);
        steps(&mut sentinel, Event::Tick, at(BEGAN));
        steps(&mut sentinel, seen(&["a", "gone"], &["a"]), at(looked));
        let Event::ScanFinished(mut full) = outcome(Pass::Full, vec![drift("gone")]) else {
            unreachable!("an outcome");
        };
        // It read for so long; what it found then was looked at in the end.
        full.looking_since = Some(at(BEGAN + 1600).uptime);
        steps(&mut sentinel, Event::ScanFinished(full), at(BEGAN + 1700));
        let open = ["a", "gone"].map(|name| is_open(&sentinel, name));
        assert_eq!(open, [!is_the_pass, is_the_pass], "{looked}");
    }
}

#[test]
fn before_the_first_full_scan_has_ended_looks_are_kept_and_not_told() {
    let mut sentinel = sentinel();
    steps(&mut sentinel, Event::Tick, at(0));
    let told = steps(&mut sentinel, seen(&["a", "b"], &["a"]), at(1));
    assert!(kept(told).is_empty());
    let drifts = vec![drift("b"), drift("c")];
    let told = kept(steps(&mut sentinel, outcome(Pass::Full, drifts), at(2)));
    let mut opened: Vec<_> = told[0].opened.iter().map(|open| &open.drift).collect();
    opened.sort_by_key(|drift| &drift.path);
    let paths: Vec<_> = opened.iter().map(|drift| drift.path.to_string()).collect();
    assert_eq!(paths, ["/a", "/c"]);
    assert_eq!(pid(opened[0]), Some(7));
}

#[test]
fn lost_events_are_said_until_a_quick_pass_that_began_after_them_has_ended() {
    let mut sentinel = scanned(&[]);
    let (from, until) = (at(20).uptime, at(22).uptime);
    steps(&mut sentinel, Event::Blind { from, until }, at(22));
    let coverage = sentinel.coverage(at(22));
    assert!(
        coverage
            .limits
            .iter()
            .any(|limit| limit.contains("was blind"))
    );
    let actions = steps(&mut sentinel, Event::Tick, at(23));
    assert_eq!(passes(&actions), [Pass::Quick]);
    steps(&mut sentinel, outcome(Pass::Quick, vec![]), at(24));
    let coverage = sentinel.coverage(at(24));
    assert!(coverage.limits.is_empty(), "{:?}", coverage.limits);
    assert!(coverage.notes.iter().any(|note| note.contains("2000 ms")));
    // And once it is told, another one is not wanted before its time.
    assert!(passes(&steps(&mut sentinel, Event::Tick, at(40))).is_empty());
}

#[test]
fn a_doubt_is_not_settled_by_a_pass_that_had_begun_before_it() {
    let mut sentinel = scanned(&[]);
    assert_eq!(
        passes(&steps(&mut sentinel, Event::Tick, at(310))),
        [Pass::Quick]
    );
    steps(&mut sentinel, Event::InDoubt, at(311));
    steps(&mut sentinel, outcome(Pass::Quick, vec![]), at(312));
    assert_eq!(
        passes(&steps(&mut sentinel, Event::Tick, at(320))),
        [Pass::Quick]
    );
    steps(&mut sentinel, outcome(Pass::Quick, vec![]), at(321));
    assert!(passes(&steps(&mut sentinel, Event::Tick, at(330))).is_empty());
}

#[test]
fn who_did_what_a_pass_has_to_tell_is_remembered_for_it() {
    let mut sentinel = scanned(&[]);
    let mut doubtful = sighting(&["dir"], &NONE);
    doubtful.is_in_doubt = true;
    steps(&mut sentinel, Event::Seen(Box::new(doubtful)), at(11));
    steps(&mut sentinel, Event::Tick, at(16));
    let found = outcome(Pass::Quick, vec![drift("dir/file"), drift("other")]);
    let told = kept(steps(&mut sentinel, found, at(17)));
    let by = |path: &str| {
        let mut opened = told[0].opened.iter();
        let open = opened.find(|open| open.drift.path.to_string() == path);
        pid(&open.unwrap().drift)
    };
    assert_eq!((by("/dir/file"), by("/other")), (Some(7), None));
}

#[test]
fn moments_are_told_with_who_did_it_unless_it_was_drift_before_or_they_are_too_many() {
    let mut sentinel = scanned(&["old"]);
    let mut passed = sighting(&["a", "old"], &NONE);
    passed.passed = vec![drift("a"), drift("old")];
    let told = kept(steps(&mut sentinel, Event::Seen(Box::new(passed)), at(11)));
    let moments: Vec<_> = told.iter().flat_map(|report| &report.moments).collect();
    assert_eq!(moments.len(), 1);
    assert_eq!(moments[0].drift.path.to_string(), "/a");
    assert_eq!(pid(&moments[0].drift), Some(7));
    let mut many = sighting(&NONE, &NONE);
    many.passed = (0..1000).map(|number| drift(&number.to_string())).collect();
    let told = kept(steps(&mut sentinel, Event::Seen(Box::new(many)), at(12)));
    let count: usize = told.iter().map(|report| report.moments.len()).sum();
    assert_eq!(count, 99);
    assert_eq!(sentinel.dropped_moments(), 901);
    assert!(told.iter().all(|report| report.check_limits().is_ok()));
}

#[test]
fn a_watch_that_ended_or_sees_less_is_a_limit() {
    let mut sentinel = scanned(&[]);
    steps(&mut sentinel, Event::Watching(vec!["less".into()]), at(11));
    assert_eq!(sentinel.coverage(at(11)).limits, ["less"]);
    steps(&mut sentinel, Event::WatchEnded("why".into()), at(12));
    let limits = sentinel.coverage(at(12)).limits;
    assert!(
        limits.iter().any(|limit| limit.contains("why")),
        "{limits:?}"
    );
}

#[test]
fn where_much_is_open_news_come_together_and_are_told_before_anything_else() {
    let many: Vec<String> = (0..60_000).map(|number| format!("many/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut sentinel = scanned(&many);
    let opened = |reports: &[Report]| -> Vec<String> {
        let opened = reports.iter().flat_map(|report| &report.opened);
        opened.map(|open| open.drift.path.to_string()).collect()
    };
    let told = kept(steps(&mut sentinel, seen(&["a"], &["a"]), at(11)));
    assert_eq!(opened(&told), ["/a"]);
    for name in ["b", "c"] {
        let told = kept(steps(&mut sentinel, seen(&[name], &[name]), at(12)));
        assert_eq!(told.len(), 0);
    }
    assert_eq!(sentinel.open_count(), 60_003);
    let told = kept(steps(&mut sentinel, Event::Tick, at(13)));
    assert_eq!((told.len(), opened(&told).len()), (1, 2));
    // What was open and is not any more is told as something that happened, and after what is new.
    steps(&mut sentinel, seen(&["d", "e"], &["d", "e"]), at(14));
    let told = kept(steps(&mut sentinel, seen(&["d"], &NONE), at(14)));
    assert_eq!((told.len(), opened(&told)), (2, vec!["/e".to_owned()]));
    assert_eq!(told[1].moments[0].drift.path.to_string(), "/d");
    assert_eq!(told[1].open_count, 60_004);
}

#[test]
fn of_who_did_a_hundred_things_all_is_told_with_the_first_ones() {
    let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sighting = sighting(&names, &names);
    let by = Arc::new(Attribution {
        confidence: Confidence::Certain,
        process: Some(Process {
            pid: 7,
            command_line: Some("cp of/all this".into()),
            ..Process::default()
        }),
    });
    let actors = sighting.actors.values_mut();
    actors.for_each(|actor| *actor = Arc::clone(&by));
    let mut sentinel = scanned(&[]);
    let told = kept(steps(
        &mut sentinel,
        Event::Seen(Box::new(sighting)),
        at(11),
    ));
    let opened: Vec<_> = told.iter().flat_map(|report| &report.opened).collect();
    assert!(opened.iter().all(|open| pid(&open.drift) == Some(7)));
    let in_full = |open: &&&OpenDrift| {
        let by = open.drift.attribution.as_ref().unwrap();
        by.process.as_ref().unwrap().command_line.is_some()
    };
    assert_eq!(
        (opened.len(), opened.iter().filter(in_full).count()),
        (100, 16)
    );
}

#[test]
fn who_did_the_last_of_it_is_told_once_it_is_heard_where_a_look_had_seen_it_already() {
    let mut sentinel = scanned(&[]);
    steps(&mut sentinel, seen(&["a"], &["a"]), at(11));
    let by_another = |is_amended: bool| {
        let mut sighting = sighting(&["a"], &["a"]);
        let by = Attribution {
            confidence: Confidence::Certain,
            process: Some(Process {
                pid: 8,
                ..Process::default()
            }),
        };
        sighting.actors.insert(drift("a").path, Arc::new(by));
        let amended = is_amended.then(|| drift("a").path);
        sighting.amended.extend(amended);
        Event::Seen(Box::new(sighting))
    };
    // Long after: it is what it was, whoever touched it since.
    assert!(kept(steps(&mut sentinel, by_another(false), at(12))).is_empty());
    let told = kept(steps(&mut sentinel, by_another(true), at(13)));
    let opened: Vec<_> = told.iter().flat_map(|report| &report.opened).collect();
    assert_eq!(opened.len(), 1);
    assert_eq!(pid(&opened[0].drift), Some(8));
    assert!(kept(steps(&mut sentinel, by_another(true), at(14))).is_empty());
}

#[test]
fn what_a_pass_knows_of_packages_is_told_of_what_the_watch_had_opened_and_once() {
    let mut sentinel = scanned(&[]);
    steps(&mut sentinel, seen(&["a", "b"], &["a", "b"]), at(11));
    let labelled = || {
        let mut found = outcome(Pass::Quick, vec![drift("a"), drift("b")]);
        let Event::ScanFinished(of) = &mut found else {
            unreachable!("an outcome is the end of a scan");
        };
        let package = HostPackage {
            name: "tiny".into(),
            version: "1.1".into(),
            matches: true,
        };
        of.packages.insert(drift("a").path, package);
        found
    };
    steps(&mut sentinel, Event::Tick, at(20));
    let told = kept(steps(&mut sentinel, labelled(), at(21)));
    let opened: Vec<_> = told.iter().flat_map(|report| &report.opened).collect();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0].host_package.as_ref().unwrap().name, "tiny");
    assert_eq!(pid(&opened[0].drift), Some(7));
    assert!(kept(steps(&mut sentinel, labelled(), at(31))).is_empty());
}
