//! Keys and signatures against the real `openssl`: what it makes is read here, what is made here it reads.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "runs openssl on files"
)]
#![allow(
    clippy::print_stderr,
    clippy::disallowed_macros,
    reason = "a test that cannot run says so"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drift::key::{KeyError, SigningKey, TrustedKey};
use drift::signature::Envelope;
use drift::statement::{Predicate, Provenance, Statement, Subject, SubjectDigest};
use drift::{Blake3, Sha256};
use ring::rand::SystemRandom;

/// A directory of this test's own, removed at its end.
struct Desk(PathBuf);

impl Desk {
    /// None if there is no openssl to ask.
    fn new(name: &str) -> Option<Self> {
        let asked = Command::new("openssl")
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no openssl");
            return None;
        }
        let path =
            std::env::temp_dir().join(format!("drift-openssl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Some(Self(path))
    }

    fn run(&self, arguments: &str) -> bool {
        let arguments = arguments.split_whitespace();
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap();
        output.status.success()
    }

    fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), content).unwrap();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn statement() -> Statement {
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
            version: "1".parse().unwrap(),
            build: None,
            architecture: None,
            build_time: None,
            builder: None,
            source_revision: None,
            approved_by: None,
            sbom_sha256: None,
            parent: None,
        }),
    }
}

/// The first signature of an envelope, as its bytes.
fn signature(envelope: &Envelope) -> Vec<u8> {
    let json: serde_json::Value = serde_json::from_slice(&envelope.to_json()).unwrap();
    drift::from_base64(json["signatures"][0]["sig"].as_str().unwrap()).unwrap()
}

/// openssl's key and public key are read; it verifies what is signed here, and what it signs is verified here.
fn both_ways(desk: &Desk, sign: &str, verify: &str) {
    assert!(desk.run("pkey -in key.pem -pubout -out key.pub"));
    let random = SystemRandom::new();
    let key = SigningKey::from_pem(&desk.read("key.pem"), &random).unwrap();
    let trusted = TrustedKey::all_from_pem(&desk.read("key.pub")).unwrap();
    assert_eq!(trusted, [key.public().clone()]);
    assert_eq!(key.public().to_pem().as_bytes(), desk.read("key.pub"));

    let ours = Envelope::sign(statement().to_json(), &key, &random).unwrap();
    desk.write("pae", ours.pae());
    desk.write("sig", signature(&ours));
    assert!(desk.run(verify), "openssl verifies what is signed here");
    desk.write("pae", [&ours.pae()[..], b"x"].concat());
    assert!(!desk.run(verify), "openssl refuses what was not signed");

    let mut theirs = Envelope::unsigned(statement().to_json());
    desk.write("pae", theirs.pae());
    assert!(desk.run(sign));
    theirs.attach(&desk.read("sig"), &trusted[0]).unwrap();
    let read = Envelope::from_json(&theirs.to_json()).unwrap();
    assert_eq!(read.verify(&trusted).unwrap().statement, statement());
}

const ED25519_SIGN: &str = "pkeyutl -sign -rawin -inkey key.pem -in pae -out sig";
const ED25519_VERIFY: &str = "pkeyutl -verify -rawin -pubin -inkey key.pub -in pae -sigfile sig";
const P256_SIGN: &str = "dgst -sha256 -sign key.pem -out sig pae";
const P256_VERIFY: &str = "dgst -sha256 -verify key.pub -signature sig pae";

#[test]
fn an_ed25519_key_of_openssl_signs_and_verifies() {
    let Some(desk) = Desk::new("ed25519") else {
        return;
    };
    assert!(desk.run("genpkey -algorithm ed25519 -out key.pem"));
    both_ways(&desk, ED25519_SIGN, ED25519_VERIFY);
}

#[test]
fn a_p256_key_of_openssl_signs_and_verifies() {
    let Some(desk) = Desk::new("p256") else {
        return;
    };
    assert!(desk.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"));
    both_ways(&desk, P256_SIGN, P256_VERIFY);
}

#[test]
fn a_p256_key_without_its_public_half_is_refused_by_that_reason() {
    let Some(desk) = Desk::new("half") else {
        return;
    };
    assert!(desk.run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"));
    assert!(desk.run("ec -in key.pem -no_public -out half.sec1"));
    assert!(desk.run("pkcs8 -topk8 -nocrypt -in half.sec1 -out half.pem"));
    let refused = SigningKey::from_pem(&desk.read("half.pem"), &SystemRandom::new());
    assert!(
        matches!(refused, Err(KeyError::NoPublicHalf)),
        "{refused:?}"
    );
    // What the message tells people to do.
    assert!(desk.run("ec -in half.pem -out whole.sec1"));
    assert!(desk.run("pkcs8 -topk8 -nocrypt -in whole.sec1 -out whole.pem"));
    assert_eq!(desk.read("whole.pem"), desk.read("key.pem"));
}

#[test]
fn a_key_made_here_is_read_by_openssl() {
    let Some(desk) = Desk::new("ours") else {
        return;
    };
    let (_, pem) = SigningKey::generate(&SystemRandom::new()).unwrap();
    desk.write("key.pem", pem);
    both_ways(&desk, ED25519_SIGN, ED25519_VERIFY);
}

#[test]
fn other_keys_of_openssl_are_refused() {
    let Some(desk) = Desk::new("others") else {
        return;
    };
    for algorithm in [
        "RSA -pkeyopt rsa_keygen_bits:2048",
        "EC -pkeyopt ec_paramgen_curve:P-384",
        "ed448",
        "x25519",
    ] {
        assert!(
            desk.run(&format!("genpkey -algorithm {algorithm} -out key.pem")),
            "{algorithm}"
        );
        assert!(desk.run("pkey -in key.pem -pubout -out key.pub"));
        assert!(
            SigningKey::from_pem(&desk.read("key.pem"), &SystemRandom::new()).is_err(),
            "{algorithm}"
        );
        assert!(
            TrustedKey::all_from_pem(&desk.read("key.pub")).is_err(),
            "{algorithm}"
        );
    }
}
