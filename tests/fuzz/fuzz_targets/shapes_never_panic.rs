//! Content that is checked to be what it claims: the first byte says what it claims to be.
#![no_main]

use drift::shape::{host_key, ld_so_cache, machine_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&claim, content)) = data.split_first() else {
        return;
    };
    match claim {
        b'c' => {
            let _ = ld_so_cache(content, |path| path.as_bytes().starts_with(b"usr/lib/"));
        }
        b'k' => {
            if host_key(content, 0o666).is_ok() {
                panic!("a key that all may write");
            }
            let _ = host_key(content, 0o600);
        }
        _ => {
            if machine_id(content).is_ok() {
                assert!(content.len() <= 33);
            }
        }
    }
});
