//! An SQLite database with a table `Packages`, and its log with checksums made right: rows are no more than was read.
#![no_main]
#![allow(dead_code, reason = "the agent uses all of what it reads")]

use std::io;

use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/packages/budget.rs"]
mod budget;
#[path = "../../../agent/src/packages/rpm/header.rs"]
mod header;
#[path = "../../../agent/src/packages/sqlite.rs"]
mod sqlite;
#[path = "../../../agent/src/packages/wal.rs"]
mod wal;

use budget::Budget;

/// Enough to read every page of an input a few times.
const ENOUGH_BYTES: u64 = 1 << 20;

// The first two bytes say how long the database is; what comes after it is the log, if there is anything.
fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    if let Some(header) = header::Header::read(rest) {
        look_at(&header);
    }
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (file, log) = rest.split_at(length);
    let mut log = log.to_vec();
    make_right(&mut log);
    let file = |at: u64, buffer: &mut [u8]| read(file, at, buffer);
    let has_log = !log.is_empty();
    let of_log = |at: u64, buffer: &mut [u8]| read(&log, at, buffer);
    let of_log: &sqlite::ReadAt<'_> = &of_log;
    let mut budget = Budget::until(None);
    budget.bytes = ENOUGH_BYTES;
    let Ok(database) = sqlite::Database::open(&file, has_log.then_some(of_log), &mut budget) else {
        return;
    };
    let Ok(Some(mut rows)) = database.table(b"Packages", &mut budget) else {
        return;
    };
    let mut bytes = 0;
    while let Ok(Some(row)) = rows.next(&mut budget) {
        bytes += row.len() as u64;
        assert!(bytes <= ENOUGH_BYTES - budget.bytes);
        if let Some(header) = sqlite::column(&row, 1).and_then(header::Header::read) {
            look_at(&header);
        }
    }
});

fn look_at(header: &header::Header<'_>) {
    let _ = (header.name(), header.version(), header.algorithm());
    for file in header.files() {
        assert!(!file.name.contains(&0) && !file.directory.contains(&0));
    }
}

fn read(bytes: &[u8], at: u64, buffer: &mut [u8]) -> io::Result<()> {
    drift::manifest::Source::read_at(&bytes, at, buffer)
}

/// Salts and checksums as a log's own writer makes them.
fn make_right(log: &mut [u8]) {
    if log.len() < 32 {
        return;
    }
    let is_big_endian = log[3] & 1 == 1;
    let magic = 0x377f_0682 | u32::from(is_big_endian);
    log[..4].copy_from_slice(&magic.to_be_bytes());
    let page_bytes = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    let mut sums = (0, 0);
    add(&mut sums, is_big_endian, &log[..24]);
    put(&mut log[24..32], sums);
    let salts: [u8; 8] = log[16..24].try_into().unwrap();
    if page_bytes < 512 || page_bytes > log.len() {
        return;
    }
    for frame in log[32..].chunks_exact_mut(24 + page_bytes) {
        frame[8..16].copy_from_slice(&salts);
        add(&mut sums, is_big_endian, &frame[..8]);
        add(&mut sums, is_big_endian, &frame[24..]);
        put(&mut frame[16..24], sums);
    }
}

fn add(sums: &mut (u32, u32), is_big_endian: bool, bytes: &[u8]) {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap();
        match is_big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        }
    };
    for pair in bytes.chunks_exact(8) {
        sums.0 = sums.0.wrapping_add(word(&pair[..4])).wrapping_add(sums.1);
        sums.1 = sums.1.wrapping_add(word(&pair[4..])).wrapping_add(sums.0);
    }
}

fn put(place: &mut [u8], sums: (u32, u32)) {
    place[..4].copy_from_slice(&sums.0.to_be_bytes());
    place[4..].copy_from_slice(&sums.1.to_be_bytes());
}
