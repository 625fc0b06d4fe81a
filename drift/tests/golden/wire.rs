//! Reports, verdicts and tokens.

use drift::class::{Class, Severity};
use drift::coverage::{Coverage, Gap, GapReason, ScanRecord};
use drift::enrolment::JoinToken;
use drift::entry::{Attribute, AttributeSet, Entry, Shown};
use drift::finding::{Drift, DriftKind, set_digest};
use drift::report::{
    AgentBuild, ExecutingOrder, HeldPrefix, HeldValue, ImageRef, InstanceState, Moment, OpenDrift,
    Part, Phase, Report, RunId, Settings, StateUpdate, Verdict,
};
use drift::{Blake3, Sha256};

use super::{file, former, golden, path};

fn drift(at: &[u8], kind: DriftKind, changed: &[Attribute]) -> Drift {
    Drift {
        attribution: None,
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
        technique: vec!["T1098".into()],
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
            manifest: former::identity().blake3,
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
            processes: None,
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
