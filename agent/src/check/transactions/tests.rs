//! Receives labelled drifts; holds lines on packages to what a package manager alone would do.

use drift::TreePath;
use drift::class::Class;
use drift::entry::Permissions;
use drift::finding::HostPackage;

use super::*;

fn line(path: &str, kind: DriftKind, host: Option<(&str, &str, bool)>) -> DriftLine {
    DriftLine {
        path: path.into(),
        path_bytes: None,
        changed: AttributeSet::of(&[Attribute::Content]),
        expected: None,
        found: (kind != DriftKind::Removed).then(|| Shown {
            kind: "file".into(),
            mode: Permissions::of(0o755),
            ..Shown::default()
        }),
        kind,
        detail: None,
        class: Class::Program,
        severity: Severity::High,
        technique: Vec::new(),
        package: None,
        host_package: host.map(|(name, version, matches)| HostPackage {
            name: name.into(),
            version: version.into(),
            matches,
        }),
        image_package: None,
        tree_path: TreePath::new(path.as_bytes()).unwrap(),
    }
}

fn of(line: DriftLine, name: &str, version: &str) -> DriftLine {
    DriftLine {
        image_package: Some(Package {
            name: name.into(),
            version: version.into(),
        }),
        ..line
    }
}

fn image() -> Vec<Package> {
    [("bash", "5.2"), ("openssl", "3.0.11"), ("nano", "7.2")]
        .map(|(name, version)| Package {
            name: name.into(),
            version: version.into(),
        })
        .into()
}

fn shown(drifts: &[DriftLine]) -> (Vec<String>, Vec<usize>) {
    let told = Transactions::of(drifts, &image(), &|name| name != "nano");
    let lines = told
        .groups
        .iter()
        .map(|group| format!("{group}: {}", group.count))
        .collect();
    let alone = (0..drifts.len()).filter(|nth| !told.holds(*nth)).collect();
    (lines, alone)
}

#[test]
fn a_transaction_is_a_line_and_its_database_another() {
    use DriftKind::{Added, Changed, Removed};
    let upgraded = Some(("openssl", "3.0.15", true));
    let drifts = [
        of(
            line("/usr/bin/openssl", Changed, upgraded),
            "openssl",
            "3.0.11",
        ),
        line("/usr/lib/libssl.so.9", Added, upgraded),
        of(
            line("/usr/lib/libssl.so.8", Removed, None),
            "openssl",
            "3.0.11",
        ),
        line("/usr/bin/hello", Added, Some(("hello", "2.10", true))),
        of(line("/usr/bin/nano", Removed, None), "nano", "7.2"),
        line("/var/lib/dpkg/status", Changed, None),
        line("/var/lib/dpkg/info/hello.postinst", Added, None),
    ];
    let (lines, alone) = shown(&drifts);
    assert_eq!(
        lines,
        [
            "hello 2.10 installed: 2",
            "nano 7.2 removed: 1",
            "openssl 3.0.11 → 3.0.15: 3",
            "the package database itself, in /var/lib/dpkg: 1",
        ]
    );
    assert_eq!(alone, [] as [usize; 0]);
}

#[test]
fn what_no_transaction_does_keeps_its_line() {
    use DriftKind::{Added, Changed, Removed};
    let upgraded = Some(("openssl", "3.0.15", true));
    let with_mode = |mode: u16, mut line: DriftLine| {
        line.found.as_mut().unwrap().mode = Permissions::of(mode);
        line
    };
    let with_capability = |mut line: DriftLine| {
        let xattr = &mut line.found.as_mut().unwrap().xattr;
        xattr.insert("security.capability".into(), Default::default());
        line
    };
    let drifts = [
        // What makes the next ones suspicious by contrast.
        line("/usr/bin/openssl", Changed, upgraded),
        line("/usr/bin/evil", Changed, Some(("openssl", "3.0.15", false))),
        line("/usr/bin/bash", Changed, Some(("bash", "5.2", true))),
        line("/usr/bin/bash2", Added, Some(("bash", "5.2", true))),
        with_mode(0o4755, line("/usr/bin/su2", Added, upgraded)),
        DriftLine {
            changed: AttributeSet::of(&[Attribute::Content, Attribute::Mode]),
            ..line("/usr/bin/c_rehash", Changed, upgraded)
        },
        line("/usr/bin/nobodys", Added, None),
        of(line("/usr/bin/ls", Removed, None), "bash", "5.2"),
        line("/var/lib/dpkg/info/bash.postinst", Changed, None),
        with_mode(0o4755, line("/var/lib/dpkg/updates/su", Added, None)),
        with_mode(0o2755, line("/lib/apk/db/sg", Added, None)),
        with_mode(0o4755, line("/var/lib/dpkg/info/openssl.su", Added, None)),
        with_capability(line("/var/lib/dpkg/triggers/raw", Added, None)),
    ];
    let (lines, alone) = shown(&drifts);
    assert_eq!(lines, ["openssl 3.0.11 → 3.0.15: 1"]);
    assert_eq!(alone, (1..=12).collect::<Vec<_>>());
}

#[test]
fn without_a_transaction_a_changed_database_keeps_its_lines() {
    let drifts = [line("/var/lib/dpkg/status", DriftKind::Changed, None)];
    assert_eq!(shown(&drifts), (vec![], vec![0]));
}

#[test]
fn a_name_of_the_host_cannot_rearrange_a_line() {
    let hostile = Some(("a\x1b[2K\n", "1", true));
    let (lines, _) = shown(&[line("/usr/bin/a", DriftKind::Added, hostile)]);
    assert_eq!(lines, ["a\\x1b[2K\\n 1 installed: 1"]);
}
