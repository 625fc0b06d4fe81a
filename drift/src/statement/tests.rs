//! Receives statements good and hostile; holds reading and writing to canonical JSON.

use super::*;

pub(crate) fn statement() -> Statement {
    Statement {
        subject: Subject {
            name: "image.manifest".parse().unwrap(),
            digest: SubjectDigest {
                sha256: Sha256::of(b"m"),
                blake3: Some(Blake3::of(b"m")),
            },
        },
        predicate: Predicate::Manifest(Provenance {
            name: "web".parse().unwrap(),
            version: "1.2.3".parse().unwrap(),
            build: Some("7".parse().unwrap()),
            architecture: None,
            build_time: Some("2026-11-21T12:00:00Z".parse().unwrap()),
            builder: None,
            source_revision: None,
            approved_by: Some("Ada Lovelace".parse().unwrap()),
            sbom_sha256: None,
            parent: None,
        }),
    }
}

#[test]
fn json_is_canonical_and_round_trips() {
    let json = statement().to_json();
    let expected = format!(
        concat!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"image.manifest","digest":"#,
            r#"{{"sha256":"{}","blake3":"{}"}}}}],"predicateType":"https://driftmark.dev/manifest/v1","predicate":"#,
            r#"{{"name":"web","version":"1.2.3","build":"7","buildTime":"2026-11-21T12:00:00Z","#,
            r#""approvedBy":"Ada Lovelace"}}}}"#
        ),
        Sha256::of(b"m"),
        Blake3::of(b"m")
    );
    assert_eq!(String::from_utf8(json.clone()).unwrap(), expected);
    assert_eq!(Statement::from_json(&json).unwrap(), statement());
}

#[test]
fn an_artifact_round_trips() {
    let artifact = Statement {
        predicate: Predicate::Artifact(Artifact {
            platform: "aws".parse().unwrap(),
            ids: BTreeMap::from([("eu-west-1".parse().unwrap(), "ami-1".parse().unwrap())]),
            verity_root_hash: Some(Sha256::of(b"v")),
        }),
        ..statement()
    };
    assert_eq!(Statement::from_json(&artifact.to_json()).unwrap(), artifact);
    assert!(artifact.provenance().is_none());
}

#[test]
fn what_is_not_exactly_a_statement_is_refused() {
    let json = String::from_utf8(statement().to_json()).unwrap();
    let cases = [
        (json.replace("Statement/v1", "Statement/v0"), "Type"),
        (json.replace("manifest/v1", "manifest/v2"), "PredicateType"),
        (json.replace(r#""version":"1.2.3","#, ""), "Json"),
        (
            json.replace(r#""build":"7""#, r#""build":"7","rebuild":"8""#),
            "Json",
        ),
        (
            json.replace(r#""build":"7""#, r#""build":"7","build":"7""#),
            "Json",
        ),
        (json.replace(r#""name":"web""#, r#""name":"we b""#), "Json"),
        (json.replace("sha256", "sha512"), "Json"),
        (json.replace("12:00:00Z", "12:00:00"), "Json"),
        (json.clone() + "x", "Json"),
        (" ".repeat(Statement::MAX_BYTES) + &json, "TooLong"),
    ];
    for (text, error) in cases {
        let refused = Statement::from_json(text.as_bytes()).unwrap_err();
        assert!(
            format!("{refused:?}").starts_with(error),
            "{refused:?} is not {error}"
        );
    }
    let subjects = json.find("\"subject\":[").unwrap() + 11;
    let end = json.find("],\"predicateType\"").unwrap();
    let none = [&json[..subjects], &json[end..]].concat();
    assert!(matches!(
        Statement::from_json(none.as_bytes()),
        Err(StatementError::Subjects(0))
    ));
}

#[test]
fn times_are_checked_for_their_shape() {
    for good in [
        "2026-11-21T12:00:00Z",
        "2024-02-29T23:59:60.123+02:00",
        "2026-11-21T12:00:00-11:30",
    ] {
        assert!(good.parse::<Timestamp>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "2026-11-21",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00Zz",
    ] {
        assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
    }
}

#[test]
fn labels_and_notes_are_bounded() {
    assert!("a".repeat(128).parse::<Label>().is_ok());
    for bad in ["", "a b", "a/b", "é", &"a".repeat(129)] {
        assert!(bad.parse::<Label>().is_err(), "{bad}");
    }
    assert!("by Ada, é".parse::<Note>().is_ok());
    assert!("a\nb".parse::<Note>().is_err());
}

#[test]
fn a_timestamp_is_the_second_that_a_calendar_says() {
    for text in [
        "1970-01-01T00:00:00Z",
        "2026-11-21T12:34:56Z",
        "2000-02-29T23:59:59.5Z",
        "1969-12-31T23:59:59Z",
        "2026-03-01T00:30:00+01:00",
        "0001-01-01T00:00:00Z",
        "9999-12-30T20:59:59-00:30",
    ] {
        let by_calendar = text.parse::<jiff::Timestamp>().unwrap();
        let second = by_calendar.as_nanosecond().div_euclid(1_000_000_000);
        let ours = text.parse::<Timestamp>().unwrap().unix_seconds();
        assert_eq!(i128::from(ours), second, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn every_second_of_ten_thousand_years_reads_back(seconds in -62_167_219_200_i64..=253_402_207_200) {
        let timestamp = Timestamp::from_unix_seconds(seconds).unwrap();
        proptest::prop_assert_eq!(timestamp.unix_seconds(), seconds);
        let calendar = jiff::Timestamp::from_second(seconds).unwrap().to_string();
        proptest::prop_assert_eq!(timestamp.to_string(), calendar);
    }
}
