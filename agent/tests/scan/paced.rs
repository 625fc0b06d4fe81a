//! A scan as the daemon makes it: kept back, and what runs at boot first. It finds what any other finds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drift::compare::Finding;
use driftmark_agent::baseline::Baseline;
use driftmark_agent::pace::{Budget, Pacer, Pressure, Urgency};
use driftmark_agent::scan::{Order, Pass, ScanError, ScanRequest, ScanSummary, Verified, scan};

use crate::{baked, found, grown, naive, settle};

struct How<'a> {
    pass: Pass,
    threads: usize,
    order: Order,
    pace: Option<&'a Pacer>,
    interrupt: &'a AtomicBool,
}

fn scanned(
    baseline: &Baseline,
    root: &Path,
    how: &How<'_>,
    verified: &mut Verified,
) -> Result<(Vec<String>, ScanSummary), ScanError> {
    let request = ScanRequest {
        baseline,
        root,
        pass: how.pass,
        threads: how.threads,
        held_length: &|_| None,
        interrupt: how.interrupt,
        pace: how.pace,
        order: how.order,
        progress: &|_| {},
    };
    let mut told = Vec::new();
    let summary = scan(&request, verified, &mut |finding| match finding {
        Finding::Drift(found) => told.push(found.drift.path.to_string()),
        other => panic!("{other:?}"),
    })?;
    Ok((told, summary))
}

fn pacer(bytes_per_second: u64, seconds: u64) -> Pacer {
    let budget = Budget {
        bytes_per_second,
        within: Duration::from_secs(seconds),
        urgency: Urgency::Routine,
    };
    Pacer::new(budget, Pressure::open())
}

/// Each has more entries than a part, and something new in the middle of them.
const DIRECTORIES: [&str; 6] = ["aaa", "etc", "srv", "usr/bin", "usr/lib", "usr/share"];

#[test]
fn configuration_and_programs_are_reached_first_then_libraries_then_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    for directory in DIRECTORIES {
        let directory = root.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        for nth in 0..3000_u32 {
            let half = if nth < 1500 { "a" } else { "z" };
            // Names and contents that a manifest has to write out.
            let content = nth.to_le_bytes();
            let name = format!("{half}-{nth:05}-{}", drift::Blake3::of(&content));
            std::fs::write(directory.join(name), content).unwrap();
        }
        let long = std::fs::File::create(directory.join("m-long")).unwrap();
        long.set_len(9 << 20).unwrap();
    }
    let baseline = baked(home.path(), &root, "");
    for directory in DIRECTORIES {
        let directory = root.join(directory);
        std::fs::write(directory.join("m-new"), "").unwrap();
        let long = std::fs::File::options()
            .write(true)
            .open(directory.join("m-long"));
        long.unwrap().set_len(8 << 20).unwrap();
    }
    let never = AtomicBool::new(false);
    let with = |order, threads| {
        let how = How {
            pass: Pass::Full,
            threads,
            order,
            pace: None,
            interrupt: &never,
        };
        scanned(&baseline, &root, &how, &mut Verified::default()).unwrap()
    };
    let (plain, summary) = with(Order::OfPaths, 1);
    let firsts = |told: &[String], name: &str| -> Vec<String> {
        let named = told.iter().filter_map(|path| path.strip_suffix(name));
        named
            .map(|path| path.trim_matches('/').to_owned())
            .collect()
    };
    assert_eq!(firsts(&plain, "m-new"), DIRECTORIES);
    for threads in [1, 2] {
        let (told, first) = with(Order::RunsFirst, threads);
        let set = |told: &[String]| told.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&told), set(&plain), "nothing is left out");
        assert_eq!(
            (first.entries, first.coverage.verified_entries),
            (summary.entries, summary.coverage.verified_entries)
        );
        if threads == 1 {
            let order = ["etc", "usr/bin", "usr/lib", "aaa", "srv", "usr/share"];
            assert_eq!(firsts(&told, "m-new"), order);
        } else {
            // Long files that all threads hash together come last, but those that run.
            let mut long = firsts(&told, "m-long");
            long[..3].sort();
            assert_eq!(long[..3], ["etc", "usr/bin", "usr/lib"]);
        }
    }
}

#[test]
fn a_scan_that_is_kept_back_drifts_as_a_naive_one_says_on_every_pass() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    let mut random = grown::Random::of(11);
    grown::grow(&root, &mut random);
    let baseline = baked(home.path(), &root, "");
    let expected: Vec<_> = baseline.manifest.entries().map(Result::unwrap).collect();
    settle();
    let mut verified = Verified::default();
    let (clean, _) = found(&baseline, &root, (Pass::Full, 2), &mut verified);
    assert!(clean.is_empty());
    grown::change(&root, &mut random);
    let naive: BTreeSet<String> = naive::compare(&root, &expected)
        .keys()
        .map(ToString::to_string)
        .collect();
    let never = AtomicBool::new(false);
    for pass in [Pass::Full, Pass::Quick, Pass::Disk] {
        let pacer = pacer(64 << 20, 3);
        let how = How {
            pass,
            threads: 2,
            order: Order::RunsFirst,
            pace: Some(&pacer),
            interrupt: &never,
        };
        let (told, _) = scanned(&baseline, &root, &how, &mut verified.clone()).unwrap();
        let told: BTreeSet<String> = told.into_iter().collect();
        assert_eq!(told, naive, "{pass:?}");
    }
}

#[test]
fn a_sweep_of_the_disk_marks_nothing_that_a_quick_pass_would_trust() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("file"), "content").unwrap();
    let baseline = baked(home.path(), &root, "");
    settle();
    let mut verified = Verified::default();
    let (clean, _) = found(&baseline, &root, (Pass::Disk, 2), &mut verified);
    assert!(clean.is_empty() && verified.is_empty());
    found(&baseline, &root, (Pass::Full, 2), &mut verified);
    let before = verified.clone();
    found(&baseline, &root, (Pass::Disk, 2), &mut verified);
    assert_eq!(verified, before);
}

#[test]
fn a_scan_that_rests_ends_soon_when_it_is_told_to_and_comes_to_no_verdict() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    for name in ["one", "two"] {
        std::fs::write(root.join(name), vec![7; 1 << 20]).unwrap();
        let long = std::fs::File::create(root.join(format!("long-{name}"))).unwrap();
        long.set_len(20 << 20).unwrap();
    }
    let baseline = baked(home.path(), &root, "");
    let interrupt = AtomicBool::new(false);
    let pacer = pacer(64 << 10, 3600);
    let how = How {
        pass: Pass::Full,
        threads: 2,
        order: Order::OfPaths,
        pace: Some(&pacer),
        interrupt: &interrupt,
    };
    std::thread::scope(|scope| {
        let scanning =
            scope.spawn(|| scanned(&baseline, &root, &how, &mut Verified::default()).err());
        std::thread::park_timeout(Duration::from_millis(700));
        assert!(!scanning.is_finished(), "42 MB at 64 KiB a second");
        interrupt.store(true, Ordering::Relaxed);
        let told = Instant::now();
        let ended = scanning.join().unwrap();
        assert!(matches!(ended, Some(ScanError::Interrupted)), "{ended:?}");
        assert!(told.elapsed() < Duration::from_secs(2));
    });
}
