//! A quick pass passes over the parts that look as they did: the manifest is not asked, and nothing is missed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use driftmark_agent::baseline::{Baseline, BaselinePaths};
use driftmark_agent::scan::{Pass, ScanError, ScanRequest, Verified, scan};

use super::{baked, found, grown, naive, request, settle, told};

/// Changes of one tree, one after the other, and a quick pass or two after each.
const CHANGES: usize = 16;
const THREADS: usize = 2;

#[test]
fn what_changes_one_by_one_is_found_each_time_among_parts_that_look_as_they_did() {
    for seed in 10..12 {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        let mut random = grown::Random::of(seed);
        grown::grow(&root, &mut random);
        // All is read after each change by the naive one, who takes its time.
        for long in ["long", "long that changes"] {
            std::fs::remove_file(root.join(long)).unwrap();
        }
        let baseline = baked(home.path(), &root, "");
        let expected: Vec<_> = baseline.manifest.entries().map(Result::unwrap).collect();
        settle();
        let mut verified = Verified::default();
        found(&baseline, &root, (Pass::Full, THREADS), &mut verified);
        for nth in 0..CHANGES {
            grown::change_one(&root, &mut random);
            let naive = naive::compare(&root, &expected);
            for again in 0..2 {
                let (quick, _) = found(&baseline, &root, (Pass::Quick, THREADS), &mut verified);
                assert_eq!(quick, naive, "seed {seed}, change {nth}, pass {again}");
            }
            if nth % 5 == 4 {
                // What a full pass draws is what the next quick one goes by.
                found(&baseline, &root, (Pass::Full, THREADS), &mut verified);
            }
        }
    }
}

#[test]
fn a_block_of_the_manifest_is_only_read_once_something_of_its_part_has_moved() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    grown::grow(&root, &mut grown::Random::of(20));
    let baseline = baked(home.path(), &root, "");
    settle();
    let mut verified = Verified::default();
    let (clean, _) = found(&baseline, &root, (Pass::Full, THREADS), &mut verified);
    assert!(clean.is_empty(), "{clean:?}");
    // The end of a name: what it shares with the one before is not written again.
    let broken = broken(home.path(), b" that changes");
    let entries = baseline.manifest.header().entry_count;
    for _ in 0..2 {
        let (findings, summary) = told(&broken, &root, (Pass::Quick, THREADS), &mut verified);
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!((summary.entries, summary.rehashed), (entries, 0));
    }
    let file = std::fs::File::open(root.join("long that changes")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let request = request(&broken, &root, (Pass::Quick, THREADS));
    let outcome = scan(&request, &mut verified, &mut |_| {});
    assert!(matches!(outcome, Err(ScanError::Compare(_))), "{outcome:?}");
}

/// Files that lie between others: more than one part has.
const BETWEEN: usize = 4000;
const VOLATILE: &str = r#"
    [[rule]]
    type = "volatile"
    path = "/v"
    reason = "of the test"
"#;

const LONG_BYTES: u64 = 128 * 1024 * 1024;

/// A tree of several parts: what is in `a`, `m` and `z` is in different ones.
fn wide(root: &Path) {
    for directory in ["a", "b", "m", "n", "v", "z"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for nth in 0..BETWEEN {
        // Content that is everybody's would be in the manifest once.
        std::fs::write(root.join(format!("b/{nth}")), nth.to_string()).unwrap();
        std::fs::write(root.join(format!("n/{nth}")), format!("-{nth}")).unwrap();
    }
}

fn baked_in_parts(home: &Path, root: &Path, rules: &str) -> Baseline {
    let baseline = baked(home, root, rules);
    assert!(
        baseline.manifest.block_count() > 4,
        "there are several parts"
    );
    settle();
    baseline
}

/// All that drifts, found without anything that is known from before.
fn afresh(baseline: &Baseline, root: &Path) -> naive::Drifts {
    found(baseline, root, (Pass::Full, 1), &mut Verified::default()).0
}

#[test]
fn what_a_pass_drew_that_failed_is_not_gone_by() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    wide(&root);
    std::fs::create_dir(root.join("a/d")).unwrap();
    std::fs::write(root.join("a/d/x"), "one file").unwrap();
    std::fs::hard_link(root.join("a/d/x"), root.join("m/y")).unwrap();
    let long = std::fs::File::create(root.join("z/long")).unwrap();
    long.set_len(LONG_BYTES).unwrap();
    let baseline = baked_in_parts(home.path(), &root, VOLATILE);
    let mut verified = Verified::default();
    found(&baseline, &root, (Pass::Full, 1), &mut verified);
    // One of the names is where nobody looks, and its inode says nothing of that.
    std::fs::rename(root.join("a/d"), root.join("v/d")).unwrap();
    long.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let expected = afresh(&baseline, &root);
    assert!(expected.contains_key(&drift::TreePath::new(b"m/y").unwrap()));
    settle();
    // All parts are done by the time that most of the long file is.
    let interrupt = AtomicBool::new(false);
    let request = ScanRequest {
        interrupt: &interrupt,
        progress: &|progress| {
            interrupt.fetch_or(progress.bytes > LONG_BYTES / 4 * 3, Ordering::Relaxed);
        },
        ..request(&baseline, &root, (Pass::Quick, 2))
    };
    let failed = scan(&request, &mut verified, &mut |_| {});
    assert!(matches!(failed, Err(ScanError::Interrupted)), "{failed:?}");
    let (quick, _) = found(&baseline, &root, (Pass::Quick, 2), &mut verified);
    assert_eq!(quick, expected);
}

/// What drifts in a wide tree that was changed, as quick passes tell it that know how it looked before: as a full one.
fn told_by_quick_passes(
    rules: &str,
    grow: impl Fn(&Path),
    change: impl Fn(&Path),
) -> naive::Drifts {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    wide(&root);
    grow(&root);
    let baseline = baked_in_parts(home.path(), &root, rules);
    let mut verified = Verified::default();
    let (clean, _) = found(&baseline, &root, (Pass::Full, 2), &mut verified);
    assert!(clean.is_empty(), "{clean:?}");
    change(&root);
    let expected = afresh(&baseline, &root);
    for _ in 0..2 {
        let (quick, _) = found(&baseline, &root, (Pass::Quick, 2), &mut verified);
        assert_eq!(quick, expected);
    }
    expected
}

#[test]
fn a_name_that_came_with_its_directory_is_another_name_of_what_is_elsewhere() {
    let grow = |root: &Path| {
        std::fs::create_dir(root.join("v/d")).unwrap();
        std::fs::write(root.join("m/x"), "one file").unwrap();
        std::fs::hard_link(root.join("m/x"), root.join("v/d/y")).unwrap();
    };
    let change = |root: &Path| std::fs::rename(root.join("v/d"), root.join("a/d")).unwrap();
    let told = told_by_quick_passes(VOLATILE, grow, change);
    assert!(told.contains_key(&drift::TreePath::new(b"m/x").unwrap()));
}

#[test]
fn what_is_held_below_a_volatile_directory_is_where_that_is() {
    let kept = r#"
        [[rule]]
        type = "absent"
        path = "/v/*/*/kept"
        reason = "of the test"
    "#;
    let grow = |root: &Path| {
        std::fs::create_dir_all(root.join("v/w/one")).unwrap();
        std::fs::write(root.join("v/w/one/kept"), "of the image").unwrap();
    };
    // Its length is the same, and nothing is held of it.
    let change = |root: &Path| std::fs::rename(root.join("v/w/one"), root.join("v/w/two")).unwrap();
    let told = told_by_quick_passes(&format!("{kept}{VOLATILE}"), grow, change);
    assert!(!told.is_empty());
}

/// Breaks the block of entries that has these bytes, which are in one alone, and opens the manifest again: its signature
/// is about the digests of blocks.
fn broken(home: &Path, bytes: &[u8]) -> Baseline {
    let manifest = home.join("out/image.manifest");
    let mut content = std::fs::read(&manifest).unwrap();
    let mut places = content.windows(bytes.len());
    let at = places.rposition(|some| some == bytes).unwrap();
    content[at] ^= 1;
    std::fs::write(&manifest, content).unwrap();
    let baseline = Baseline::open(&BaselinePaths {
        signature: home.join("out/image.manifest.sig"),
        trust: vec![home.join("keys/driftmark.pub")],
        manifest,
    });
    baseline.unwrap()
}
