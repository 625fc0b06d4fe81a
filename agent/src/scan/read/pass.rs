//! An open file in, its bytes out, buffer by buffer: as processes see it, or as the disk has it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use driftmark_kernel::Stat;
use driftmark_kernel::direct;
use driftmark_kernel::page_cache::Glance;

use super::{AROUND_BYTES, BUFFER_BYTES, Reader};

/// Where content is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scan) enum From {
    /// What processes see.
    Cache,
    /// The disk beneath it, where that can be had.
    Disk,
}

impl Reader<'_> {
    /// Has a part of a file read ahead of the reading. Whether that was of use: it was not there already.
    pub(in crate::scan) fn ask_for(&mut self, file: &File, stat: &Stat, part: Range<u64>) -> bool {
        if self.from == From::Disk {
            return false;
        }
        self.passing.begin(stat.dev);
        let mut at = part.start;
        while at < part.end.min(stat.size) {
            let buffer = room(&mut self.buffer, part.end - at);
            let step = buffer.len() as u64;
            if self.passing.glance(file, buffer, at) != Glance::Coming {
                return false;
            }
            at += step;
        }
        true
    }

    /// As [`Reader::pass`], of any part of a file, which may be there because it was asked for.
    ///
    /// # Errors
    /// What reading gives.
    pub(in crate::scan) fn pass_part(
        &mut self,
        file: &File,
        stat: &Stat,
        part: Range<u64>,
        was_asked_for: bool,
        hash: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Option<u64>> {
        (self.glanced, self.was_asked_for) = (0, was_asked_for);
        self.pass(file, stat, part, hash)
    }

    /// Tells the bytes of a part of the file that was begun, buffer by buffer, to whoever hashes them. Gives how many there
    /// were, which are fewer where the file ends before; none if the scan is to end.
    pub(super) fn pass(
        &mut self,
        file: &File,
        stat: &Stat,
        part: Range<u64>,
        hash: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Option<u64>> {
        let is_direct = self.is_around(file, stat)?;
        self.passing.begin(stat.dev);
        if std::mem::take(&mut self.was_asked_for) {
            self.passing.has_come(part.start);
        }
        let mut at = part.start;
        while at < part.end {
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let room = room(&mut self.buffer, part.end - at).len();
            let buffer = &mut self.buffer[..];
            // Around the cache whole buffers are read alone.
            let outcome = match (std::mem::take(&mut self.glanced), is_direct) {
                (0, true) => file.read_at(buffer, at).map(|count| count.min(room)),
                (0, false) => self.passing.read_at(file, &mut buffer[..room], at),
                (glanced, _) => Ok(glanced),
            };
            let count = match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            hash(&buffer[..count]);
            (self.rest)(count as u64);
            at += count as u64;
            // A file is not asked for more than it has: whether it still has that length is seen afterwards.
            if count == 0 || (at == stat.size && count < BUFFER_BYTES) {
                break;
            }
        }
        self.passing.end(file);
        Ok(Some(at - part.start))
    }

    /// Has a file read from the disk where it is to be; says whether it is.
    pub(super) fn turn_to_disk(&mut self, file: &File) -> io::Result<bool> {
        if self.from == From::Cache {
            return Ok(false);
        }
        let is_on = direct::turn_on(file, BUFFER_BYTES as u64)?;
        self.cached += u64::from(!is_on);
        Ok(is_on)
    }

    /// Has a long file read around the page cache of which nothing is in it: what is there is what processes will see, and
    /// nothing has to be brought in and to go again. Whether it is read so.
    pub(super) fn turn_around(&mut self, file: &File, stat: &Stat) -> bool {
        if self.from == From::Disk || stat.size < AROUND_BYTES {
            return false;
        }
        self.passing.begin(stat.dev);
        // Where it cannot be told, it is read as any other.
        let can_be = || direct::turn_on(file, BUFFER_BYTES as u64).unwrap_or(false);
        let is_around = self.passing.is_absent(file) && can_be();
        self.cold += u64::from(is_around);
        is_around
    }

    /// Whether a file is read around the page cache.
    pub(super) fn is_around(&self, file: &File, stat: &Stat) -> io::Result<bool> {
        let may_be = self.from == From::Disk || stat.size >= AROUND_BYTES;
        Ok(may_be && direct::is_on(file)?)
    }

    /// Whether what was read around the page cache is not what processes see, for all that is known: somebody has brought
    /// some of the file in meanwhile. The disk is asked for itself.
    pub(in crate::scan) fn was_passed(&mut self, file: &File, stat: &Stat) -> bool {
        self.passing.begin(stat.dev);
        self.from == From::Cache && !self.passing.is_absent(file)
    }
}

/// A file with a byte too many, which is enough to see that it grew: it is not followed to wherever it ends.
pub(super) fn whole(stat: &Stat) -> Range<u64> {
    0..stat.size.saturating_add(1)
}

/// As much of a buffer as is left to read.
pub(super) fn room(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let room = usize::try_from(left).unwrap_or(usize::MAX);
    let room = room.min(buffer.len());
    &mut buffer[..room]
}
