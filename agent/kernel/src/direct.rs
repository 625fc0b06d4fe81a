//! An open file in; whether reading it goes around the page cache from now on (`O_DIRECT`) out, and a buffer that fits.
//!
//! Only such a read sees what was written to the disk beneath the file system: every other one is answered from the
//! cache. Where a file system would take the flag and read through the cache all the same (ext4 does so for files with
//! verity, encryption or inline data), `STATX_DIOALIGN` (Linux 6.1) says so; where nothing is said, the flag is tried.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::Errno;

/// What memory is aligned to: no device asks for more than a page of the smallest kind.
const ALIGNED_TO: usize = 4096;

/// Lets reads of this file go around the page cache; offsets must be multiples of `step`, buffers be a [`Buffer`].
///
/// False where that is not to be had: the file is read through the cache as before.
///
/// # Errors
/// Those of `statx` and `fcntl`, but for what says that the file system has no such reads.
pub fn turn_on(file: &impl AsFd, step: u64) -> io::Result<bool> {
    let asked = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let is_told = StatxFlags::from_bits_retain(asked.stx_mask).contains(StatxFlags::DIOALIGN);
    if is_told {
        let (memory, offset) = (asked.stx_dio_mem_align, asked.stx_dio_offset_align);
        let fits =
            offset > 0 && step.is_multiple_of(u64::from(offset)) && memory as usize <= ALIGNED_TO;
        if !fits {
            return Ok(false);
        }
    }
    set(file, true)
}

/// Whether it does.
///
/// # Errors
/// Those of `fcntl`.
pub fn is_on(file: &impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(file)?.contains(OFlags::DIRECT))
}

/// Reads through the page cache again.
///
/// # Errors
/// Those of `fcntl`.
pub fn turn_off(file: &impl AsFd) -> io::Result<()> {
    set(file, false).map(drop)
}

fn set(file: &impl AsFd, on: bool) -> io::Result<bool> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    match rustix::fs::fcntl_setfl(file, flags) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Bytes whose first one lies where every device can write to.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// So many zeros.
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNED_TO];
        // The bytes are never moved: only what is in them changes.
        let start = bytes.as_ptr().align_offset(ALIGNED_TO).min(ALIGNED_TO);
        Buffer {
            bytes,
            start,
            length,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::lab;

    const STEP: usize = 1 << 18;

    #[test]
    fn a_file_of_any_length_reads_the_same_around_the_cache_as_through_it() {
        let place = lab::place();
        let mut buffer = Buffer::new(STEP);
        assert_eq!(buffer.as_ptr().align_offset(ALIGNED_TO), 0);
        for length in [
            0,
            1,
            511,
            4096,
            4097,
            STEP - 1,
            STEP,
            STEP + 1,
            2 * STEP + 5,
        ] {
            let path = place.path().join(length.to_string());
            let bytes: Vec<u8> = (0..length).map(|nth| (nth % 251) as u8).collect();
            std::fs::write(&path, &bytes).expect("write file");
            let file = File::open(&path).expect("open file");
            if !turn_on(&file, STEP as u64).expect("ask") {
                return println!("skipped: no direct reads here");
            }
            assert!(is_on(&file).expect("ask"));
            let mut read = Vec::new();
            loop {
                let count = file.read_at(&mut buffer, read.len() as u64).expect("read");
                read.extend_from_slice(&buffer[..count]);
                if count < STEP {
                    break;
                }
            }
            assert!(read == bytes, "{length} bytes");
            turn_off(&file).expect("turn off");
            assert!(!is_on(&file).expect("ask"));
            let mut odd = [0; 3];
            if length > 4 {
                file.read_exact_at(&mut odd, 1).expect("read at any offset");
                assert_eq!(odd, bytes[1..4]);
            }
        }
    }

    #[test]
    fn what_has_no_direct_reads_says_so() {
        let file = File::open("/proc/self/status").expect("open file");
        assert!(!turn_on(&file, STEP as u64).expect("ask"));
        assert!(!is_on(&file).expect("ask"));
    }
}
