//! Receives reports as agents send them; holds ingest to counting each once and only its sender's.

mod who;

use super::*;
use crate::enrol::{self, Renewal};
use crate::store::instances::Enrolled;
use crate::store::{Store, StoreError};
use drift::coverage::{Coverage, ScanRecord};
use drift::finding::{Drift, DriftKind, set_digest};
use drift::report::{
    AgentBuild, HeldPrefix, HeldValue, Moment, OpenDrift, Part, Phase, RunId, StateUpdate,
};
use drift::{Blake3, TreePath};

const ID: &str = "i-00000000000000000000000000000001";
const HEARTBEAT: Duration = Duration::from_secs(60);

struct Bench {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db")).unwrap();
        let enrolled = Enrolled {
            id: ID.into(),
            fleet: "web".into(),
            cloud_id: Some("vm-1".into()),
            proven: true,
            token: "t-1".into(),
            public_key: [7; 32],
            image: None,
            boot_id: "boot".into(),
            certificate_until_ms: 1_000,
        };
        let inserted: Result<(), StoreError> = store
            .write(move |tx| Ok(instances::insert(tx, &enrolled, 0)?))
            .await;
        inserted.unwrap();
        Bench {
            store,
            _directory: directory,
        }
    }

    async fn send(&self, report: Report) -> Result<Accepted, ApiError> {
        let body = Blake3::of(&serde_json::to_vec(&report).unwrap());
        let incoming = Incoming {
            instance: ID.into(),
            key: [7; 32],
            body,
            bytes: 1000,
            report,
        };
        let now = Circumstances {
            heartbeat: HEARTBEAT,
            refusals: rate(),
            now_ms: 1_000,
        };
        let accepted: Result<_, StoreError> = self
            .store
            .write(move |tx| Ok(accept(tx, &incoming, &now)?))
            .await;
        accepted.unwrap()
    }

    async fn instance(&self) -> Instance {
        let found: Result<_, StoreError> =
            self.store.read(|db| Ok(instances::by_id(db, ID)?)).await;
        found.unwrap().unwrap()
    }

    async fn renew(&self, key: u8, ended_ms: i64, now_ms: i64) -> Result<(), String> {
        let renewal = Renewal {
            id: ID.into(),
            key: [key; 32],
            ended_ms,
            until_ms: now_ms + 1,
            refusals: rate(),
            now_ms,
        };
        let granted: Result<_, StoreError> = self
            .store
            .write(move |tx| Ok(enrol::renew(tx, &renewal)?))
            .await;
        granted
            .unwrap()
            .map(drop)
            .map_err(|refused| refused.refusal.code)
    }
}

fn rate() -> Arc<Rate> {
    Arc::new(Rate::new(10, Duration::from_secs(1)))
}

fn report(sequence: u64) -> Report {
    Report {
        run: RunId([1; 16]),
        sequence,
        previous_run: None,
        part: Part::only(sequence),
        agent: AgentBuild::default(),
        boot_id: "boot".into(),
        phase: Phase::Running,
        image: None,
        unverifiable: None,
        states: StateUpdate::Change,
        opened: Vec::new(),
        closed: Vec::new(),
        open_count: 0,
        set_digest: set_digest([]),
        moments: Vec::new(),
        dropped_moments: 0,
        held_whole: false,
        held: Vec::new(),
        coverage: Coverage {
            seen: Some(ScanRecord::default()),
            ..Coverage::default()
        },
        agent_clock: 0,
        uptime_seconds: 0,
    }
}

fn drift_at(path: &str) -> Drift {
    let path = TreePath::new(path.as_bytes()).unwrap();
    let meaning = drift::class::classify(&path, &DriftKind::Added, Default::default(), None);
    Drift {
        attribution: None,
        path,
        kind: DriftKind::Added,
        changed: Default::default(),
        found: None,
        detail: None,
        class: meaning.class,
        severity: meaning.severity,
        technique: Vec::new(),
    }
}

fn opening(sequence: u64, generation: u64, drifts: std::ops::Range<usize>) -> Report {
    let open = |number: usize| drift_at(&format!("opt/file-{number}"));
    let opened = drifts
        .map(open)
        .map(|drift| OpenDrift {
            id: drift.id(),
            drift,
            host_package: None,
        })
        .collect();
    Report {
        part: Part::only(generation),
        opened,
        ..report(sequence)
    }
}

#[tokio::test]
async fn a_number_below_the_window_is_refused() {
    let bench = Bench::new().await;
    bench.send(report(300)).await.unwrap();
    assert!(bench.send(report(45)).await.is_ok());
    assert_eq!(
        bench.send(report(44)).await.unwrap_err().refusal.code,
        "number-used"
    );
}

#[tokio::test]
async fn a_generation_that_comes_late_changes_no_state() {
    let bench = Bench::new().await;
    bench.send(opening(1, 5, 0..2)).await.unwrap();
    bench.send(opening(2, 4, 2..9)).await.unwrap();
    assert_eq!(bench.instance().await.open, 2);
}

#[tokio::test]
async fn a_moment_is_kept_once() {
    let bench = Bench::new().await;
    let moment = |number| Moment {
        number,
        drift: drift_at("bin/x"),
        agent_clock_milliseconds: 1,
    };
    bench
        .send(Report {
            moments: vec![moment(1), moment(2)],
            ..report(1)
        })
        .await
        .unwrap();
    bench
        .send(Report {
            moments: vec![moment(2), moment(3)],
            ..report(2)
        })
        .await
        .unwrap();
    assert_eq!(bench.instance().await.moments, 3);
}

#[tokio::test]
async fn whole_drifts_are_kept_of_the_gravest_and_the_count_goes_on() {
    let bench = Bench::new().await;
    let mut grave = drift_at("etc/passwd");
    grave.severity = drift::class::Severity::Critical;
    for part in 0..11 {
        let mut next = opening(
            part + 1,
            part + 1,
            part as usize * 1000..(part as usize + 1) * 1000,
        );
        if part == 10 {
            next.opened[999] = OpenDrift {
                id: grave.id(),
                drift: grave.clone(),
                host_package: None,
            };
        }
        bench.send(next).await.unwrap();
    }
    let instance = bench.instance().await;
    assert_eq!(instance.open, 11_000);
    assert_eq!(instance.severity, Some(drift::class::Severity::Critical));
    let row = instance.row;
    let listed: Result<_, StoreError> = bench
        .store
        .read(move |db| Ok(drifts::list(db, row, 20_000)?))
        .await;
    let listed = listed.unwrap();
    assert_eq!(
        listed.iter().filter(|open| open.drift.is_some()).count() as u64,
        drifts::ROWS
    );
    assert_eq!(listed[0].drift.as_ref(), Some(&grave));
}

#[tokio::test]
async fn a_held_value_that_differs_later_is_drift_until_it_is_back() {
    let bench = Bench::new().await;
    let held = |value: &[u8]| {
        let path = TreePath::new(b"etc/machine-id").unwrap();
        vec![HeldValue {
            path,
            value: Some(Blake3::of(value)),
            length: None,
            prefix: None,
        }]
    };
    for (sequence, value, raised) in [
        (1, b"a", 0),
        (2, b"a", 0),
        (3, b"b", 1),
        (4, b"b", 1),
        (5, b"a", 0),
    ] {
        bench
            .send(Report {
                held_whole: true,
                held: held(value),
                ..report(sequence)
            })
            .await
            .unwrap();
        assert_eq!(bench.instance().await.raised, raised, "{sequence}");
    }
}

#[tokio::test]
async fn an_append_only_file_that_comes_later_is_held_from_then_on() {
    let bench = Bench::new().await;
    let mark = |content: &[u8], before: Option<&[u8]>| HeldValue {
        path: TreePath::new(b"var/lib/dpkg/lock").unwrap(),
        value: Some(Blake3::of(content)),
        length: Some(content.len() as u64),
        prefix: before.map(|before| HeldPrefix {
            length: before.len() as u64,
            digest: Some(Blake3::of(before)),
        }),
    };
    let late = |content: &[u8], before: &[u8]| HeldValue {
        path: TreePath::new(b"var/lib/dpkg/lock-frontend").unwrap(),
        ..mark(content, Some(before))
    };
    let steps = [
        ("the window ends without it", vec![], 0),
        ("it comes", vec![mark(b"abc", None)], 0),
        ("it stays", vec![mark(b"abc", Some(b"abc"))], 0),
        ("it grows", vec![mark(b"abcd", Some(b"abc"))], 0),
        ("it is rewritten", vec![mark(b"xbcd", Some(b"xbc"))], 1),
        ("it is itself again", vec![mark(b"abcd", Some(b"abc"))], 0),
        ("it shrinks", vec![mark(b"a", None)], 1),
        ("it goes", vec![], 1),
        ("it is back", vec![mark(b"abc", Some(b"abc"))], 0),
        (
            "its first report was lost",
            vec![mark(b"abc", Some(b"abc")), late(b"de", b"d")],
            0,
        ),
        (
            "it grows",
            vec![mark(b"abc", Some(b"abc")), late(b"def", b"d")],
            0,
        ),
        (
            "it is rewritten",
            vec![mark(b"abc", Some(b"abc")), late(b"xef", b"x")],
            1,
        ),
    ];
    for (sequence, (what, held, raised)) in (1..).zip(steps) {
        let whole = Report {
            held_whole: true,
            held,
            ..report(sequence)
        };
        bench.send(whole).await.unwrap();
        let instance = bench.instance().await;
        let counts = (instance.raised, instance.held_unproven);
        assert_eq!(counts, (raised, 0), "{what}");
    }
}

#[tokio::test]
async fn parts_that_disagree_are_refused_and_a_newer_generation_takes_their_place() {
    let bench = Bench::new().await;
    let part = |sequence, generation, index, count, range| Report {
        part: Part {
            generation,
            index,
            count,
        },
        ..opening(sequence, generation, range)
    };
    bench.send(part(1, 1, 1, 3, 0..5)).await.unwrap();
    assert_eq!(
        bench
            .send(part(2, 1, 2, 4, 5..6))
            .await
            .unwrap_err()
            .refusal
            .code,
        "bad-part"
    );
    bench.send(part(2, 1, 2, 3, 5..6)).await.unwrap();
    bench.send(part(3, 2, 1, 2, 0..5)).await.unwrap();
    assert_eq!(bench.instance().await.open, 0);
    bench.send(part(4, 2, 2, 2, 5..7)).await.unwrap();
    assert_eq!(bench.instance().await.open, 7);
    bench.send(part(5, 1, 2, 3, 7..9)).await.unwrap();
    assert_eq!(bench.instance().await.open, 7);
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_for_thirty_days_and_then_an_operator_must_approve() {
    const DAY: i64 = 24 * 3_600_000;
    let bench = Bench::new().await;
    assert_eq!(bench.renew(7, 0, 30 * DAY).await, Ok(()));
    assert_eq!(bench.renew(8, 0, DAY).await, Err("other-key".into()));
    assert_eq!(
        bench.renew(7, 0, 30 * DAY + 1).await,
        Err("approval-required".into())
    );
    let row = bench.instance().await.row;
    let allowed: Result<(), StoreError> = bench
        .store
        .write(move |tx| Ok(instances::allow_renewal(tx, row, 32 * DAY)?))
        .await;
    allowed.unwrap();
    assert_eq!(bench.renew(7, 0, 31 * DAY).await, Ok(()));
    assert_eq!(
        bench.renew(7, 0, 31 * DAY).await,
        Err("approval-required".into()),
        "it is good once"
    );
    let replaced: Result<_, StoreError> = bench
        .store
        .write(|tx| {
            Ok(instances::set_standing(
                tx,
                ID,
                Standing::Replaced,
                "order",
                0,
            )?)
        })
        .await;
    assert!(replaced.unwrap());
    assert_eq!(bench.renew(7, 0, DAY).await, Err("replaced".into()));
}
