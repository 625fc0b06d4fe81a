//! A scan, as a whole: it finds what a naive one finds, and ends where it is told to, whatever its threads wait for.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where the world is not as it should be"
)]

mod grown;
mod naive;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Parser;
use drift::compare::Finding;
use driftmark_agent::bake::{self, BakeArguments};
use driftmark_agent::baseline::{Baseline, BaselinePaths};
use driftmark_agent::keygen;
use driftmark_agent::scan::{Pass, ScanError, ScanRequest, Verified, scan};

/// Far more than wait in all queues together, each large enough that the walk is ahead of the reader.
const FILES: usize = 1200;
const FILE_BYTES: usize = 64 * 1024;
const SOON: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    bake: BakeArguments,
}

/// A tree without directories, so that there is nothing but files to wait for.
fn flat(home: &Path) -> PathBuf {
    let root = home.join("root");
    std::fs::create_dir(&root).unwrap();
    for nth in 0..FILES {
        std::fs::write(root.join(nth.to_string()), vec![nth as u8; FILE_BYTES]).unwrap();
    }
    root
}

/// Bakes what is at `root`.
fn baked(home: &Path, root: &Path) -> Baseline {
    let (output, keys) = (home.join("out"), home.join("keys"));
    let pair = keygen::keygen(&keys).unwrap();
    let flags = Flags::parse_from([
        "bake".as_ref(),
        "--root".as_ref(),
        root.as_os_str(),
        "--output".as_ref(),
        output.as_os_str(),
        "--key".as_ref(),
        pair.private.as_os_str(),
        "--name=flat".as_ref(),
        "--version=1".as_ref(),
        "--rules=none".as_ref(),
    ]);
    bake::bake(&flags.bake, &AtomicBool::new(false), &|_| {}, &|_| {}).unwrap();
    let baseline = Baseline::open(&BaselinePaths {
        manifest: output.join("image.manifest"),
        signature: output.join("image.manifest.sig"),
        trust: vec![pair.public],
    });
    baseline.unwrap()
}

#[test]
fn an_interrupted_scan_ends_although_its_queues_are_full() {
    let home = tempfile::tempdir().unwrap();
    let root = flat(home.path());
    let baseline = baked(home.path(), &root);
    let (done, ended) = channel();
    std::thread::spawn(move || {
        for _ in 0..20 {
            let interrupt = AtomicBool::new(false);
            let request = ScanRequest {
                baseline: &baseline,
                root: &root,
                pass: Pass::Full,
                threads: 1,
                held_length: &|_| None,
                interrupt: &interrupt,
                progress: &|_| interrupt.store(true, Ordering::Relaxed),
            };
            let outcome = scan(&request, &mut Verified::default(), &mut |_| {});
            assert!(matches!(outcome, Err(ScanError::Interrupted)));
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(SOON).expect("the scan hangs");
}

/// What changed less than 20 ms before it was read is not trusted.
fn settle() {
    let (_held, never) = channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(50));
}

/// What a scan finds, and how many files of a quick pass it read again.
fn found(
    baseline: &Baseline,
    root: &Path,
    (pass, threads): (Pass, usize),
    verified: &mut Verified,
) -> (naive::Drifts, u64) {
    let request = ScanRequest {
        baseline,
        root,
        pass,
        threads,
        held_length: &|_| None,
        interrupt: &AtomicBool::new(false),
        progress: &|_| {},
    };
    let mut drifts = naive::Drifts::new();
    let summary = scan(&request, verified, &mut |finding| match finding {
        Finding::Drift(found) => {
            let drift = found.drift;
            let twice = drifts.insert(drift.path, (drift.kind, drift.changed));
            assert_eq!(twice, None);
        }
        other => panic!("{other:?}"),
    });
    (drifts, summary.unwrap().rehashed)
}

#[test]
fn a_grown_tree_that_was_changed_at_random_drifts_as_a_naive_scan_says_with_any_number_of_threads()
{
    for seed in 0..6 {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        let mut random = grown::Random::of(seed);
        grown::grow(&root, &mut random);
        let baseline = baked(home.path(), &root);
        let expected: Vec<_> = baseline.manifest.entries().map(Result::unwrap).collect();
        assert!(
            baseline.manifest.block_count() > 1,
            "there are several parts"
        );
        let mut verified = Verified::default();
        settle();
        let (clean, _) = found(&baseline, &root, (Pass::Full, 2), &mut verified);
        assert!(clean.is_empty(), "seed {seed}: {clean:?}");
        let (quick, rehashed) = found(&baseline, &root, (Pass::Quick, 3), &mut verified.clone());
        assert_eq!((quick.len(), rehashed), (0, 0), "seed {seed}");

        grown::change(&root, &mut random);
        let naive = naive::compare(&root, &expected);
        assert!(naive.len() > 20, "seed {seed}: {} drifts", naive.len());
        for threads in [1, 2, 7] {
            let fresh = &mut Verified::default();
            let (full, _) = found(&baseline, &root, (Pass::Full, threads), fresh);
            assert_eq!(full, naive, "seed {seed}, {threads} threads");
            let remembered = &mut Verified::from_bytes(&verified.to_bytes()).unwrap();
            let (quick, _) = found(&baseline, &root, (Pass::Quick, threads), remembered);
            assert_eq!(quick, naive, "seed {seed}, {threads} threads, quick");
        }
    }
}
