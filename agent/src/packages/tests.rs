//! Receives trees with package databases, good and hostile; holds what is read of them to what the packages are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use drift::class::{Class, Severity};
use drift::entry::{AttributeSet, Shown};
use drift::finding::{Drift, DriftKind, HostPackage};
use drift::{Blake3, TreePath};
use tempfile::TempDir;

use super::*;

const HELLO: &[u8] = b"hello\n";
/// `md5sum` of [`HELLO`].
const HELLO_MD5: &str = "b1946ac92492d2347c6235b4d2611184";
/// SHA-1 of [`HELLO`] as apk writes it.
const HELLO_SHA1: &str = "Q19XLTlvrpIGYocU+yzgD3LpTyJY8=";

fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn owners_of(root: &Path) -> Result<Owners, PackagesError> {
    owners(&Filesystems::open(root, &[], &[]).unwrap())
}

pub(super) fn drifted(at: &str, content: Option<&[u8]>) -> Drift {
    let found = content.map(|content| Shown {
        kind: "file".into(),
        content: Some(Blake3::of(content)),
        ..Shown::default()
    });
    Drift {
        attribution: None,
        path: path(at),
        kind: if found.is_some() {
            DriftKind::Changed
        } else {
            DriftKind::Removed
        },
        changed: AttributeSet::EMPTY,
        found,
        detail: None,
        class: Class::Other,
        severity: Severity::Low,
        technique: Vec::new(),
    }
}

pub(super) fn labels(root: &Path, drifts: &[Drift]) -> Labels {
    Labels::read(root, &[], drifts, &AtomicBool::new(false))
}

pub(super) fn label(root: &Path, drift: &Drift) -> Option<HostPackage> {
    labels(root, std::slice::from_ref(drift))
        .of(&drift.path)
        .cloned()
}

#[test]
fn dpkg_paths_are_found_where_merged_usr_has_them() {
    let root = tree(&[
        (
            "var/lib/dpkg/status",
            "Package: coreutils\nVersion: 9.1-1\n\nPackage: x\nVersion: 2\nArchitecture: amd64\n",
        ),
        ("var/lib/dpkg/info/coreutils.list", "/.\n/bin\n/bin/ls\n"),
        ("var/lib/dpkg/info/x:amd64.list", "/etc/x\n"),
    ]);
    symlink("usr/bin", root.path().join("bin")).unwrap();
    let owners = owners_of(root.path()).unwrap();
    let owner = |at: &str| owners.get(&path(at)).map(ToString::to_string);
    assert_eq!(owner("/usr/bin/ls").as_deref(), Some("coreutils 9.1-1"));
    assert_eq!(owner("/etc/x").as_deref(), Some("x:amd64 2"));
    assert_eq!(owner("/bin/ls"), None);
}

#[test]
fn a_label_matches_only_the_very_content_that_was_found_and_that_the_package_brings() {
    let conffile =
        format!("Conffiles:\n /etc/hello.conf {HELLO_MD5}\n /etc/old {HELLO_MD5} obsolete\n");
    let root = tree(&[
        (
            "var/lib/dpkg/status",
            &format!(
                "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\n{conffile}Description: x\n"
            ),
        ),
        (
            "var/lib/dpkg/info/hello.list",
            "/usr/bin/hello\n/usr/bin/other\n/usr/bin/gone\n/etc/hello.conf\n/usr/share/unsummed\n",
        ),
        (
            "var/lib/dpkg/info/hello.md5sums",
            &format!(
                "{HELLO_MD5}  usr/bin/hello\n{HELLO_MD5}  usr/bin/other\n{HELLO_MD5}  usr/bin/gone\n"
            ),
        ),
        ("usr/bin/hello", "hello\n"),
        ("usr/bin/other", "other\n"),
        ("etc/hello.conf", "hello\n"),
        ("usr/share/unsummed", "hello\n"),
        ("usr/bin/nobodys", "hello\n"),
    ]);
    let other = &b"other\n"[..];
    let cases = [
        ("/usr/bin/hello", Some(HELLO), Some(true)),
        ("/etc/hello.conf", Some(HELLO), Some(true)),
        ("/usr/bin/other", Some(other), Some(false)),
        // It was something else when it was scanned.
        ("/usr/bin/hello", Some(&b"evil\n"[..]), Some(false)),
        ("/usr/share/unsummed", Some(HELLO), Some(false)),
        ("/usr/bin/gone", None, Some(false)),
        ("/usr/bin/nobodys", Some(HELLO), None),
    ];
    for (at, content, matches) in cases {
        let expected = matches.map(|matches| HostPackage {
            name: "hello".into(),
            version: "2.10-3".into(),
            matches,
        });
        assert_eq!(label(root.path(), &drifted(at, content)), expected, "{at}");
    }
    assert!(labels(root.path(), &[drifted("/x", None)]).is_installed("hello"));
}

#[test]
fn a_package_of_which_configuration_is_left_is_not_installed() {
    let root = tree(&[
        (
            "var/lib/dpkg/status",
            "Package: hello\nStatus: deinstall ok config-files\nVersion: 1\n",
        ),
        ("var/lib/dpkg/info/hello.list", "/etc/hello.conf\n"),
    ]);
    assert!(!labels(root.path(), &[drifted("/x", None)]).is_installed("hello"));
}

#[test]
fn apk_files_match_by_their_sha1() {
    let root = tree(&[
        (
            "lib/apk/db/installed",
            &format!(
                "C:Q1x\nP:hello\nV:2.12-r0\nF:usr\nF:usr/bin\nR:hello\na:0:0:755\nZ:{HELLO_SHA1}\nR:plain\n"
            ),
        ),
        ("usr/bin/hello", "hello\n"),
    ]);
    let found = label(root.path(), &drifted("/usr/bin/hello", Some(HELLO))).unwrap();
    assert_eq!((&*found.version, found.matches), ("2.12-r0", true));
    let found = label(root.path(), &drifted("/usr/bin/plain", None)).unwrap();
    assert!(!found.matches);
}

#[test]
fn apk_lies_where_merged_usr_has_it() {
    let root = tree(&[(
        "usr/lib/apk/db/installed",
        "P:busybox\nV:1.37\nF:bin\nR:sh\n\n",
    )]);
    symlink("usr/lib", root.path().join("lib")).unwrap();
    let owners = owners_of(root.path()).unwrap();
    let owner = owners.get(&path("/bin/sh")).map(ToString::to_string);
    assert_eq!(owner.as_deref(), Some("busybox 1.37"));
}

#[test]
fn what_belongs_to_two_packages_is_the_firsts_at_bake_and_in_a_label() {
    let root = tree(&[(
        "lib/apk/db/installed",
        "P:b\nV:2\nF:etc\nR:x\n\nP:b\nV:1\nF:etc\nR:x\n\nP:c\nV:0\nF:etc\nR:x\n\n",
    )]);
    let owners = owners_of(root.path()).unwrap();
    let owner = owners.get(&path("/etc/x")).map(ToString::to_string);
    assert_eq!(owner.as_deref(), Some("b 1"));
    let said = label(root.path(), &drifted("/etc/x", None)).unwrap();
    assert_eq!((&*said.name, &*said.version), ("b", "1"));
}

/// What a hostile host puts where its database was.
#[test]
fn a_hostile_database_gives_no_label_and_holds_nobody_up() {
    let good = "Package: hello\nVersion: 1\n";
    let long = format!("Package: {}\n", "x".repeat(1 << 20));
    let outside = tree(&[("status", good), ("info/hello.list", "/usr/bin/hello\n")]);
    for status in ["Package: ../../x\nVersion: 1\n", &long, "\0\0\0", ""] {
        let root = tree(&[("var/lib/dpkg/status", status)]);
        fs::create_dir_all(root.path().join("var/lib/dpkg/info")).unwrap();
        assert_eq!(label(root.path(), &drifted("/usr/bin/hello", None)), None);
    }
    let root = tree(&[]);
    fs::create_dir_all(root.path().join("var/lib")).unwrap();
    symlink(outside.path(), root.path().join("var/lib/dpkg")).unwrap();
    assert_eq!(label(root.path(), &drifted("/usr/bin/hello", None)), None);
    let root = tree(&[]);
    fs::create_dir_all(root.path().join("var/lib/dpkg/info")).unwrap();
    let fifo = root.path().join("var/lib/dpkg/status");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(label(root.path(), &drifted("/usr/bin/hello", None)), None);
    fs::remove_file(&fifo).unwrap();
    // Terabytes of it, without taking any room.
    fs::File::create(&fifo).unwrap().set_len(1 << 42).unwrap();
    assert_eq!(label(root.path(), &drifted("/usr/bin/hello", None)), None);
}

#[test]
fn a_budget_that_is_spent_ends_the_reading() {
    let mut budget = Budget::until(None);
    assert!(budget.take(1000).is_ok());
    budget.bytes = 10;
    assert_eq!(
        budget.take(11).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    let past = Instant::now().checked_sub(std::time::Duration::from_secs(1));
    let mut budget = Budget::until(past);
    assert_eq!(budget.take(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
}
