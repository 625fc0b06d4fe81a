//! The ceiling: the same files read and hashed with BLAKE3 by as many threads, and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 256 * 1024;

/// Every regular file below `root`; symbolic links are not followed.
///
/// # Errors
/// A directory that cannot be listed.
pub fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Reads and hashes them all; gives how many bytes that was and how long it took.
///
/// # Errors
/// A file that cannot be read.
pub fn read_and_hash(files: &[PathBuf], threads: usize) -> io::Result<(u64, Duration)> {
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let bytes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; BUFFER_BYTES];
                    let mut bytes = 0;
                    while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        bytes += hash(path, &mut buffer)?;
                    }
                    Ok::<u64, io::Error>(bytes)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .sum::<io::Result<u64>>()
    })?;
    Ok((bytes, started.elapsed()))
}

fn hash(path: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    loop {
        match file.read_at(buffer, at)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    std::hint::black_box(hasher.finalize());
    Ok(at)
}
