//! What a check remembers for a quick one is written where it has changed, and only there.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use driftmark_agent::check::{CheckArguments, Outcome, check, open};

use super::{baked, settle};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    check: CheckArguments,
}

/// Checks quickly, and gives what it came to with how many files were read again.
fn quick(home: &Path) -> (Outcome, u64) {
    let at = |name: &str| home.join(name).into_os_string();
    let flags = Flags::parse_from([
        "check".into(),
        "--quick".into(),
        "--root".into(),
        at("root"),
        "--manifest".into(),
        at("out/image.manifest"),
        "--trust".into(),
        at("keys/driftmark.pub"),
        "--state".into(),
        at("state"),
    ]);
    let baseline = open(&flags.check).unwrap();
    let checked = check(&flags.check, baseline, &AtomicBool::new(false), &|_| {}).unwrap();
    let mut lines = Vec::new();
    checked.print_lines(&mut lines).unwrap();
    let last = lines.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    let last: serde_json::Value = serde_json::from_slice(last.unwrap()).unwrap();
    let rehashed = last["summary"]["rehashed"].as_u64();
    (checked.outcome(), rehashed.unwrap())
}

#[test]
fn a_quick_check_writes_what_it_remembers_only_where_that_has_changed() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    std::fs::create_dir(&root).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    baked(home.path(), &root, "");
    settle();
    // A file that is written anew is another one.
    let written = || {
        let mut files = std::fs::read_dir(home.path().join("state/verified")).unwrap();
        let metadata = files.next().unwrap().unwrap().metadata().unwrap();
        assert!(files.next().is_none(), "nothing is left beside it");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        (metadata.ino(), metadata.ctime_nsec(), metadata.mtime_nsec())
    };
    let (first, read) = quick(home.path());
    let remembered = written();
    assert!(first != Outcome::Drift && read == 3, "{first:?}, {read}");
    for _ in 0..2 {
        assert_eq!(quick(home.path()), (first, 0));
        assert_eq!(written(), remembered);
    }
    // Put back as it was: clean, read again once, and remembered.
    std::fs::write(root.join("b"), "b").unwrap();
    settle();
    assert_eq!(quick(home.path()), (first, 1));
    let anew = written();
    assert_ne!(anew, remembered);
    assert_eq!(quick(home.path()), (first, 0));
    assert_eq!(written(), anew);
    // What drifted is not remembered as it is.
    std::fs::write(root.join("c"), "C").unwrap();
    settle();
    for _ in 0..2 {
        assert_eq!(quick(home.path()), (Outcome::Drift, 1));
    }
}
