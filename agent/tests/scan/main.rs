//! A scan, as a whole: it finds what a naive one finds, and ends where it is told to, whatever its threads wait for.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where the world is not as it should be"
)]

mod cold;
mod glanced;
mod grown;
mod naive;
mod paced;
mod remembered;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use clap::Parser;
use drift::compare::Finding;
use driftmark_agent::bake::{self, BakeArguments};
use driftmark_agent::baseline::{Baseline, BaselinePaths};
use driftmark_agent::keygen;
use driftmark_agent::scan::{Order, Pass, ScanError, ScanRequest, ScanSummary, Verified, scan};

/// Far more than wait in all queues together, each large enough that the walk is ahead of the reader.
const FILES: usize = 1200;
const FILE_BYTES: usize = 64 * 1024;
const SOON: Duration = Duration::from_secs(60);

/// Where the content of files is when a scan begins: one that is on the disk alone is read another way.
#[derive(Debug, Clone, Copy)]
enum Cache {
    Warm,
    Cold,
}

impl Cache {
    fn of(self, root: &Path) {
        // Only what was written can be dropped.
        rustix::fs::sync();
        self.below(root);
    }

    fn below(self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.below(&entry.path());
            } else if kind.is_file() {
                let mut file = std::fs::File::open(entry.path()).unwrap();
                match self {
                    Cache::Warm => drop(std::io::copy(&mut file, &mut std::io::sink()).unwrap()),
                    Cache::Cold => {
                        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                    }
                }
            }
        }
    }
}

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

/// Bakes what is at `root`, with these rules: the text of a file, or nothing.
fn baked(home: &Path, root: &Path, rules: &str) -> Baseline {
    let rules = if rules.is_empty() {
        PathBuf::from("none")
    } else {
        std::fs::write(home.join("rules.toml"), rules).unwrap();
        home.join("rules.toml")
    };
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
        "--filesystem=none".as_ref(),
        "--rules".as_ref(),
        rules.as_os_str(),
    ]);
    bake::bake(&flags.bake, &AtomicBool::new(false), &|_| {}, &|_, _| {}).unwrap();
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
    let baseline = baked(home.path(), &root, "");
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
                pace: None,
                order: Order::OfPaths,
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

/// A scan that nothing interrupts or keeps back.
fn request<'a>(
    baseline: &'a Baseline,
    root: &'a Path,
    (pass, threads): (Pass, usize),
) -> ScanRequest<'a> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    ScanRequest {
        baseline,
        root,
        pass,
        threads,
        held_length: &|_| None,
        interrupt: &NEVER,
        pace: None,
        order: Order::OfPaths,
        progress: &|_| {},
    }
}

/// What a scan tells.
fn told(
    baseline: &Baseline,
    root: &Path,
    how: (Pass, usize),
    verified: &mut Verified,
) -> (Vec<Finding>, ScanSummary) {
    let request = request(baseline, root, how);
    let mut findings = Vec::new();
    let summary = scan(&request, verified, &mut |finding| findings.push(finding));
    (findings, summary.unwrap())
}

/// What drifted, where nothing else is told, and how many files of a quick pass were read again.
fn found(
    baseline: &Baseline,
    root: &Path,
    how: (Pass, usize),
    verified: &mut Verified,
) -> (naive::Drifts, u64) {
    let (findings, summary) = told(baseline, root, how, verified);
    let mut drifts = naive::Drifts::new();
    for finding in findings {
        let Finding::Drift(found) = finding else {
            panic!("{finding:?}");
        };
        let drift = found.drift;
        let twice = drifts.insert(drift.path, (drift.kind, drift.changed));
        assert_eq!(twice, None);
    }
    (drifts, summary.rehashed)
}

#[test]
fn a_grown_tree_that_was_changed_at_random_drifts_as_a_naive_scan_says_with_any_number_of_threads()
{
    for seed in 0..6 {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        let mut random = grown::Random::of(seed);
        grown::grow(&root, &mut random);
        let baseline = baked(home.path(), &root, "");
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
            // Cooling down writes back whatever the machine has written.
            let caches = [Cache::Warm, Cache::Cold];
            for cache in caches.into_iter().take(if seed < 2 { 2 } else { 1 }) {
                let fresh = &mut Verified::default();
                cache.of(&root);
                let (full, _) = found(&baseline, &root, (Pass::Full, threads), fresh);
                assert_eq!(full, naive, "seed {seed}, {threads} threads, {cache:?}");
            }
            let remembered = &mut read(&written(&verified), &baseline).unwrap();
            let (quick, _) = found(&baseline, &root, (Pass::Quick, threads), remembered);
            assert_eq!(quick, naive, "seed {seed}, {threads} threads, quick");
        }
    }
}

#[test]
fn a_quick_pass_tells_the_same_held_values_as_a_full_one_each_time() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir_all(root.join("etc/first/dir")).unwrap();
    std::fs::write(root.join("etc/first/file"), "as in the image").unwrap();
    std::os::unix::fs::symlink("file", root.join("etc/first/link")).unwrap();
    std::fs::hard_link(root.join("etc/first/file"), root.join("etc/first/name")).unwrap();
    std::fs::write(root.join("etc/log"), "a line\n").unwrap();
    let rules = r#"
        [[rule]]
        type = "first-boot"
        path = "/etc/first/*"
        reason = "of the test"
        [[rule]]
        type = "append-only"
        path = "/etc/log"
        reason = "of the test"
    "#;
    let baseline = baked(home.path(), &root, rules);
    settle();
    let mut verified = Verified::default();
    let held = |how, verified: &mut Verified| {
        let (findings, _) = told(&baseline, &root, how, verified);
        let mut held: Vec<String> = findings
            .into_iter()
            .map(|finding| match finding {
                Finding::Held(held) => format!("{} {:?}", held.path, held.value),
                other => panic!("{other:?}"),
            })
            .collect();
        held.sort();
        held
    };
    let full = held((Pass::Full, 2), &mut verified);
    assert_eq!(full.len(), 5, "{full:?}");
    for _ in 0..2 {
        assert_eq!(held((Pass::Quick, 2), &mut verified), full);
    }
}

#[test]
fn a_quick_pass_sees_that_a_directory_above_another_name_of_a_file_has_moved() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    for directory in ["a", "b"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::write(root.join("a/x"), "one file").unwrap();
    std::fs::hard_link(root.join("a/x"), root.join("b/y")).unwrap();
    let baseline = baked(home.path(), &root, "");
    settle();
    let mut verified = Verified::default();
    let (clean, _) = found(&baseline, &root, (Pass::Full, 2), &mut verified);
    assert!(clean.is_empty(), "{clean:?}");
    let (clean, rehashed) = found(&baseline, &root, (Pass::Quick, 2), &mut verified);
    assert!(clean.is_empty() && rehashed == 0, "{clean:?}");
    std::fs::rename(root.join("a"), root.join("c")).unwrap();
    let (full, _) = found(&baseline, &root, (Pass::Full, 2), &mut Verified::default());
    for _ in 0..2 {
        let (quick, _) = found(&baseline, &root, (Pass::Quick, 2), &mut verified);
        assert_eq!(quick, full);
    }
    let path = drift::TreePath::new(b"b/y").unwrap();
    assert!(full.contains_key(&path), "{full:?}");
}

#[test]
fn what_was_remembered_is_believed_whole_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let root = flat(home.path());
    let baseline = baked(home.path(), &root, "");
    settle();
    let mut verified = Verified::default();
    told(&baseline, &root, (Pass::Full, 2), &mut verified);
    let bytes = written(&verified);
    assert_eq!(read(&bytes, &baseline).as_ref(), Some(&verified));
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(read(&longer, &baseline), None);
    for at in (0..bytes.len()).step_by(97) {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert_eq!(read(&altered, &baseline), None, "byte {at}");
        assert_eq!(read(&bytes[..at], &baseline), None, "{at} bytes");
    }
}

fn written(verified: &Verified) -> Vec<u8> {
    let mut bytes = Vec::new();
    verified.write(&mut bytes).unwrap();
    bytes
}

fn read(mut bytes: &[u8], baseline: &Baseline) -> Option<Verified> {
    let entries = baseline.manifest.header().entry_count;
    Verified::read(&mut bytes, entries).ok().flatten()
}

#[test]
fn seventy_long_files_of_which_some_do_not_hold_still_are_each_judged_once() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let long = |nth: usize| root.join(format!("long{nth:02}"));
    for nth in 0..70 {
        let file = std::fs::File::create(long(nth)).unwrap();
        file.set_len(8 * 1024 * 1024 + nth as u64).unwrap();
    }
    let baseline = baked(home.path(), &root, "");
    let (clean, _) = found(&baseline, &root, (Pass::Full, 3), &mut Verified::default());
    assert!(clean.is_empty(), "{clean:?}");
    let over = AtomicBool::new(false);
    let (findings, _) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = std::fs::File::options().write(true).open(long(7)).unwrap();
            while !over.load(Ordering::Relaxed) {
                file.set_len(9 * 1024 * 1024).unwrap();
                file.set_len(8 * 1024 * 1024).unwrap();
            }
        });
        scope.spawn(|| std::fs::remove_file(long(69)));
        let findings = told(&baseline, &root, (Pass::Full, 3), &mut Verified::default());
        over.store(true, Ordering::Relaxed);
        findings
    });
    let mut paths: Vec<String> = findings
        .iter()
        .map(|finding| match finding {
            Finding::Drift(found) => found.drift.path.to_string(),
            Finding::Gap(gap) => gap.path.to_string(),
            Finding::Held(held) => panic!("{held:?}"),
        })
        .collect();
    paths.sort();
    paths.dedup();
    // It was there when it was opened, or it was not.
    paths.retain(|path| path != "/" && path != "/long69");
    assert_eq!(paths, ["/long07"]);
}
