//! A scan, as a whole: it ends where it is told to, whatever its threads wait for.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where the world is not as it should be"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Parser;
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

/// Bakes a tree without directories, so that nothing but files fills the queues.
fn baked(home: &Path) -> (PathBuf, Baseline) {
    let (root, output, keys) = (home.join("root"), home.join("out"), home.join("keys"));
    std::fs::create_dir(&root).unwrap();
    for nth in 0..FILES {
        std::fs::write(root.join(nth.to_string()), vec![nth as u8; FILE_BYTES]).unwrap();
    }
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
    (root, baseline.unwrap())
}

#[test]
fn an_interrupted_scan_ends_although_its_queues_are_full() {
    let home = tempfile::tempdir().unwrap();
    let (root, baseline) = baked(home.path());
    let (done, ended) = channel();
    std::thread::spawn(move || {
        for _ in 0..20 {
            let interrupt = AtomicBool::new(false);
            let request = ScanRequest {
                baseline: &baseline,
                root: &root,
                pass: Pass::Full,
                threads: 1,
                verified: &mut Verified::default(),
                held_length: &|_| None,
                interrupt: &interrupt,
                progress: &|_| interrupt.store(true, Ordering::Relaxed),
            };
            let outcome = scan(request, &mut |_| {});
            assert!(matches!(outcome, Err(ScanError::Interrupted)));
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(SOON).expect("the scan hangs");
}
