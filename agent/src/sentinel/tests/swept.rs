//! Sweeps of the processes: each in its time, what they find told, and their age said.

use super::*;
use crate::sweep::Swept;
use drift::coverage::ProcessSweep;
use drift::entry::Attribute;

fn with_image() -> Sentinel {
    let mut sentinel = sentinel();
    let image = ImageRef {
        name: "golden".into(),
        version: "1".into(),
        build: "amd64".into(),
        manifest: drift::Blake3::of(b"manifest"),
    };
    steps(&mut sentinel, Event::BaselineOpened(image), at(0));
    sentinel
}

/// Of which files it is told that they drifted, where a sweep is due.
fn sweep_at(sentinel: &mut Sentinel, seconds: u64) -> Option<Vec<String>> {
    let actions = steps(sentinel, Event::Tick, at(seconds));
    actions.into_iter().find_map(|action| match action {
        Action::Sweep(drifted) => Some(drifted.iter().map(TreePath::to_text).collect()),
        _ => None,
    })
}

fn swept(record: ProcessSweep, moments: Vec<Drift>) -> Event {
    Event::Swept(Box::new(Swept {
        record,
        moments,
        ..Swept::default()
    }))
}

#[test]
fn a_sweep_comes_after_each_interval_and_one_at_a_time_and_not_without_an_image() {
    assert_eq!(sweep_at(&mut sentinel(), 1), None);
    let mut sentinel = with_image();
    assert_eq!(sweep_at(&mut sentinel, 1), Some(Vec::new()));
    assert_eq!(sweep_at(&mut sentinel, 600), None);
    steps(
        &mut sentinel,
        swept(ProcessSweep::default(), Vec::new()),
        at(601),
    );
    assert_eq!(sweep_at(&mut sentinel, 660), None);
    assert!(sweep_at(&mut sentinel, 661).is_some());
    let failed = Event::SweepFailed("no /proc".into());
    steps(&mut sentinel, failed, at(662));
    assert_eq!(sweep_at(&mut sentinel, 700), None);
    assert!(sweep_at(&mut sentinel, 722).is_some());
}

#[test]
fn a_sweep_is_told_which_files_have_other_content() {
    let mut sentinel = with_image();
    let mut written = drift("written");
    written.kind = DriftKind::Changed;
    written.changed = AttributeSet::of(&[Attribute::Content, Attribute::Size]);
    let mut opened = written.clone();
    opened.path = TreePath::new(b"mode").unwrap();
    opened.changed = AttributeSet::of(&[Attribute::Mode]);
    let found = outcome(Pass::Full, vec![written, opened, drift("added")]);
    steps(&mut sentinel, found, at(1));
    assert_eq!(
        sweep_at(&mut sentinel, 2),
        Some(vec!["/written".to_owned()])
    );
}

#[test]
fn what_a_sweep_finds_is_a_moment_and_opens_nothing() {
    let mut sentinel = with_image();
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(1));
    let reports = kept(steps(
        &mut sentinel,
        swept(ProcessSweep::default(), vec![drift("evil")]),
        at(2),
    ));
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].moments[0].drift, drift("evil"));
    assert_eq!((reports[0].opened.len(), sentinel.open_count()), (0, 0));
}

#[test]
fn coverage_says_how_long_ago_processes_were_swept_and_what_was_not_seen() {
    let mut sentinel = with_image();
    assert!(sentinel.coverage(at(0)).processes.is_none());
    sweep_at(&mut sentinel, 10);
    let record = ProcessSweep {
        processes: 7,
        unread: 2,
        mapped: 1,
        mapped_paths: vec![TreePath::new(b"etc/mapped").unwrap()],
        ..ProcessSweep::default()
    };
    steps(&mut sentinel, swept(record, Vec::new()), at(12));
    // Whatever pass comes next, it is no word on processes.
    steps(&mut sentinel, outcome(Pass::Full, Vec::new()), at(13));
    let coverage = sentinel.coverage(at(30));
    let processes = coverage.processes.unwrap();
    assert_eq!((processes.age_seconds, processes.processes), (20, 7));
    let says =
        |coverage: &Coverage, word: &str| coverage.limits.iter().any(|limit| limit.contains(word));
    let coverage = sentinel.coverage(at(30));
    assert!(
        says(&coverage, "could not look at 2 of them"),
        "{coverage:?}"
    );
    assert!(says(&coverage, "/etc/mapped"), "{coverage:?}");
    assert!(!says(&coverage, "last swept"), "{coverage:?}");
    assert!(says(&sentinel.coverage(at(191)), "last swept 181 s ago"));
    sweep_at(&mut sentinel, 191);
    steps(
        &mut sentinel,
        Event::SweepFailed("no /proc".into()),
        at(192),
    );
    assert!(says(&sentinel.coverage(at(192)), "no /proc"));
}
