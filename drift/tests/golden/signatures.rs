//! Statements about manifests, signed.

use drift::Sha256;
use drift::key::SigningKey;
use drift::manifest::{Identity, UnverifiedManifest};
use drift::signature::Envelope;
use drift::statement::{Predicate, Provenance, Statement, Subject, SubjectDigest};

use super::manifests::manifest;
use super::{former, golden};

const KEY: &[u8] = include_bytes!("TEST-KEY-NEVER-TRUST.key");

/// A statement about a manifest, with every field.
fn statement(identity: Identity) -> Statement {
    Statement {
        subject: Subject {
            name: "golden 1.2.3".parse().unwrap(),
            digest: SubjectDigest {
                sha256: identity.sha256,
                blake3: Some(identity.blake3),
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
    }
}

/// Holds statement and envelope of the manifest of a version against those that were kept.
fn signed(version: &str, identity: Identity) -> (Envelope, SigningKey) {
    let random = ring::rand::SystemRandom::new();
    let key = SigningKey::from_pem(KEY, &random).unwrap();
    let statement = statement(identity);
    golden(
        &format!("manifest-{version}.statement.json"),
        &statement.to_json(),
    );
    assert_eq!(
        Statement::from_json(&statement.to_json()).unwrap(),
        statement
    );
    let envelope = Envelope::sign(statement.to_json(), &key, &random).unwrap();
    golden(
        &format!("manifest-{version}.manifest.sig"),
        &envelope.to_json(),
    );
    (Envelope::from_json(&envelope.to_json()).unwrap(), key)
}

#[test]
fn the_envelope_is_what_it_was_and_verifies() {
    let baked = manifest();
    let (envelope, key) = signed("v2", baked.identity);
    let read = UnverifiedManifest::open(&baked.bytes).unwrap();
    assert!(read.verify(&envelope, &[key.public().clone()]).is_ok());
}

/// Statements and envelopes have no version of the manifest's: those about version 1 are made and read as they were.
#[test]
fn the_envelope_of_version_1_is_what_it_was() {
    let identity = former::identity();
    let (envelope, key) = signed("v1", identity);
    let verified = envelope.verify(&[key.public().clone()]).unwrap();
    assert_eq!(verified.statement.subject.digest.sha256, identity.sha256);
}
