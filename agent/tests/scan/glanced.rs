//! A quick pass passes over the parts that look as they did: the manifest is not asked, and nothing is missed.

use std::path::Path;
use std::time::SystemTime;

use driftmark_agent::baseline::{Baseline, BaselinePaths};
use driftmark_agent::scan::{Pass, ScanError, Verified, scan};

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
