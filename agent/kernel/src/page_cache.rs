//! An open file in, its bytes out, and the page cache as it was, as far as the file system lets it: what others use
//! stays, what only the reading brought in goes.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::{Advice, FsWord};
use rustix::io::{Errno, ReadWriteFlags};

use crate::sys;

/// `RWF_DONTCACHE` of linux/fs.h (Linux 6.14, ext4 and xfs): pages that this read brings in go once they were copied.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// `EXT4_SUPER_MAGIC` and `XFS_SUPER_MAGIC` of linux/magic.h: a file's pages are its own, and what is read around them is
/// what they would hold.
const OWN_PAGES: [FsWord; 2] = [0xef53, 0x5846_5342];

/// Reads files in passing, one after the other.
#[derive(Debug, Default)]
pub struct Passing {
    way: Way,
    device: Option<(u32, u32)>,
    /// On this device a read that does not wait is not to be had.
    waits: bool,
    /// Whether the files of this device have their pages to themselves.
    has_own_pages: Option<bool>,
    /// What was read of the file and was not there before.
    brought: Option<Range<u64>>,
}

/// What a glance at a file gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance {
    /// So many bytes, which were in the page cache.
    Read(usize),
    /// They were not there, and now the kernel reads them while others are looked at: see [`Passing::has_come`].
    Coming,
    /// Neither can be told.
    Unknown,
}

/// How pages are not left behind. Each is for where the one before is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Way {
    /// The kernel sees to it.
    #[default]
    Uncached,
    /// Reading without waiting tells what is not there; it is dropped afterwards. From the first such byte on, the rest
    /// of the file counts as brought in: the kernel reads ahead.
    Dropped,
    /// What was there cannot be told.
    Left,
}

impl Passing {
    /// Before the first byte of a file on this device.
    pub fn begin(&mut self, device: (u32, u32)) {
        if self.device.replace(device) != Some(device) {
            self.way = Way::default();
            self.waits = false;
            self.has_own_pages = None;
        }
        self.brought = None;
    }

    /// Whether nothing of a file is in the page cache: what processes will see is then what its disk has. False where that
    /// cannot be told (Linux before 6.5), or where a file's pages may be another's, as those of an overlay are. After
    /// [`Passing::begin`].
    pub fn is_absent(&mut self, file: &impl AsFd) -> bool {
        let file = file.as_fd();
        let of_type = || rustix::fs::fstatfs(file).is_ok_and(|of| OWN_PAGES.contains(&of.f_type));
        *self.has_own_pages.get_or_insert_with(of_type) && sys::cached_pages(file) == Ok(0)
    }

    /// Reads at an offset as far as that needs no waiting. Where it would, the kernel begins to read what is asked for,
    /// and nobody waits: a disk is fast only for who asks for many things at a time. After [`Passing::begin`].
    pub fn glance(&mut self, file: &impl AsFd, buffer: &mut [u8], offset: u64) -> Glance {
        if self.waits {
            return Glance::Unknown;
        }
        let flags = match self.way {
            // What it begins to read goes as what is read so.
            Way::Uncached => DONTCACHE | ReadWriteFlags::NOWAIT,
            Way::Dropped => ReadWriteFlags::NOWAIT,
            Way::Left => return Glance::Unknown,
        };
        match read(file, buffer, offset, flags) {
            // Linux 5.9 and 5.10 say 0 where they would have to wait.
            Err(Errno::AGAIN) | Ok(0) => Glance::Coming,
            Ok(count) => Glance::Read(count),
            Err(error) if is_unknown(error) && self.way == Way::Uncached => {
                self.way = Way::Dropped;
                self.glance(file, buffer, offset)
            }
            Err(error) => {
                self.waits = is_unknown(error);
                Glance::Unknown
            }
        }
    }

    /// From this offset on the file that was begun came because it was glanced at: what does not go by itself goes at
    /// the end.
    pub fn has_come(&mut self, offset: u64) {
        if self.way == Way::Dropped {
            self.brought = Some(offset..offset);
        }
    }

    /// Reads at an offset, as `pread` does: fewer bytes than there is room for are not the end of the file, none are.
    ///
    /// # Errors
    /// Those of `preadv2`.
    pub fn read_at(
        &mut self,
        file: &impl AsFd,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        if self.way == Way::Uncached {
            match read(file, buffer, offset, DONTCACHE) {
                Err(error) if is_unknown(error) => self.way = Way::Dropped,
                outcome => return Ok(outcome?),
            }
        }
        if self.way == Way::Dropped && self.brought.is_none() {
            match read(file, buffer, offset, ReadWriteFlags::NOWAIT) {
                Err(error) if is_unknown(error) => self.way = Way::Left,
                // Linux 5.9 and 5.10 say 0 where they would have to wait.
                Err(Errno::AGAIN) | Ok(0) => self.brought = Some(offset..offset),
                outcome => return Ok(outcome?),
            }
        }
        let count = rustix::io::pread(file, &mut *buffer, offset)?;
        if let Some(brought) = &mut self.brought {
            brought.end = brought.end.max(offset + count as u64);
        }
        Ok(count)
    }

    /// After the last byte: asks that what is left to drop be dropped. What the kernel answers changes nothing about what
    /// was read.
    pub fn end(&mut self, file: &impl AsFd) {
        if let Some(brought) = self.brought.take()
            && let Some(length) = std::num::NonZero::new(brought.end - brought.start)
        {
            let _ = rustix::fs::fadvise(file, brought.start, Some(length), Advice::DontNeed);
        }
    }
}

/// Has the kernel read of an open file what is asked for and no more. Reading ahead it would make larger and larger folios,
/// and one that several reads share is dropped after the first and read from the disk again for the next.
pub fn as_asked(file: &impl AsFd) {
    // A hint: without it a file is read all the same.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
}

/// How many pages of an open file, or of a block device, are in the page cache. Asking brings none in.
///
/// # Errors
/// Those of `cachestat`: the kernel is older than Linux 6.5.
pub fn cached_pages(file: &impl AsFd) -> io::Result<u64> {
    Ok(sys::cached_pages(file.as_fd())?)
}

/// Whether an error says that the kernel, the file system or a filter of system calls does not know what was asked.
fn is_unknown(error: Errno) -> bool {
    [Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS, Errno::PERM].contains(&error)
}

fn read(
    file: &impl AsFd,
    buffer: &mut [u8],
    offset: u64,
    flags: ReadWriteFlags,
) -> rustix::io::Result<usize> {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::lab;

    const LENGTH: u64 = 1 << 20;

    fn written(path: &Path) -> File {
        let mut file = File::create_new(path).expect("create file");
        file.write_all(&vec![7; LENGTH as usize])
            .expect("fill file");
        file.sync_all().expect("pages are dropped only when clean");
        File::open(path).expect("open file")
    }

    /// How many of its pages are in the cache.
    fn cached(file: &File) -> u64 {
        cached_pages(file).expect("count pages")
    }

    fn drop_all(file: &File) {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).expect("drop");
    }

    /// Nothing of the file is cached any more; gives how many pages were, or none where either is not to be had.
    fn all_dropped(file: &File) -> Option<u64> {
        let all = cached_pages(file).unwrap_or_default();
        drop_all(file);
        let answer = cached_pages(file);
        if !matches!(answer, Ok(0)) {
            println!("skipped: pages cannot be dropped or not be counted: {answer:?}");
            return None;
        }
        Some(all)
    }

    /// As others do: all of it is cached then.
    fn read_whole(file: &File) {
        let mut whole = vec![0; LENGTH as usize];
        rustix::io::pread(file, &mut whole, 0).expect("read");
    }

    /// In the midst of files on one device, on which pages are not left behind in this way.
    fn going(way: Way) -> Passing {
        Passing {
            way,
            device: Some((0, 0)),
            ..Passing::default()
        }
    }

    fn pass(passing: &mut Passing, file: &File) {
        passing.begin((0, 0));
        let mut buffer = vec![0; 1 << 17];
        let mut at = 0;
        loop {
            match passing.read_at(file, &mut buffer, at).expect("read") {
                0 => break,
                count => {
                    assert!(buffer[..count].iter().all(|byte| *byte == 7));
                    at += count as u64;
                }
            }
        }
        assert_eq!(at, LENGTH);
        passing.end(file);
    }

    #[test]
    fn what_was_not_cached_is_not_cached_afterwards_and_what_was_still_is() {
        let place = lab::place();
        let file = written(&place.path().join("file"));
        let Some(all) = all_dropped(&file) else {
            return;
        };
        for way in [Way::Uncached, Way::Dropped] {
            let passing = &mut going(way);
            drop_all(&file);
            pass(passing, &file);
            assert_eq!(cached(&file), 0, "{way:?}, nothing was there");
            read_whole(&file);
            pass(passing, &file);
            assert_eq!(cached(&file), all, "{way:?}, all was there");
            if passing.way != way {
                println!("skipped: no {way:?} here");
            }
        }
    }

    #[test]
    fn a_file_is_absent_until_somebody_reads_any_of_it() {
        let place = lab::place();
        let file = written(&place.path().join("file"));
        drop_all(&file);
        let passing = &mut Passing::default();
        passing.begin((1, 1));
        let kind = rustix::fs::fstatfs(&file).expect("ask").f_type;
        if !OWN_PAGES.contains(&kind) || sys::cached_pages(file.as_fd()) != Ok(0) {
            assert!(!passing.is_absent(&file), "it cannot be told");
            return println!("skipped: pages cannot be dropped, or be another's");
        }
        assert!(passing.is_absent(&file));
        rustix::io::pread(&file, &mut [0; 1], LENGTH / 2).expect("read");
        assert!(!passing.is_absent(&file));
        let other = File::open("/proc/self/status").expect("open");
        passing.begin((2, 2));
        assert!(!passing.is_absent(&other), "it has no pages");
    }

    #[test]
    fn where_nothing_can_be_told_nothing_is_dropped() {
        let place = lab::place();
        let file = written(&place.path().join("file"));
        let passing = &mut going(Way::Left);
        if cached_pages(&file).is_err() {
            return println!("skipped: pages cannot be counted before Linux 6.5");
        }
        let all = cached(&file);
        drop_all(&file);
        pass(passing, &file);
        assert_eq!(cached(&file), all);
    }

    #[test]
    fn what_comes_because_it_was_glanced_at_goes_again_and_what_was_there_is_read_at_once() {
        let place = lab::place();
        let file = written(&place.path().join("file"));
        let Some(all) = all_dropped(&file) else {
            return;
        };
        for way in [Way::Uncached, Way::Dropped] {
            let passing = &mut going(way);
            drop_all(&file);
            let mut buffer = vec![0; 1 << 17];
            passing.begin((0, 0));
            match passing.glance(&file, &mut buffer, 0) {
                Glance::Coming => {}
                Glance::Unknown if passing.waits => {
                    return println!("skipped: no reading without waiting here");
                }
                other => panic!("{way:?}: nothing is there, and {other:?}"),
            }
            passing.begin((0, 0));
            passing.has_come(0);
            let mut at = 0;
            while at < LENGTH {
                let count = passing.read_at(&file, &mut buffer, at).expect("read");
                assert!(count > 0 && buffer[..count].iter().all(|byte| *byte == 7));
                at += count as u64;
            }
            passing.end(&file);
            assert_eq!(cached(&file), 0, "{way:?}: it was brought in, and went");

            read_whole(&file);
            passing.begin((0, 0));
            buffer.fill(0);
            assert_eq!(passing.glance(&file, &mut buffer, 0), Glance::Read(1 << 17));
            assert!(buffer.iter().all(|byte| *byte == 7));
            passing.end(&file);
            assert_eq!(cached(&file), all, "{way:?}: others may use it");
        }
    }
}
