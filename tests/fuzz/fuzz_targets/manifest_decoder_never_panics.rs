//! A manifest, whole or by a hostile signer: read, bounded, and what passes as whole has one spelling.
#![no_main]

#[path = "../../../drift/tests/trees/mod.rs"]
mod trees;

use libfuzzer_sys::fuzz_target;
use trees::forge::{Parts, exercise};

fuzz_target!(|data: &[u8]| {
    exercise(data);
    let parts = if data.starts_with(b"drftmark") {
        Parts::of(data)
    } else {
        Parts::hostile(data)
    };
    if let Some(parts) = parts {
        exercise(&parts.seal());
    }
});
