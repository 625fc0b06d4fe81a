//! A disk image's partition table, checksums made right as a hostile one has them: no partition reaches beyond the disk.
#![no_main]

use std::io;

use driftmark_kernel::partitions;
use driftmark_kernel::superblock::Superblock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Superblock::of(data);
    let mut disk = data.to_vec();
    for sector_bytes in [512, 4096] {
        make_right(&mut disk, sector_bytes);
    }
    let length = disk.len() as u64;
    let read = |at: u64, buffer: &mut [u8]| {
        let there = usize::try_from(at)
            .ok()
            .and_then(|at| disk.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    if let Ok(Some(found)) = partitions::of(length, &read) {
        assert!(
            found.iter().all(|part| part.start > 0
                && part.length > 0
                && part.start + part.length <= length)
        );
        assert!(
            found.is_sorted_by(|one, next| one.number < next.number),
            "no number twice"
        );
    }
});

fn make_right(disk: &mut [u8], at: usize) {
    let Some(header) = disk
        .get(at..at + 92)
        .filter(|header| header.starts_with(b"EFI PART"))
    else {
        return;
    };
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let (header_bytes, first, count, each) = (number(12), number(72), number(80), number(84));
    let start = first.saturating_mul(at);
    let entries = start..start.saturating_add(count.saturating_mul(each));
    if let Some(sum) = disk.get(entries).map(crc32) {
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    disk[at + 16..at + 20].fill(0);
    if let Some(sum) = disk.get(at..at.saturating_add(header_bytes)).map(crc32) {
        disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
