//! Drifts of an instance, grouped or not: who owns what, what fits and what does not.

use super::*;
use drift::Blake3;
use drift::entry::Permissions;

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.into(),
        version: version.into(),
    }
}

fn shown(kind: &'static str, mode: u16) -> Shown {
    Shown {
        kind: kind.into(),
        mode: Permissions::of(mode),
        ..Shown::default()
    }
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

/// openssl 3.0.11 with two files and passwd with one, /etc/shadow of nobody.
fn image() -> Image {
    let mut image = Image {
        packages: Some(vec![
            package("openssl", "3.0.11"),
            package("passwd", "4.13"),
        ]),
        ..Image::default()
    };
    for (at, owner) in [
        ("usr/bin/openssl", Some(package("openssl", "3.0.11"))),
        ("usr/lib/ssl/old", Some(package("openssl", "3.0.11"))),
        ("usr/bin/passwd", Some(package("passwd", "4.13"))),
        ("etc/shadow", None),
    ] {
        let shown = shown("file", 0o644);
        image.at.insert(
            path(at),
            InImage {
                shown,
                package: owner,
            },
        );
    }
    image
}

fn open(
    at: &str,
    kind: DriftKind,
    changed: &[Attribute],
    found: Option<Shown>,
    host: Option<(&str, &str, bool)>,
) -> Opened {
    let changed = AttributeSet::of(changed);
    let drift = Drift {
        attribution: None,
        path: path(at),
        kind,
        changed,
        found,
        detail: None,
        class: drift::class::Class::from("program".to_owned()),
        severity: severity(3),
        technique: Vec::new(),
    };
    Opened {
        id: DriftId(Blake3::of(at.as_bytes())),
        raised: false,
        rank: 3,
        opened_at_ms: 0,
        drift: Some(drift),
        package: host.map(|(name, version, matches)| HostPackage {
            name: name.into(),
            version: version.into(),
            matches,
        }),
    }
}

const UPGRADED: Option<(&str, &str, bool)> = Some(("openssl", "3.0.15", true));

fn changed(at: &str, host: Option<(&str, &str, bool)>) -> Opened {
    let found = Some(shown("file", 0o644));
    open(at, DriftKind::Changed, &[Attribute::Content], found, host)
}

fn added(at: &str, found: Shown, host: Option<(&str, &str, bool)>) -> Opened {
    open(at, DriftKind::Added, &[], Some(found), host)
}

#[test]
fn an_upgrade_and_an_installation_are_a_line_each_and_the_old_version_is_the_manifests() {
    let curl = Some(("curl", "7.88.1", true));
    let drifts = [
        changed("usr/bin/openssl", UPGRADED),
        open("usr/lib/ssl/old", DriftKind::Removed, &[], None, None),
        added("usr/lib/ssl/new", shown("file", 0o644), UPGRADED),
        added("usr/bin/curl", shown("file", 0o755), curl),
        added(
            "usr/share/doc/curl",
            shown("directory", 0o755),
            Some(("curl", "7.88.1", false)),
        ),
        added(
            "usr/lib/.build-id/5f/02e",
            shown("symlink", 0o777),
            Some(("curl", "7.88.1", false)),
        ),
        changed("var/lib/dpkg/status", None),
        changed("var/lib/rpm/rpmdb.sqlite", None),
        added("var/lib/rpm/rpmdb.sqlite-wal", shown("file", 0o644), None),
    ];
    let grouped = Transactions::of(&drifts, &image());
    let lines: Vec<_> = grouped
        .lines
        .iter()
        .map(|line| {
            (
                line.name.as_deref(),
                line.before.as_deref(),
                line.version.as_deref(),
                line.files,
            )
        })
        .collect();
    let expected = [
        (Some("curl"), None, Some("7.88.1"), 3),
        (Some("openssl"), Some("3.0.11"), Some("3.0.15"), 3),
        (None, None, None, 3),
    ];
    assert_eq!(lines, expected);
    assert!(drifts.iter().all(|drift| grouped.hold(drift)));
}

#[test]
fn what_no_package_would_do_keeps_a_line_of_its_own() {
    let setuid = shown("file", 0o4755);
    let mut capable = shown("file", 0o755);
    capable
        .xattr
        .insert("security.capability".into(), "AAAA".into());
    let found = || Some(shown("file", 0o644));
    let cases = [
        (
            "not what the package brings",
            changed("usr/bin/openssl", Some(("openssl", "3.0.15", false))),
        ),
        (
            "nobody's file in the image",
            changed("etc/shadow", UPGRADED),
        ),
        (
            "another package's file",
            changed("usr/bin/passwd", UPGRADED),
        ),
        (
            "the image's own version",
            changed("usr/bin/openssl", Some(("openssl", "3.0.11", true))),
        ),
        ("no label", changed("usr/bin/openssl", None)),
        (
            "another mode",
            open(
                "usr/bin/openssl",
                DriftKind::Changed,
                &[Attribute::Mode],
                found(),
                UPGRADED,
            ),
        ),
        ("a setuid file", added("usr/bin/evil", setuid, UPGRADED)),
        (
            "a file with capabilities",
            added("usr/bin/evil", capable, UPGRADED),
        ),
        (
            "a file for all to write",
            added("usr/bin/evil", shown("file", 0o666), UPGRADED),
        ),
        (
            "a link",
            added("usr/bin/evil", shown("symlink", 0o777), UPGRADED),
        ),
        (
            "a link of nobody's for debuggers",
            added("usr/lib/.build-id/5f/02e", shown("symlink", 0o777), None),
        ),
        (
            "said to be added and in the image",
            added("usr/bin/passwd", shown("file", 0o755), UPGRADED),
        ),
        (
            "removed of an untouched package",
            open("usr/bin/passwd", DriftKind::Removed, &[], None, None),
        ),
        (
            "covered",
            open(
                "usr/bin/openssl",
                DriftKind::Covered,
                &[],
                found(),
                UPGRADED,
            ),
        ),
        (
            "a log of no database",
            added("var/lib/rpm/.rpm.lock-wal", shown("file", 0o644), None),
        ),
        (
            "an index of a log",
            added(
                "var/lib/rpm/rpmdb.sqlite-shm-wal",
                shown("file", 0o644),
                None,
            ),
        ),
        (
            "a maintainer script",
            added(
                "var/lib/dpkg/info/openssl.postinst",
                shown("file", 0o755),
                None,
            ),
        ),
    ];
    for (what, case) in cases {
        // Beside an upgrade that is one.
        let drifts = [
            case,
            added("usr/lib/ssl/new", shown("file", 0o644), UPGRADED),
        ];
        let grouped = Transactions::of(&drifts, &image());
        assert!(!grouped.hold(&drifts[0]), "{what}");
        assert!(grouped.hold(&drifts[1]), "{what}");
        assert_eq!(grouped.lines[0].files, 1, "{what}");
    }
    let mut raised = changed("usr/bin/openssl", UPGRADED);
    raised.raised = true;
    assert!(!Transactions::of(&[raised.clone()], &image()).hold(&raised));
    let unknown = Image::default();
    let drifts = [changed("usr/bin/openssl", UPGRADED)];
    assert!(
        Transactions::of(&drifts, &unknown).lines.is_empty(),
        "without the manifest nothing is grouped"
    );
}
