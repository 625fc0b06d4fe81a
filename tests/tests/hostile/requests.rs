//! Certificate requests that ask for more than a key: the collector decides what a certificate says, or issues none.

use anyhow::{Context, Result};
use driftmark_tests::process::run;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;

use crate::forge::{self, Ca, Leaf};
use crate::machine::Machine;
use crate::wire::{Answer, Credentials, handshake_refusal};
use crate::world::{FLEET, World};

fn enrol(world: &World, csr: &str) -> Result<Answer> {
    let secret = world.secret(FLEET, None, 1)?;
    world
        .stranger()?
        .post("/v1/enroll", &json!({"token": secret, "csr": csr}))
}

#[test]
fn whatever_names_a_request_asks_for_the_certificate_has_its_own() -> Result<()> {
    let world = World::new()?;
    let victim = world.clean("vm-victim")?;
    let before = world.everybody()?;
    let keys = [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
    ];
    for key in keys {
        let identity: Value =
            enrol(&world, &forge::greedy_request(&key, &victim.id)?)?.granted()?;
        let id = identity["instance"].as_str().context("an id")?.to_owned();
        assert_ne!(id, victim.id);
        let chain =
            forge::certificates(identity["certificate"].as_str().context("a certificate")?)?;
        check_certificate(&chain[0], &id)?;
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0])?;
        assert_eq!(
            leaf.public_key().raw,
            key.subject_public_key_info(),
            "of another key"
        );
        assert!(!world.collector.output().contains("panicked"));
        // It signs for nobody else.
        let own = Credentials {
            chain,
            key: forge::private(&key),
        };
        let forged = Ca::sign_below(own, &Leaf::of(&victim.id))?;
        assert!(handshake_refusal(world.collector.agents(), &forged)?.is_some());
    }
    assert_eq!(world.everybody()?[&victim.id], before[&victim.id]);
    Ok(())
}

#[test]
fn a_renewal_gives_the_same_name_whatever_it_asks_for() -> Result<()> {
    let world = World::new()?;
    let (victim, attacker) = (world.clean("vm-victim")?, world.clean("vm-attacker")?);
    let csr = forge::greedy_request(&attacker.key, &victim.id)?;
    let identity: Value = attacker
        .wire
        .post("/v1/renew", &json!({ "csr": csr }))?
        .granted()?;
    assert_eq!(identity["instance"], attacker.id);
    let chain = forge::certificates(identity["certificate"].as_str().context("a certificate")?)?;
    check_certificate(&chain[0], &attacker.id)
}

/// A certificate of `id` for a day and clients alone, and not one word more.
fn check_certificate(der: &[u8], id: &str) -> Result<()> {
    let (rest, leaf) = x509_parser::parse_x509_certificate(der)?;
    assert!(rest.is_empty());
    assert_eq!(leaf.subject().to_string(), format!("CN={id}"));
    let names = leaf.subject_alternative_name()?.context("names")?.value;
    let uri = format!("spiffe://driftmark/instance/{id}");
    assert_eq!(names.general_names, [GeneralName::URI(&uri)]);
    let purposes = leaf.extended_key_usage()?.context("purposes")?.value;
    assert!(
        purposes.client_auth && !purposes.server_auth && !purposes.any && purposes.other.is_empty()
    );
    let usage = leaf.key_usage()?.context("usages")?.value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    assert!(!leaf.is_ca());
    let now = i64::try_from(forge::seconds_now())?;
    let life = leaf.validity().not_after.timestamp() - now;
    let age = now - leaf.validity().not_before.timestamp();
    assert!((86_000..=86_400).contains(&life), "{life} seconds");
    assert!((3_500..=3_700).contains(&age), "{age} seconds back");
    let known = [
        "2.5.29.14",
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.35",
        "2.5.29.37",
    ];
    for extension in leaf.extensions() {
        let oid = extension.oid.to_id_string();
        assert!(known.contains(&oid.as_str()), "extension {oid}");
    }
    Ok(())
}

#[test]
fn a_request_with_a_key_that_instances_do_not_have_is_refused() -> Result<()> {
    let world = World::new()?;
    let before = world.everybody()?;
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
    enrol(&world, &forge::request(&p384)?)?.is_refused(400, "bad-csr");
    for algorithm in ["rsa:2048", "rsa:1024"] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "req",
            "-new",
            "-newkey",
            algorithm,
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            "/dev/null",
        ]);
        enrol(&world, &run(&mut openssl)?)?.is_refused(400, "bad-csr");
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_request_that_is_none_or_whose_sender_lacks_the_key_is_refused() -> Result<()> {
    let world = World::new()?;
    let machine = world.clean("vm-1")?;
    let before = world.everybody()?;
    let request = CertificateParams::default().serialize_request(&forge::p256()?)?;
    let der = request.der().as_ref().to_vec();
    let altered = |at: usize| {
        let mut der = der.clone();
        der[at] ^= 1;
        written(&der)
    };
    // Another's key under one's own signature.
    let stolen = {
        let (own, theirs) = (forge::p256()?, machine.key.public_key_raw());
        let mut der = CertificateParams::default()
            .serialize_request(&own)?
            .der()
            .as_ref()
            .to_vec();
        let at = der
            .windows(theirs.len())
            .position(|window| window == own.public_key_raw())
            .context("a key")?;
        der[at..at + theirs.len()].copy_from_slice(theirs);
        written(&der)
    };
    let cases = [
        ("a wrong signature", altered(der.len() - 1)),
        ("another version", altered(8)),
        ("another's key", stolen),
        ("more behind it", written(&[&der[..], &[0; 8]].concat())),
        ("cut off", written(&der[..der.len() / 2])),
        (
            "a certificate",
            forge::pem(&machine.credentials()?.chain[0]),
        ),
        (
            "an endless length",
            written(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30]),
        ),
        ("deep nesting", written(&[0x30, 0x80].repeat(10_000))),
        ("nothing", String::new()),
        ("no PEM", "let me in".to_owned()),
    ];
    for (what, csr) in cases {
        println!("{what}");
        enrol(&world, &csr)?.is_refused(400, "bad-csr");
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn the_key_of_another_instance_enrols_nobody() -> Result<()> {
    let world = World::new()?;
    let machine = world.clean("vm-1")?;
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    enrol(&world, &forge::request(&machine.key)?)?.is_refused(409, "key-used");
    assert_eq!(world.recorded(entries, "enrolment-refused")?.len(), 1);
    let secret = world.secret(FLEET, Some("vm-2"), 1)?;
    let answer = world.stranger()?.post(
        "/v1/enroll",
        &json!({"token": secret, "csr": forge::request(&machine.key)?, "cloud_id": "vm-2"}),
    )?;
    answer.is_refused(409, "key-used");
    assert_eq!(world.everybody()?, before);
    // And the refused token was not used up by it.
    Machine::enrol(&world, &secret, Some("vm-2"), None)?;
    Ok(())
}

fn written(der: &[u8]) -> String {
    format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        drift::base64(der)
    )
}
