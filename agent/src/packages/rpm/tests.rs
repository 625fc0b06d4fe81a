//! Receives databases with headers as rpm writes them, good and hostile; holds what is said of their files to them.

use std::fs;
use std::path::Path;

use drift::TreePath;
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::{Owners, owners};
use crate::packages::tests::{drifted, label, labels};
use crate::scan::filesystems::Filesystems;

/// SHA-256 and MD5 of `hello\n`.
const HELLO_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
const HELLO_MD5: &str = "b1946ac92492d2347c6235b4d2611184";

const INT32: u32 = 4;
const STRINGS: u32 = 8;
const BYTES: u32 = 1;

/// Tag, type, count, data.
type Entry = (u32, u32, u32, Vec<u8>);

/// A header of these entries.
fn encoded(entries: &[Entry]) -> Vec<u8> {
    let mut index = Vec::new();
    let mut data = Vec::new();
    for (tag, kind, count, bytes) in entries {
        let offset = u32::try_from(data.len()).unwrap();
        for number in [*tag, *kind, offset, *count] {
            index.extend(number.to_be_bytes());
        }
        data.extend(bytes);
    }
    let counts = [index.len() / 16, data.len()].map(|count| u32::try_from(count).unwrap());
    [counts.map(u32::to_be_bytes).concat(), index, data].concat()
}

fn strings(tag: u32, texts: &[&str]) -> Entry {
    let data = texts
        .iter()
        .flat_map(|text| [text.as_bytes(), b"\0"].concat());
    (
        tag,
        STRINGS,
        u32::try_from(texts.len()).unwrap(),
        data.collect(),
    )
}

fn numbers(tag: u32, all: &[u32]) -> Entry {
    let data = all.iter().flat_map(|number| number.to_be_bytes());
    (
        tag,
        INT32,
        u32::try_from(all.len()).unwrap(),
        data.collect(),
    )
}

/// `hello.x86_64 2:1.0-3` with files of these states, and what comes behind that.
fn hello(more: &[Entry], states: [u8; 3]) -> Vec<u8> {
    let mut entries = vec![
        strings(1000, &["hello"]),
        strings(1001, &["1.0"]),
        strings(1002, &["3"]),
        numbers(1003, &[2]),
        strings(1022, &["x86_64"]),
        (1029, BYTES, 3, states.to_vec()),
        strings(1035, &[HELLO_SHA256, HELLO_SHA256, ""]),
        numbers(1116, &[0, 1, 0]),
        strings(1117, &["hello", "hello.conf", "link"]),
        strings(1118, &["/bin/", "/etc/"]),
        numbers(5011, &[8]),
    ];
    entries.extend_from_slice(more);
    encoded(&entries)
}

fn tree(headers: &[Vec<u8>]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["var/lib/rpm", "usr/bin", "etc"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
    for file in ["usr/bin/hello", "etc/hello.conf"] {
        fs::write(root.path().join(file), "hello\n").unwrap();
    }
    let sqlite = Connection::open(root.path().join("var/lib/rpm/rpmdb.sqlite")).unwrap();
    sqlite
        .execute_batch(
            "CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)",
        )
        .unwrap();
    for header in headers {
        let insert = "INSERT INTO Packages (blob) VALUES (?)";
        sqlite.execute(insert, [header]).unwrap();
    }
    root
}

fn owners_of(root: &Path) -> Result<Owners, super::super::PackagesError> {
    owners(&Filesystems::open(root, &[], &[]).unwrap())
}

fn owner(owners: &Owners, path: &str) -> Option<String> {
    let path = TreePath::new(path.as_bytes()).unwrap();
    owners.get(&path).map(ToString::to_string)
}

#[test]
fn the_files_of_a_package_are_found_where_merged_usr_has_them() {
    let root = tree(&[hello(&[], [0; 3])]);
    let owners = owners_of(root.path()).unwrap();
    for path in ["/usr/bin/hello", "/etc/hello.conf", "/usr/bin/link"] {
        assert_eq!(
            owner(&owners, path).as_deref(),
            Some("hello.x86_64 2:1.0-3"),
            "{path}"
        );
    }
    assert_eq!(owners.len(), 3);
}

#[test]
fn what_another_package_replaced_and_what_was_left_out_is_not_owned() {
    // NORMAL, REPLACED, NOTINSTALLED; NETSHARED, WRONGCOLOR.
    for (states, owned) in [
        ([0, 1, 2], "/usr/bin/hello"),
        ([4, 3, 1], "/etc/hello.conf"),
    ] {
        let owners = owners_of(tree(&[hello(&[], states)]).path()).unwrap();
        assert!(owner(&owners, owned).is_some(), "{states:?}");
        assert_eq!(owners.len(), 1, "{states:?}");
    }
}

#[test]
fn a_label_matches_by_the_digest_that_the_header_says() {
    let old = [numbers(5011, &[1]), strings(1035, &[HELLO_MD5, "x", ""])];
    let unknown = [numbers(5011, &[10])];
    let found = Some(&b"hello\n"[..]);
    for (first, path, matches) in [
        (&[][..], "/usr/bin/hello", true),
        (&[], "/etc/hello.conf", true),
        (&old, "/usr/bin/hello", true),
        (&old, "/etc/hello.conf", false),
        (&unknown, "/usr/bin/hello", false),
    ] {
        let root = tree(&[hello(first, [0; 3])]);
        let label = label(root.path(), &drifted(path, found)).unwrap();
        assert_eq!((&*label.name, &*label.version), ("hello.x86_64", "2:1.0-3"));
        assert_eq!(label.matches, matches, "{path}");
        let evil = Some(&b"evil\n"[..]);
        let other = self::label(root.path(), &drifted(path, evil)).unwrap();
        assert!(!other.matches, "{path}");
    }
}

/// As after a crash in the middle of a transaction.
#[test]
fn what_is_in_the_log_alone_counts() {
    let root = tree(&[]);
    let place = root.path().join("var/lib/rpm");
    let sqlite = Connection::open(place.join("rpmdb.sqlite")).unwrap();
    sqlite
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0")
        .unwrap();
    sqlite
        .execute(
            "INSERT INTO Packages (blob) VALUES (?)",
            [hello(&[], [0; 3])],
        )
        .unwrap();
    assert_eq!(owners_of(root.path()).unwrap().len(), 3);
    assert!(labels(root.path(), &[drifted("/x", None)]).is_installed("hello.x86_64"));
    let log = place.join("rpmdb.sqlite-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    fs::remove_file(&log).unwrap();
    assert_eq!(owners_of(root.path()).unwrap().len(), 0);
}

#[test]
fn what_was_set_on_installing_counts() {
    let relocated = [strings(1118, &["/bin/", "/opt/etc/"])];
    let root = tree(&[hello(&relocated, [0; 3])]);
    let owners = owners_of(root.path()).unwrap();
    assert!(owner(&owners, "/opt/etc/hello.conf").is_some());
    assert_eq!(owner(&owners, "/etc/hello.conf"), None);
}

#[test]
fn of_packages_that_share_a_path_the_first_by_name_has_it() {
    let other = hello(&[strings(1000, &["ahead"])], [0; 3]);
    let hello = hello(&[], [0; 3]);
    for headers in [[hello.clone(), other.clone()], [other, hello]] {
        let root = tree(&headers);
        let owners = owners_of(root.path()).unwrap();
        assert_eq!(
            owner(&owners, "/usr/bin/hello").as_deref(),
            Some("ahead.x86_64 2:1.0-3")
        );
    }
}

#[test]
fn a_hostile_header_gives_no_owner_and_no_panic() {
    let many = u32::MAX;
    let root = tree(&[hello(&[(1117, STRINGS, many, vec![])], [0; 3])]);
    assert_eq!(owners_of(root.path()).unwrap().len(), 0);
    let long = "x".repeat(300);
    let cases: [(&str, &[Entry], usize); 11] = [
        ("a name too long", &[strings(1000, &[&long])], 0),
        ("no name", &[strings(1000, &[""])], 0),
        ("no version", &[strings(1001, &[""])], 0),
        ("a release too long", &[strings(1002, &[&long])], 0),
        (
            "a version that is not text",
            &[(1001, STRINGS, 1, vec![0xff, 0])],
            0,
        ),
        (
            "a name that is not text",
            &[(1000, STRINGS, 1, vec![0xff, 0])],
            0,
        ),
        (
            "directories that are not there",
            &[numbers(1116, &[7, many, 2])],
            0,
        ),
        ("ways out", &[strings(1118, &["/../", "/etc/../../"])], 0),
        ("fewer names than digests", &[strings(1117, &["hello"])], 1),
        (
            "paths too long",
            &[strings(1118, &[&"/x".repeat(20_000), "/etc/"])],
            1,
        ),
        ("no digests", &[strings(1035, &[])], 3),
    ];
    for (name, first, owned) in cases {
        let root = tree(&[hello(first, [0; 3])]);
        let owners = owners_of(root.path()).unwrap();
        assert_eq!(owners.len(), owned, "{name}: {owners:?}");
    }
    let mut offset = hello(&[], [0; 3]);
    offset[8 + 8..8 + 12].fill(255);
    assert_eq!(owners_of(tree(&[offset]).path()).unwrap().len(), 0);
    let good = hello(&[], [0; 3]);
    for (name, bad) in [
        ("cut short", good[..good.len() - 1].to_vec()),
        ("nothing", Vec::new()),
        (
            "more entries than rpm allows",
            [&[0, 1, 0, 0], &good[4..]].concat(),
        ),
        (
            "more data than there is",
            [&good[..4], &[255; 4], &good[8..]].concat(),
        ),
    ] {
        let error = owners_of(tree(&[good.clone(), bad]).path()).expect_err(name);
        assert!(error.source.to_string().contains("damaged"), "{name}");
    }
}

/// What a hostile host puts where its database was: no label, and nobody waits.
#[test]
fn a_hostile_database_gives_no_label_and_holds_nobody_up() {
    let drift = drifted("/usr/bin/hello", Some(b"hello\n"));
    let said = |root: &TempDir| label(root.path(), &drift).is_some();
    let replaced = |name: &str, put: &dyn Fn(&Path)| {
        let root = tree(&[hello(&[], [0; 3])]);
        let place = root.path().join("var/lib/rpm").join(name);
        let _ = fs::remove_file(&place);
        put(&place);
        said(&root)
    };
    let outside = tree(&[hello(&[], [0; 3])]);
    let link = |place: &Path| {
        let target = outside.path().join("var/lib/rpm/rpmdb.sqlite");
        std::os::unix::fs::symlink(target, place).unwrap();
    };
    let fifo = |place: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, place, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    let terabytes = |place: &Path| fs::File::create(place).unwrap().set_len(1 << 42).unwrap();
    let endless = |place: &Path| {
        let good = fs::read(outside.path().join("var/lib/rpm/rpmdb.sqlite")).unwrap();
        fs::write(place, good).unwrap();
        let file = fs::File::options().write(true).open(place).unwrap();
        file.set_len(1 << 42).unwrap();
    };
    assert!(said(&outside));
    assert!(!replaced("rpmdb.sqlite", &link));
    assert!(!replaced("rpmdb.sqlite", &fifo));
    assert!(!replaced("rpmdb.sqlite", &terabytes));
    assert!(!replaced("rpmdb.sqlite", &|place| fs::write(place, "").unwrap()));
    assert!(!replaced("rpmdb.sqlite", &|place| fs::write(
        place,
        "SQLite format 3\0"
    )
    .unwrap()));
    assert!(!replaced("rpmdb.sqlite", &|place| fs::create_dir(place).unwrap()));
    // A log that is none is none, and what lies behind the last page is nobody's.
    assert!(replaced("rpmdb.sqlite", &endless));
    assert!(replaced("rpmdb.sqlite-wal", &fifo));
    assert!(replaced("rpmdb.sqlite-wal", &link));
    assert!(replaced("rpmdb.sqlite-wal", &terabytes));
}
