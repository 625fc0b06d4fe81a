//! A tar, checksums made right: every content is as long as its header says, or the archive is refused.
#![no_main]
#![allow(dead_code, reason = "the agent uses all of what it reads")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/bake/source/archive/pax.rs"]
mod pax;
#[path = "../../../agent/src/bake/source/archive/reader.rs"]
mod reader;

/// Sparse files may be of any length.
const ENOUGH_BYTES: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut tar = data.to_vec();
    for block in tar
        .chunks_exact_mut(512)
        .filter(|block| block[257..].starts_with(b"ustar"))
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    let mut reader = reader::Reader::new(&tar[..]);
    while let Ok(Some(header)) = reader.next() {
        if header.size > ENOUGH_BYTES {
            continue;
        }
        let mut bytes = 0;
        let read = reader.content::<reader::TarError>(&mut |chunk| {
            bytes += chunk.len() as u64;
            Ok(())
        });
        match read {
            Ok(()) => assert_eq!(bytes, header.size),
            Err(_) => return,
        }
    }
});
