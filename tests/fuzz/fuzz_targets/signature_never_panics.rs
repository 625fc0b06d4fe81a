//! Envelopes, statements and keys: read or refused; what is read is written back the same.
#![no_main]

use std::sync::LazyLock;

use drift::key::{SigningKey, TrustedKey};
use drift::signature::Envelope;
use drift::statement::Statement;
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;

static TRUSTED: LazyLock<TrustedKey> = LazyLock::new(|| {
    let pem = include_bytes!("../../../drift/tests/golden/TEST-KEY-NEVER-TRUST.key");
    SigningKey::from_pem(pem, &SystemRandom::new())
        .expect("the golden key")
        .public()
        .clone()
});

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::from_json(data) {
        assert_eq!(
            Envelope::from_json(&envelope.to_json()).expect("written here"),
            envelope
        );
        let _ = envelope.verify(std::slice::from_ref(&TRUSTED));
        let mut other = envelope;
        let _ = other.attach(data, &TRUSTED);
    }
    if let Ok(statement) = Statement::from_json(data) {
        assert_eq!(
            Statement::from_json(&statement.to_json()).expect("written here"),
            statement
        );
    }
    let _ = TrustedKey::all_from_pem(data);
    let _ = TrustedKey::from_spki(data);
    let _ = SigningKey::from_pem(data, &SystemRandom::new());
});
