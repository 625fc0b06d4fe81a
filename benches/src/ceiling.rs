//! The ceilings: the same files read, hashed or looked at by as many threads, and nothing else.
//!
//! Each file is opened by its name in its open directory and read with `pread` into a buffer of 256 KiB until one comes
//! back short: a small file is three system calls. Reading into a buffer and not through a mapping, as the agent must
//! (a mapped file that is cut short kills its reader).

use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use sha2::Digest as _;

use crate::list::List;
use crate::turns::Run;
use crate::walk::walk;

/// Large enough that a system call costs little, small enough for the cache of a core.
const BUFFER_BYTES: usize = 256 * 1024;
/// Longer files come first, one by one, so that no thread is left alone with one at the end.
const LONG_BYTES: u64 = 1024 * 1024;

/// What is made of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    /// What a host checks.
    Blake3,
    /// That and SHA-256, as a bake needs them.
    Both,
}

/// Reads and hashes the files of a list that was made before.
///
/// # Errors
/// A file that cannot be read.
pub fn read_and_hash(list: &List, threads: usize, digests: Digests) -> io::Result<Run> {
    let units = units(list);
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let bytes = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; BUFFER_BYTES];
                    let mut bytes = 0;
                    while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        bytes += hash_unit(list, unit, &mut buffer, digests)?;
                    }
                    Ok::<u64, io::Error>(bytes)
                })
            })
            .collect();
        let readers = readers.into_iter();
        let bytes = readers.map(|reader| reader.join().expect("a reader does not panic"));
        bytes.sum::<io::Result<u64>>()
    })?;
    Ok(Run {
        wall: started.elapsed(),
        cpu: None,
        entries: list.files.len() as u64,
        bytes,
        peak_kib: None,
    })
}

/// Lists, reads and hashes in one go.
///
/// # Errors
/// What cannot be listed or read.
pub fn walk_and_hash(root: &Path, threads: usize) -> io::Result<Run> {
    timed(root, threads, &|buffer, directory, name, kind| match kind {
        FileType::RegularFile => hash(directory, name, buffer, Digests::Blake3),
        _ => Ok(0),
    })
}

/// Lists, and asks `statx` once for every name.
///
/// # Errors
/// What cannot be listed or looked at.
pub fn walk_and_stat(root: &Path, threads: usize) -> io::Result<Run> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    timed(root, threads, &|_, directory, name, _| {
        std::hint::black_box(rustix::fs::statx(directory, name, flags, wanted)?);
        Ok(0)
    })
}

fn timed(root: &Path, threads: usize, visit: &crate::walk::Visit<'_>) -> io::Result<Run> {
    let started = Instant::now();
    let walked = walk(root, threads, BUFFER_BYTES, visit)?;
    Ok(Run {
        wall: started.elapsed(),
        cpu: None,
        entries: walked.entries,
        bytes: walked.bytes,
        peak_kib: None,
    })
}

/// Files of one directory that are taken together: long ones alone and first, the longest of all before the others.
fn units(list: &List) -> Vec<Range<usize>> {
    let mut long: Vec<usize> = (0..list.files.len())
        .filter(|&nth| list.files[nth].size > LONG_BYTES)
        .collect();
    long.sort_by_key(|&nth| std::cmp::Reverse(list.files[nth].size));
    let mut units: Vec<Range<usize>> = long.into_iter().map(|nth| nth..nth + 1).collect();
    let mut start = 0;
    for nth in 0..=list.files.len() {
        let is_long = |file: &crate::list::File| file.size > LONG_BYTES;
        let ends = list
            .files
            .get(nth)
            .is_none_or(|file| is_long(file) || file.directory != list.files[start].directory);
        if ends {
            if start < nth {
                units.push(start..nth);
            }
            start = nth + usize::from(list.files.get(nth).is_some_and(is_long));
        }
    }
    units
}

fn hash_unit(
    list: &List,
    unit: &Range<usize>,
    buffer: &mut [u8],
    digests: Digests,
) -> io::Result<u64> {
    let files = &list.files[unit.clone()];
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = &list.directories[files[0].directory];
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let mut bytes = 0;
    for file in files {
        bytes += hash(directory.as_fd(), &file.name, buffer, digests)?;
    }
    Ok(bytes)
}

fn hash(
    directory: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut [u8],
    digests: Digests,
) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let first = rustix::io::pread(&file, &mut *buffer, 0)?;
    let whole = first < buffer.len();
    if whole && digests == Digests::Blake3 {
        std::hint::black_box(blake3::hash(&buffer[..first]));
        return Ok(first as u64);
    }
    let mut blake3 = blake3::Hasher::new();
    let mut sha256 = (digests == Digests::Both).then(sha2::Sha256::new);
    let (mut at, mut count) = (0, first);
    loop {
        blake3.update(&buffer[..count]);
        if let Some(sha256) = &mut sha256 {
            sha256.update(&buffer[..count]);
        }
        at += count as u64;
        if count < buffer.len() {
            break;
        }
        count = rustix::io::pread(&file, &mut *buffer, at)?;
    }
    std::hint::black_box((blake3.finalize(), sha256.map(sha2::Digest::finalize)));
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ceiling_reads_every_byte_of_every_file() {
        let place = tempfile::tempdir().expect("a directory");
        let sizes = [
            0,
            1,
            5_000,
            BUFFER_BYTES,
            BUFFER_BYTES + 1,
            3 * LONG_BYTES as usize,
        ];
        for (nth, size) in sizes.iter().cycle().take(40).enumerate() {
            let directory = place.path().join(format!("{}/below", nth % 3));
            std::fs::create_dir_all(&directory).expect("make a directory");
            std::fs::write(directory.join(nth.to_string()), vec![7; *size]).expect("write");
        }
        let list = List::of(place.path()).expect("list");
        let taken: usize = units(&list).iter().map(ExactSizeIterator::len).sum();
        assert_eq!((list.files.len(), taken), (40, 40));
        for digests in [Digests::Blake3, Digests::Both] {
            let run = read_and_hash(&list, 2, digests).expect("read");
            assert_eq!((run.entries, run.bytes), (40, list.bytes));
        }
        let walked = walk_and_hash(place.path(), 2).expect("walk");
        assert_eq!((walked.entries, walked.bytes), (40 + 7, list.bytes));
        let looked_at = walk_and_stat(place.path(), 2).expect("walk");
        assert_eq!((looked_at.entries, looked_at.bytes), (40 + 7, 0));
    }
}
