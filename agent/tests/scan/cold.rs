//! Files that are on the disk alone: long ones are read around the page cache, and more threads come to help.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use drift::TreePath;
use drift::compare::Finding;
use driftmark_agent::scan::{Order, Pass, ScanRequest, Verified, scan};
use driftmark_kernel::Stat;
use driftmark_kernel::page_cache::Passing;

use super::{Cache, baked, found, settle};

const MIB: usize = 1 << 20;
/// Around a buffer's length, a segment's and what makes a file a long one.
const LENGTHS: [usize; 10] = [
    1,
    4096,
    MIB - 1,
    MIB,
    MIB + 1,
    MIB + (1 << 18),
    3 * MIB + 4097,
    8 * MIB - 1,
    8 * MIB,
    9 * MIB + 5,
];

/// Whether nothing of a file is in the page cache, where that can be told.
fn is_absent(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    let mut passing = Passing::default();
    passing.begin(Stat::of(&file).unwrap().dev);
    passing.is_absent(&file)
}

#[test]
fn files_of_any_length_that_are_on_the_disk_alone_are_read_whole_and_leave_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let file = |nth: usize| root.join(format!("{nth:02}"));
    for nth in 0..3 * LENGTHS.len() {
        let length = LENGTHS[nth % LENGTHS.len()];
        let content: Vec<u8> = (0..length).map(|at| ((at + nth) % 251) as u8).collect();
        std::fs::write(file(nth), content).unwrap();
    }
    let baseline = baked(home.path(), &root, "");
    settle();
    Cache::Cold.of(&root);
    let can_tell = is_absent(&file(3));
    for threads in [1, 2, 5] {
        Cache::Cold.of(&root);
        let how = (Pass::Full, threads);
        let (drifts, _) = found(&baseline, &root, how, &mut Verified::default());
        assert!(drifts.is_empty(), "{threads} threads: {drifts:?}");
        if can_tell {
            let left = (0..3 * LENGTHS.len()).filter(|nth| {
                let is_long = LENGTHS[nth % LENGTHS.len()] >= MIB;
                is_long && !is_absent(&file(*nth))
            });
            let left: Vec<usize> = left.collect();
            assert!(left.is_empty(), "{threads} threads: {left:?}");
        }
    }
    if !can_tell {
        println!("skipped: what is in the page cache cannot be told here, or not dropped");
    }
    // The last byte of each, and nothing else.
    for nth in LENGTHS.len()..2 * LENGTHS.len() {
        let last = LENGTHS[nth % LENGTHS.len()] as u64 - 1;
        let file = File::options().write(true).open(file(nth)).unwrap();
        file.write_all_at(&[255], last).unwrap();
    }
    let expected: Vec<String> = (LENGTHS.len()..2 * LENGTHS.len())
        .map(|nth| format!("/{nth:02}"))
        .collect();
    for cache in [Cache::Cold, Cache::Warm] {
        for threads in [1, 2, 5] {
            cache.of(&root);
            let how = (Pass::Full, threads);
            let (drifts, _) = found(&baseline, &root, how, &mut Verified::default());
            let paths: Vec<String> = drifts.keys().map(ToString::to_string).collect();
            assert_eq!(paths, expected, "{threads} threads, {cache:?}");
        }
    }
}

#[test]
fn a_short_file_that_is_a_long_one_by_the_time_it_has_come_is_told_as_any_other() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let (early, log) = (root.join("early"), root.join("log"));
    std::fs::write(&early, vec![1; 4096]).unwrap();
    std::fs::write(&log, "begun\n").unwrap();
    let rules = "[[rule]]\npath = \"/log\"\ntype = \"append-only\"\nreason = \"a log\"\n";
    let baseline = baked(home.path(), &root, rules);
    settle();
    Cache::Cold.of(&root);
    // Asked when the walk comes to the log: what comes before it was asked for, and is not read yet.
    let grow = |_: &TreePath| {
        let file = File::options().write(true).open(&early).unwrap();
        file.set_len(9 * MIB as u64).unwrap();
        None
    };
    let request = ScanRequest {
        baseline: &baseline,
        root: &root,
        pass: Pass::Full,
        threads: 1,
        held_length: &grow,
        interrupt: &AtomicBool::new(false),
        pace: None,
        order: Order::OfPaths,
        progress: &|_| {},
    };
    let mut drifted = Vec::new();
    let outcome = scan(&request, &mut Verified::default(), &mut |finding| {
        if let Finding::Drift(found) = finding {
            drifted.push(found.drift.path.to_string());
        }
    });
    assert_eq!(outcome.unwrap().entries, 3);
    assert_eq!(drifted, ["/early"]);
}
