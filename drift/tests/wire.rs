//! What agent and collector say to each other: limits are kept, later words are kept, no text makes a reader panic.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use drift::class::Class;
use drift::coverage::{Coverage, VerityRoot};
use drift::enrolment::{EnrolRequest, JoinToken};
use drift::finding::{DriftId, DriftKind, set_digest};
use drift::report::{InstanceState, Phase, Report, Verdict};
use drift::rules::{RuleFile, Rules};
use drift::signature::Envelope;
use drift::statement::Statement;
use drift::{Blake3, TreePath};
use proptest::prelude::*;
use serde_json::{Value, json};

const REPORT: &[u8] = include_bytes!("golden/report-v1.json");
const VERDICT: &[u8] = include_bytes!("golden/verdict-v1.json");
const ENVELOPE: &[u8] = include_bytes!("golden/manifest-v1.manifest.sig");
const STATEMENT: &[u8] = include_bytes!("golden/manifest-v1.statement.json");
const TOKEN: &[u8] = include_bytes!("golden/join-token-v1.txt");

fn report() -> Report {
    serde_json::from_slice(REPORT).unwrap()
}

fn with(edit: impl FnOnce(&mut Report)) -> Option<&'static str> {
    let mut report = report();
    edit(&mut report);
    report.check_limits().err().map(|much| much.field)
}

#[test]
fn every_list_and_text_of_a_report_has_its_limit() {
    let report = report();
    let drift = report.opened[0].clone();
    let moment = report.moments[0].clone();
    let held = report.held[0].clone();
    let gap = report.coverage.gaps[0].clone();
    let word = "w".repeat(Report::MAX_WORD_BYTES + 1);
    let text = "t".repeat(Report::MAX_TEXT_BYTES + 1);
    assert_eq!(report.check_limits(), Ok(()));
    assert_eq!(
        with(|r| r.opened = vec![drift.clone(); Report::MAX_DRIFTS]),
        None
    );
    assert_eq!(
        with(|r| r.opened = vec![drift.clone(); Report::MAX_DRIFTS + 1]),
        Some("opened")
    );
    assert_eq!(
        with(|r| r.closed = vec![drift.id; Report::MAX_DRIFTS + 1]),
        Some("closed")
    );
    assert_eq!(
        with(|r| r.moments = vec![moment; Report::MAX_DRIFTS + 1]),
        Some("moments")
    );
    assert_eq!(
        with(|r| r.held = vec![held; Report::MAX_HELD + 1]),
        Some("held")
    );
    assert_eq!(
        with(|r| r.coverage.gaps = vec![gap; Coverage::MAX_GAPS + 1]),
        Some("coverage.gaps")
    );
    assert_eq!(
        with(|r| r.coverage.gaps[0].detail = text.clone()),
        Some("coverage.gaps")
    );
    assert_eq!(
        with(|r| r.coverage.limits = vec![String::new(); Coverage::MAX_LIMITS + 1]),
        Some("coverage.limits")
    );
    assert_eq!(
        with(|r| r.coverage.notes = vec![String::new(); Coverage::MAX_NOTES + 1]),
        Some("coverage.notes")
    );
    assert_eq!(
        with(|r| r.coverage.notes = vec![text.clone()]),
        Some("coverage.notes")
    );
    let root = VerityRoot {
        mount_point: TreePath::root(),
        root_hash: "ab".repeat(64),
        algorithm: "sha512".to_owned(),
        corrupted: false,
    };
    let with_roots = |roots| with(|r| r.coverage.verity_roots = Some(roots));
    assert_eq!(with_roots(vec![root.clone()]), None);
    let too_many = vec![root.clone(); Coverage::MAX_VERITY_ROOTS + 1];
    let long_hash = VerityRoot {
        root_hash: "ab".repeat(65),
        ..root.clone()
    };
    let long_algorithm = VerityRoot {
        algorithm: word.clone(),
        ..root
    };
    for roots in [too_many, vec![long_hash], vec![long_algorithm]] {
        assert_eq!(with_roots(roots), Some("coverage.verity_roots"));
    }
    assert_eq!(with(|r| r.boot_id = word.clone()), Some("boot_id"));
    assert_eq!(
        with(|r| r.unverifiable = Some(text.clone())),
        Some("unverifiable")
    );
    assert_eq!(
        with(|r| r.opened[0].drift.detail = Some(text.clone())),
        Some("detail")
    );
    assert_eq!(
        with(|r| r.opened[0].drift.kind = DriftKind::Unknown(word.clone())),
        Some("kind")
    );
    assert_eq!(
        with(|r| r.moments[0].drift.class = Class::Unknown(word.clone())),
        Some("class")
    );
    assert_eq!(
        with(|r| r.opened[1].drift.technique = vec![word.clone().into()]),
        Some("technique")
    );
    assert_eq!(
        with(|r| r.opened[1].drift.technique = vec!["".into(); 17]),
        Some("technique")
    );
    assert_eq!(
        with(|r| r.image.as_mut().unwrap().version = "v".repeat(257)),
        Some("image")
    );
    assert_eq!(
        with(|r| r.part.count = Report::MAX_PARTS + 1),
        Some("part.count")
    );
    assert_eq!(with(|r| r.part.index = 0), Some("part.index"));
    assert_eq!(
        with(|r| r.part.index = r.part.count + 1),
        Some("part.index")
    );
}

/// Every object of the report gets a field that nobody knows yet.
fn extended(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(extended);
            fields.insert("later".to_owned(), json!({"minor": [1, null, "x"]}));
        }
        Value::Array(list) => list.iter_mut().for_each(extended),
        _ => {}
    }
}

#[test]
fn fields_of_a_later_minor_version_are_accepted() {
    let mut value: Value = serde_json::from_slice(REPORT).unwrap();
    // What is shown of attributes is a map of names: a name more there is no field.
    extended(&mut value);
    assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report());
    let mut value: Value = serde_json::from_slice(VERDICT).unwrap();
    extended(&mut value);
    let read: Verdict = serde_json::from_value(value).unwrap();
    assert_eq!(read, serde_json::from_slice(VERDICT).unwrap());
}

#[test]
fn words_of_a_later_version_are_kept_or_known_to_be_unknown() {
    let mut value: Value = serde_json::from_slice(REPORT).unwrap();
    value["opened"][0]["kind"] = json!("transmuted");
    value["opened"][0]["class"] = json!("firmware");
    value["opened"][0]["severity"] = json!("catastrophic");
    value["phase"] = json!("hibernating");
    let read: Report = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(
        read.opened[0].drift.kind,
        DriftKind::Unknown("transmuted".to_owned())
    );
    assert_eq!(
        read.opened[0].drift.class,
        Class::Unknown("firmware".to_owned())
    );
    assert_eq!(read.phase, Phase::Unknown);
    let again = serde_json::to_value(&read).unwrap();
    for word in ["kind", "class", "severity"] {
        assert_eq!(again["opened"][0][word], value["opened"][0][word]);
    }
    assert_eq!(
        serde_json::from_value::<InstanceState>(json!("quarantined")).unwrap(),
        InstanceState::Unknown
    );
}

#[test]
fn the_set_digest_is_blake3_over_the_sorted_ids() {
    let ids = [1, 2, 3].map(|byte| DriftId(Blake3::from_bytes([byte; 32])));
    let concatenated: Vec<u8> = ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
    assert_eq!(set_digest(ids), Blake3::of(&concatenated));
    assert_eq!(set_digest([]), Blake3::of(b""));
    assert_ne!(set_digest(ids), set_digest([ids[0], ids[1]]));
}

#[test]
fn a_drift_is_named_by_all_that_it_says() {
    let drift = report().opened[0].drift.clone();
    let mut others = vec![drift.clone(); 5];
    others[0].kind = DriftKind::Added;
    others[1].path = TreePath::root();
    others[2].changed = Default::default();
    others[3].found = None;
    others[4].detail = None;
    assert!(others.iter().all(|other| other.id() != drift.id()));
    let reclassified = drift::finding::Drift {
        class: Class::Other,
        ..drift.clone()
    };
    assert_eq!(
        reclassified.id(),
        drift.id(),
        "what it means may be seen otherwise later"
    );
}

/// Reads the bytes as everything that is ever read from a peer or a file.
fn read_all(bytes: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        let _ = report.check_limits();
        assert_eq!(
            serde_json::from_slice::<Report>(&serde_json::to_vec(&report).unwrap()).unwrap(),
            report
        );
    }
    let _ = serde_json::from_slice::<Verdict>(bytes);
    let _ = serde_json::from_slice::<EnrolRequest>(bytes);
    if let Ok(envelope) = Envelope::from_json(bytes) {
        assert_eq!(Envelope::from_json(&envelope.to_json()).unwrap(), envelope);
        assert!(envelope.verify(&[]).is_err());
    }
    if let Ok(statement) = Statement::from_json(bytes) {
        assert_eq!(
            Statement::from_json(&statement.to_json()).unwrap(),
            statement
        );
    }
    if let Ok(rules) = Rules::decode(bytes) {
        let mut again = Vec::new();
        rules.encode(&mut again);
        assert_eq!(again, bytes, "rules have one encoding");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(token) = JoinToken::parse(text) {
            assert_eq!(JoinToken::parse(&token.to_text()), Ok(token));
        }
        let _ = RuleFile::parse("any", text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn golden_bytes_that_were_damaged_are_read_or_refused(
        which in 0..5_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = [REPORT, VERDICT, ENVELOPE, STATEMENT, TOKEN][which].to_vec();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }

    #[test]
    fn every_path_survives_json(bytes in proptest::collection::vec(1_u8.., 0..60)) {
        if let Ok(path) = TreePath::new(&bytes) {
            let json = serde_json::to_vec(&path).unwrap();
            prop_assert_eq!(serde_json::from_slice::<TreePath>(&json).unwrap(), path.clone());
            prop_assert!(!path.to_string().chars().any(char::is_control));
        }
    }
}
