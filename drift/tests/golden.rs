//! Golden bytes: what was written once is what is written today, and is still read.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "reads and writes the golden files"
)]

use std::path::PathBuf;

use drift::class::{Class, Severity};
use drift::coverage::{Coverage, Gap, GapReason, ScanRecord};
use drift::enrolment::JoinToken;
use drift::entry::{
    Attribute, AttributeSet, Device, Entry, FileFlags, Links, Measurement, Node, Shown, Xattrs,
};
use drift::finding::{Drift, DriftKind, set_digest};
use drift::key::SigningKey;
use drift::manifest::{BakedManifest, Builder, Filesystem, Package, UnverifiedManifest};
use drift::report::{
    AgentBuild, ExecutingOrder, HeldPrefix, HeldValue, ImageRef, InstanceState, Moment, OpenDrift,
    Part, Phase, Report, RunId, Settings, StateUpdate, Verdict,
};
use drift::rules::{RuleFile, Rules};
use drift::signature::Envelope;
use drift::statement::{Predicate, Provenance, Statement, Subject, SubjectDigest};
use drift::{Blake3, Sha256, TreePath};

const KEY: &[u8] = include_bytes!("golden/TEST-KEY-NEVER-TRUST.key");
/// Identity of the golden manifest: the digests that its signature is about.
const SHA256: &str = "7b4b2fe8839dd74b58da41ebeaa6326a9ec3b889cf744e5f17018f96cad01546";
const BLAKE3: &str = "a3efd448e7d443742902d4a78281a7ef32821044ac98b5213a77de979ddbd197";

/// Compares with the golden file; writes one that is missing only where that is asked for by name.
fn golden(name: &str, made: &[u8]) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name]
        .iter()
        .collect();
    if std::env::var("DRIFTMARK_WRITE_GOLDEN").is_ok() && !path.exists() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    let differs = kept.iter().zip(made).position(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{name} is no longer what it was, from byte {differs:?} on ({} bytes)",
        made.len()
    );
}

fn path(bytes: &[u8]) -> TreePath {
    TreePath::new(bytes).unwrap()
}

fn plain(at: &[u8], node: Node) -> Entry {
    Entry {
        path: path(at),
        mode: 0o755,
        uid: 0,
        gid: 0,
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn file(at: &[u8], content: &[u8]) -> Entry {
    plain(at, Node::file(content.len() as u64, Blake3::of(content)))
}

/// One of everything.
fn tree() -> Vec<(Entry, Option<Package>)> {
    let directories = [
        &b""[..],
        b"dev",
        b"etc",
        b"usr",
        b"usr/bin",
        b"usr/lib",
        b"usr/lib/driftmark",
        b"var",
    ];
    let directories = directories.map(|at| plain(at, Node::Directory));
    let package = || {
        Some(Package {
            name: "coreutils:amd64".to_owned(),
            version: "9.7-3".to_owned(),
        })
    };
    let capability = Xattrs::held([(
        b"security.capability".to_vec(),
        vec![1, 0, 0, 2, 0, 4, 0, 0],
    )]);
    let labelled = Xattrs::held([
        (
            b"security.selinux".to_vec(),
            b"system_u:object_r:etc_t:s0\0".to_vec(),
        ),
        (b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]),
        (b"user.empty".to_vec(), Vec::new()),
    ]);
    let links = |outside| {
        Some(Links {
            least: path(b"usr/bin/gunzip"),
            outside,
        })
    };
    let mut tree: Vec<(Entry, Option<Package>)> = directories.map(|entry| (entry, None)).into();
    tree.extend([
        (
            Entry {
                mode: 0o666,
                ..plain(b"dev/null", Node::CharDevice(Device { major: 1, minor: 3 }))
            },
            None,
        ),
        (
            Entry {
                gid: 6,
                ..plain(
                    b"dev/sda",
                    Node::BlockDevice(Device {
                        major: 8,
                        minor: 0xf_ffff,
                    }),
                )
            },
            None,
        ),
        (plain(b"dev/initctl", Node::Fifo), None),
        (plain(b"dev/log", Node::Socket), None),
        (
            plain(
                b"bin",
                Node::Symlink {
                    target: (*b"usr/bin").into(),
                },
            ),
            None,
        ),
        (
            Entry {
                mode: 0o4755,
                ..file(b"usr/bin/su", b"\x7fELF su")
            },
            package(),
        ),
        (
            Entry {
                xattrs: capability.clone(),
                ..file(b"usr/bin/ping", b"\x7fELF ping")
            },
            package(),
        ),
        (
            Entry {
                links: links(1),
                ..file(b"usr/bin/gunzip", b"#!/bin/sh")
            },
            package(),
        ),
        (
            Entry {
                links: links(1),
                ..file(b"usr/bin/uncompress", b"#!/bin/sh")
            },
            package(),
        ),
        (
            Entry {
                xattrs: labelled.clone(),
                mode: 0o644,
                ..file(b"etc/passwd", b"root:x:0:0")
            },
            None,
        ),
        (
            Entry {
                xattrs: labelled,
                mode: 0o640,
                gid: 42,
                ..file(b"etc/shadow", b"root:*")
            },
            None,
        ),
        (
            Entry {
                uid: 1000,
                gid: u32::MAX,
                ..file(b"etc/line\nend \xff", b"")
            },
            None,
        ),
        (
            Entry {
                flags: FileFlags::from_raw(0x30),
                ..file(b"etc/resolv.conf", b"nameserver 9.9.9.9\n")
            },
            None,
        ),
        (
            plain(b"usr/lib/driftmark/image.manifest", Node::SelfFile),
            None,
        ),
        (file(&[b"var/", &[b'n'; 255][..]].concat(), b"long"), None),
    ]);
    tree
}

fn rules() -> Rules {
    let text = r#"
        [[rule]]
        type = "volatile"
        paths = ["/tmp", "/var/log/**.gz"]
        [[rule]]
        type = "shape"
        shape = "machine-id"
        path = "/etc/machine-id"
        [[rule]]
        type = "append-only"
        path = "/var/log/*"
    "#;
    Rules::build(vec![RuleFile::parse("golden", text).unwrap()], Vec::new())
        .unwrap()
        .rules
}

fn manifest() -> BakedManifest {
    let mut builder = Builder::default();
    for (entry, package) in tree() {
        let sha256 =
            matches!(entry.node, Node::File { .. }).then(|| Sha256::of(entry.path.as_bytes()));
        builder.push(entry, sha256, package, (1_700_000_000, 123_456_789));
    }
    let filesystems = vec![Filesystem {
        mount_point: path(b"var"),
        kind: "ext4".to_owned(),
    }];
    builder
        .finish(rules(), filesystems, AttributeSet::of(&[Attribute::Flags]))
        .unwrap()
}

#[test]
fn the_manifest_is_what_it_was() {
    let baked = manifest();
    golden("manifest-v1.manifest", &baked.bytes);
    assert_eq!(
        (
            baked.identity.sha256.to_string(),
            baked.identity.blake3.to_string()
        ),
        (SHA256.into(), BLAKE3.into())
    );
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    read.verify_all().unwrap();
    let mut expected: Vec<Entry> = tree().into_iter().map(|(entry, _)| entry).collect();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(
        read.entries().collect::<Result<Vec<_>, _>>().unwrap(),
        expected
    );
}

/// Two files with fs-verity and a measurement, one with the flag alone.
fn measured() -> Vec<Entry> {
    let verity = FileFlags::from_raw(0x0010_0000);
    let measured = |at: &[u8], measurement| Entry {
        flags: verity,
        ..plain(
            at,
            Node::File {
                size: 4,
                content: Blake3::of(b"libc"),
                verity: Some(Box::new(measurement)),
            },
        )
    };
    let without = Entry {
        flags: verity,
        ..file(b"c", b"libc")
    };
    vec![
        plain(b"", Node::Directory),
        measured(b"a", Measurement::Sha256([0xab; 32])),
        measured(b"b", Measurement::Sha512([0xcd; 64])),
        without,
    ]
}

#[test]
fn the_manifest_with_measurements_is_what_it_was() {
    let mut builder = Builder::default();
    for entry in measured() {
        let sha256 = matches!(entry.node, Node::File { .. }).then(|| Sha256::of(b"libc"));
        builder.push(entry, sha256, None, (0, 0));
    }
    let baked = builder
        .finish(Rules::none(), Vec::new(), AttributeSet::EMPTY)
        .unwrap();
    golden("measured-v1.manifest", &baked.bytes);
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    read.verify_all().unwrap();
    assert_eq!(
        read.entries().collect::<Result<Vec<_>, _>>().unwrap(),
        measured()
    );
}

#[test]
fn the_envelope_is_what_it_was_and_verifies() {
    let random = ring::rand::SystemRandom::new();
    let key = SigningKey::from_pem(KEY, &random).unwrap();
    let baked = manifest();
    let statement = Statement {
        subject: Subject {
            name: "golden 1.2.3".parse().unwrap(),
            digest: SubjectDigest {
                sha256: baked.identity.sha256,
                blake3: Some(baked.identity.blake3),
            },
        },
        predicate: Predicate::Manifest(Provenance {
            name: "golden".parse().unwrap(),
            version: "1.2.3".parse().unwrap(),
            build: Some("amd64".parse().unwrap()),
            architecture: Some("x86_64".parse().unwrap()),
            build_time: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            builder: Some("pipeline 7".parse().unwrap()),
            source_revision: Some("0123abc".parse().unwrap()),
            approved_by: Some("someone".parse().unwrap()),
            sbom_sha256: Some(Sha256::of(b"sbom")),
            parent: Some(Sha256::of(b"parent")),
        }),
    };
    golden("manifest-v1.statement.json", &statement.to_json());
    assert_eq!(
        Statement::from_json(&statement.to_json()).unwrap(),
        statement
    );
    let envelope = Envelope::sign(statement.to_json(), &key, &random).unwrap();
    golden("manifest-v1.manifest.sig", &envelope.to_json());
    let envelope = Envelope::from_json(&envelope.to_json()).unwrap();
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    assert!(read.verify(&envelope, &[key.public().clone()]).is_ok());
}

fn drift(at: &[u8], kind: DriftKind, changed: &[Attribute]) -> Drift {
    Drift {
        path: path(at),
        kind,
        changed: AttributeSet::of(changed),
        found: Some(Shown::from(&Entry {
            mode: 0o777,
            ..file(at, b"other")
        })),
        detail: Some("a sentence".to_owned()),
        class: Class::Authentication,
        severity: Severity::Critical,
        technique: vec!["T1098".to_owned()],
    }
}

/// A report with every field.
fn report() -> Report {
    let changed = drift(
        b"etc/passwd",
        DriftKind::Changed,
        &[Attribute::Mode, Attribute::Content],
    );
    let odd = drift(b"etc/\xff\n", DriftKind::Added, &[]);
    let opened: Vec<OpenDrift> = [changed.clone(), odd]
        .map(|drift| OpenDrift {
            id: drift.id(),
            drift,
            host_package: None,
        })
        .into();
    let mut ids: Vec<_> = opened.iter().map(|open| open.id).collect();
    ids.sort_unstable();
    let scan = ScanRecord {
        age_seconds: 1,
        took_milliseconds: 2,
        entries: 3,
        bytes: 4,
        rehashed: 5,
        ..ScanRecord::default()
    };
    let gap = Gap {
        path: path(b"srv"),
        reason: GapReason::Unreadable,
        detail: "Input/output error".to_owned(),
    };
    Report {
        run: RunId([0xab; 16]),
        sequence: 7,
        previous_run: Some(RunId([1; 16])),
        part: Part {
            generation: 3,
            index: 1,
            count: 2,
        },
        agent: AgentBuild {
            version: "0.1.0".to_owned(),
            minor: 0,
            features: vec!["watch".to_owned()],
        },
        boot_id: "6f3e0f2c-0000-4000-8000-000000000000".to_owned(),
        phase: Phase::Running,
        image: Some(ImageRef {
            name: "golden".to_owned(),
            version: "1.2.3".to_owned(),
            build: "amd64".to_owned(),
            manifest: manifest().identity.blake3,
        }),
        unverifiable: Some("only here to have every field".to_owned()),
        states: StateUpdate::Whole,
        open_count: opened.len() as u64,
        set_digest: set_digest(ids),
        closed: vec![drift(b"etc/group", DriftKind::Removed, &[]).id()],
        opened,
        moments: vec![Moment {
            number: 1,
            drift: changed,
            agent_clock_milliseconds: 1_700_000_000_123,
        }],
        dropped_moments: 2,
        held_whole: true,
        held: vec![
            HeldValue {
                path: path(b"etc/machine-id"),
                value: Some(Blake3::of(b"id")),
                length: None,
                prefix: None,
            },
            HeldValue {
                path: path(b"var/log/dpkg.log"),
                value: Some(Blake3::of(b"log")),
                length: Some(3),
                prefix: Some(HeldPrefix {
                    length: 2,
                    digest: Some(Blake3::of(b"lo")),
                }),
            },
        ],
        coverage: Coverage {
            verified_entries: 22,
            expected_entries: 23,
            seen: Some(scan.clone()),
            quick: Some(scan.clone()),
            disk: Some(scan),
            gaps: vec![gap],
            gap_count: 1,
            not_held: vec!["flags".to_owned()],
            limits: vec!["what lies beneath mounts was not verified".to_owned()],
            notes: Vec::new(),
            verity_roots: None,
        },
        agent_clock: 1_700_000_000,
        uptime_seconds: 90,
    }
}

#[test]
fn the_report_is_what_it_was() {
    let json = serde_json::to_vec(&report()).unwrap();
    golden("report-v1.json", &json);
    let read: Report = serde_json::from_slice(&json).unwrap();
    assert_eq!(read, report());
    read.check_limits().unwrap();
}

#[test]
fn the_verdict_is_what_it_was() {
    let order = ExecutingOrder {
        id: "o-1".to_owned(),
        replacer: "probe".to_owned(),
        reason: "it drifted".to_owned(),
    };
    let verdict = Verdict {
        acknowledged: 7,
        state: InstanceState::Drifted,
        order: Some(order),
        resend_all: true,
        settings: Settings::default(),
    };
    let json = serde_json::to_vec(&verdict).unwrap();
    golden("verdict-v1.json", &json);
    assert_eq!(serde_json::from_slice::<Verdict>(&json).unwrap(), verdict);
}

#[test]
fn the_join_token_is_what_it_was() {
    let token = JoinToken {
        url: "https://collector.example:7443".to_owned(),
        ca: Sha256::of(b"ca"),
        secret: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned(),
    };
    golden("join-token-v1.txt", token.to_text().as_bytes());
    assert_eq!(JoinToken::parse(&token.to_text()), Ok(token));
}
