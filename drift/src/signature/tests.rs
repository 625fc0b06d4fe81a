#![allow(clippy::disallowed_types, reason = "tests need keys")]

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::statement::tests::statement;

fn key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap().0
}

fn signed(key: &SigningKey) -> Envelope {
    Envelope::sign(statement().to_json(), key, &SystemRandom::new()).unwrap()
}

#[test]
fn the_encoding_is_that_of_the_specification() {
    let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        expected
    );
}

#[test]
fn one_good_signature_by_a_trusted_key_is_enough() {
    let (ours, theirs) = (key(), key());
    let mut envelope = signed(&theirs);
    let other = ours.sign(&envelope.pae(), &SystemRandom::new()).unwrap();
    envelope.attach(&other, ours.public()).unwrap();
    let envelope = Envelope::from_json(&envelope.to_json()).unwrap();
    let verified = envelope.verify(&[ours.public().clone()]).unwrap();
    assert_eq!(
        (verified.statement, verified.keys),
        (statement(), vec![ours.public().id()])
    );
    assert_eq!(
        envelope
            .verify(&[ours.public().clone(), theirs.public().clone()])
            .unwrap()
            .keys
            .len(),
        2
    );
}

#[test]
fn each_refusal_says_why() {
    let (ours, theirs) = (key(), key());
    let trusted = [ours.public().clone()];
    assert!(matches!(
        signed(&theirs).verify(&trusted),
        Err(SignatureError::Untrusted)
    ));
    assert!(matches!(
        signed(&ours).verify(&[]),
        Err(SignatureError::Untrusted)
    ));
    let unsigned = Envelope::unsigned(statement().to_json());
    assert!(matches!(
        unsigned.verify(&trusted),
        Err(SignatureError::Unsigned)
    ));
    let mut swapped = signed(&ours);
    swapped.payload.push(b' ');
    assert!(
        matches!(swapped.verify(&trusted), Err(SignatureError::Wrong(id)) if id == ours.public().id())
    );
    let no_statement = Envelope::sign(b"{}".to_vec(), &ours, &SystemRandom::new()).unwrap();
    assert!(matches!(
        no_statement.verify(&trusted),
        Err(SignatureError::Statement(_))
    ));
    let mut wrong = signed(&ours);
    assert!(matches!(
        wrong.attach(&[0; 64], theirs.public()),
        Err(SignatureError::Wrong(_))
    ));
    assert!(matches!(
        wrong.attach(&[0; 63], theirs.public()),
        Err(SignatureError::Malformed)
    ));
}

#[test]
fn either_base64_is_read_and_bounds_hold() {
    let ours = key();
    let json = String::from_utf8(signed(&ours).to_json()).unwrap();
    let url_safe = json
        .replace('+', "-")
        .replace("in-toto-json", "in-toto+json");
    let slashes = url_safe
        .replace('/', "_")
        .replace("application_vnd", "application/vnd")
        .replace('=', "");
    assert!(
        Envelope::from_json(slashes.as_bytes())
            .unwrap()
            .verify(&[ours.public().clone()])
            .is_ok()
    );
    let other = json.replace("in-toto+json", "other");
    assert!(matches!(
        Envelope::from_json(other.as_bytes()),
        Err(SignatureError::PayloadType)
    ));
    let long = " ".repeat(Envelope::MAX_BYTES) + &json;
    assert!(matches!(
        Envelope::from_json(long.as_bytes()),
        Err(SignatureError::TooLong)
    ));
    let mut many = signed(&ours);
    many.signatures = vec![many.signatures[0].clone(); Envelope::MAX_SIGNATURES + 1];
    assert!(matches!(
        Envelope::from_json(&many.to_json()),
        Err(SignatureError::TooMany)
    ));
}

#[test]
fn a_raw_signature_of_a_key_vault_is_attached_as_der() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let vault = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        crate::base64(pkcs8.as_ref())
    );
    let key = SigningKey::from_pem(pem.as_bytes(), &random).unwrap();
    assert!(key.public().spki().ends_with(vault.public_key().as_ref()));
    let mut envelope = Envelope::unsigned(statement().to_json());
    let raw = vault.sign(&random, &envelope.pae()).unwrap();
    envelope.attach(raw.as_ref(), key.public()).unwrap();
    assert_eq!(envelope.signatures[0].bytes[0], 0x30);
    assert!(envelope.verify(&[key.public().clone()]).is_ok());
    let mut unchecked = Envelope::unsigned(statement().to_json());
    unchecked
        .attach_unchecked(raw.as_ref(), key.public().id())
        .unwrap();
    assert!(unchecked.verify(&[key.public().clone()]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0u32..8) {
        let ours = key();
        let mut envelope = signed(&ours);
        let length = envelope.payload.len();
        match at.index(length + 64) {
            place if place < length => envelope.payload[place] ^= 1 << bit,
            place => envelope.signatures[0].bytes[place - length] ^= 1 << bit,
        }
        prop_assert!(envelope.verify(&[ours.public().clone()]).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::from_json(&bytes);
        let _ = TrustedKey::all_from_pem(&bytes);
        let _ = ecdsa::to_der(&bytes);
    }
}
