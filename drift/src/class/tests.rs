//! Receives drifts by path and kind; holds the table to what it says of them.

use super::*;
use crate::Blake3;
use crate::entry::{FileFlags, Node, Xattrs};

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn file(text: &str, mode: u16) -> Entry {
    Entry {
        path: path(text),
        mode,
        uid: 0,
        gid: 0,
        node: Node::file(0, Blake3::of(b"")),
        xattrs: Xattrs::NONE,
        flags: FileFlags::default(),
        links: None,
    }
}

fn changed(text: &str) -> Classification {
    classify(
        &path(text),
        &DriftKind::Changed,
        AttributeSet::of(&[Attribute::Content]),
        Some(&file(text, 0o644)),
    )
}

#[test]
fn the_table_says_what_a_path_is() {
    let cases = [
        ("/usr/bin/ls", Class::Program, Severity::Critical, "T1554"),
        (
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            Class::Library,
            Severity::Critical,
            "T1574",
        ),
        (
            "/etc/ld.so.preload",
            Class::Persistence,
            Severity::Critical,
            "T1574.006",
        ),
        (
            "/etc/passwd",
            Class::Authentication,
            Severity::Critical,
            "T1136.001",
        ),
        (
            "/etc/pam.d/sshd",
            Class::Authentication,
            Severity::Critical,
            "T1556.003",
        ),
        (
            "/etc/sudoers.d/x",
            Class::Authentication,
            Severity::Critical,
            "T1548.003",
        ),
        (
            "/root/.ssh/authorized_keys",
            Class::Authentication,
            Severity::Critical,
            "T1098.004",
        ),
        (
            "/etc/cron.d/x",
            Class::Persistence,
            Severity::Critical,
            "T1053.003",
        ),
        (
            "/etc/systemd/system/x.service",
            Class::Persistence,
            Severity::Critical,
            "T1543.002",
        ),
        (
            "/etc/systemd/system/x.timer",
            Class::Persistence,
            Severity::Critical,
            "T1053.006",
        ),
        (
            "/etc/profile.d/x.sh",
            Class::Persistence,
            Severity::High,
            "T1546.004",
        ),
        (
            "/root/.bashrc",
            Class::Persistence,
            Severity::High,
            "T1546.004",
        ),
        (
            "/usr/lib/modules/6.1/kernel/x.ko",
            Class::Boot,
            Severity::Critical,
            "T1547.006",
        ),
        ("/boot/initrd.img", Class::Boot, Severity::Critical, "T1542"),
        (
            "/etc/resolv.conf",
            Class::Network,
            Severity::High,
            "T1565.001",
        ),
        (
            "/var/log/auth.log",
            Class::Log,
            Severity::Medium,
            "T1070.002",
        ),
        (
            "/usr/lib/driftmark/image.manifest",
            Class::Sentinel,
            Severity::Critical,
            "T1562.001",
        ),
    ];
    for (text, class, severity, technique) in cases {
        let meaning = changed(text);
        assert_eq!(
            (meaning.class, meaning.severity, meaning.techniques[0]),
            (class, severity, technique),
            "{text}"
        );
    }
    assert_eq!(changed("/srv/data").class, Class::Other);
}

#[test]
fn setuid_and_capabilities_are_critical_wherever_they_appear() {
    let added = |entry: &Entry| {
        classify(
            &entry.path,
            &DriftKind::Added,
            AttributeSet::EMPTY,
            Some(entry),
        )
    };
    let shell = added(&file("/srv/shell", 0o4755));
    assert_eq!(
        (shell.severity, shell.techniques[0]),
        (Severity::Critical, "T1548.001")
    );
    let capable = Entry {
        xattrs: Xattrs::held([(b"security.capability".to_vec(), vec![1])]),
        ..file("/srv/capable", 0o755)
    };
    assert_eq!(added(&capable).techniques[0], "T1548.001");
    let mode = AttributeSet::of(&[Attribute::Mode]);
    let gained = classify(
        &path("/srv/x"),
        &DriftKind::Changed,
        mode,
        Some(&file("/srv/x", 0o2755)),
    );
    assert_eq!(gained.severity, Severity::Critical);
    let content = AttributeSet::of(&[Attribute::Content]);
    let kept = classify(
        &path("/srv/x"),
        &DriftKind::Changed,
        content,
        Some(&file("/srv/x", 0o4755)),
    );
    assert_eq!(
        kept.techniques,
        [PROGRAM_TECHNIQUE],
        "setuid was there before"
    );
}

#[test]
fn what_happened_makes_it_worse() {
    let removed = classify(
        &path("/var/log/auth.log"),
        &DriftKind::Removed,
        AttributeSet::EMPTY,
        None,
    );
    assert_eq!(
        (removed.severity, removed.techniques),
        (Severity::High, vec!["T1070.002"])
    );
    let covered = classify(
        &path("/srv"),
        &DriftKind::Covered,
        AttributeSet::EMPTY,
        None,
    );
    assert_eq!(
        (covered.severity, covered.techniques),
        (Severity::High, vec!["T1564", "T1036"])
    );
    let baseline = classify(
        &TreePath::root(),
        &DriftKind::Baseline,
        AttributeSet::EMPTY,
        None,
    );
    assert_eq!(
        (baseline.class, baseline.severity),
        (Class::Sentinel, Severity::Critical)
    );
    let mode = AttributeSet::of(&[Attribute::Mode]);
    let writable = classify(
        &path("/srv/x"),
        &DriftKind::Changed,
        mode,
        Some(&file("/srv/x", 0o666)),
    );
    assert_eq!(
        (writable.severity, writable.techniques),
        (Severity::High, vec!["T1222.002"])
    );
}

#[test]
fn a_word_of_a_later_version_is_kept() {
    let class: Class = serde_json::from_str("\"quantum\"").unwrap();
    assert_eq!(class, Class::Unknown("quantum".to_owned()));
    assert_eq!(serde_json::to_string(&class).unwrap(), "\"quantum\"");
}
