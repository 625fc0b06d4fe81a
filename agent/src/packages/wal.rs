//! Receives the write-ahead log of an SQLite database; hands on where it has the newest copy of a page.
//!
//! A transaction of rpm is in the log alone until its end, and stays there if it was cut off or somebody was reading.
//! Taken for true are the frames that SQLite would take: with the log's own salts and a checksum that goes on from the
//! frame before, up to the last one that commits (<https://www.sqlite.org/fileformat2.html#walformat>).

use std::collections::HashMap;
use std::io;

use super::Budget;
use super::sqlite::{ReadAt, number};

/// A log, as far as it was committed.
pub(super) struct Log<'f> {
    file: &'f ReadAt<'f>,
    /// Which life of the log this is: it begins again from its start, with others.
    salts: [u8; 8],
    /// Page → where the frame with its newest copy begins.
    pages: HashMap<u32, u64>,
}

/// Why a page that was in the log is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("its log began again while it was read")]
struct BegunAgain;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// A gibibyte of pages of 4 KiB; what is remembered of that many is a few megabytes.
const MAX_FRAMES: usize = 1 << 18;
/// The last bit says that the numbers which checksums are made of are big-endian.
const MAGIC: u32 = 0x377f_0682;

impl<'f> Log<'f> {
    /// Reads the log of a database with pages of this size. One that is none, or another's, has no page.
    ///
    /// # Errors
    /// What reading gives, and a budget that is spent.
    pub(super) fn read(
        file: &'f ReadAt<'f>,
        page_bytes: usize,
        budget: &mut Budget,
    ) -> io::Result<Self> {
        let mut log = Log {
            file,
            salts: [0; 8],
            pages: HashMap::new(),
        };
        let mut header = [0; HEADER_BYTES];
        if !filled(file(0, &mut header))? {
            return Ok(log);
        }
        let magic = number(&header, 0).unwrap_or_default();
        let mut sum = Checksum {
            is_big_endian: magic & 1 == 1,
            sums: (0, 0),
        };
        sum.add(&header[..24]);
        let is_log = magic & !1 == MAGIC && sum.is(&header[24..]);
        if !is_log || number(&header, 8) != u32::try_from(page_bytes).ok() {
            return Ok(log);
        }
        log.salts.copy_from_slice(&header[16..24]);
        let mut at = HEADER_BYTES as u64;
        let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
        // What the transaction that is being read has written.
        let mut written = Vec::new();
        while filled(file(at, &mut frame))? {
            budget.take(frame.len())?;
            let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
            sum.add(&head[..8]);
            sum.add(page);
            if head[8..16] != log.salts || !sum.is(&head[16..]) {
                break;
            }
            let page = number(head, 0).unwrap_or_default();
            if page == 0 {
                break;
            }
            if written.len() + log.pages.len() >= MAX_FRAMES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            written.push((page, at));
            if number(head, 4) != Some(0) {
                log.pages.extend(written.drain(..));
            }
            at += frame.len() as u64;
        }
        Ok(log)
    }

    /// Fills `page` with the newest copy of a page, if the log has one.
    pub(super) fn page(&self, number: u32, page: &mut [u8]) -> Option<io::Result<()>> {
        let at = *self.pages.get(&number)?;
        Some(self.copy(at, number, page))
    }

    /// The page of a frame, if that is still the one that was seen: whoever uses the database may have begun again.
    fn copy(&self, at: u64, page: u32, bytes: &mut [u8]) -> io::Result<()> {
        let mut frame = vec![0; FRAME_HEADER_BYTES + bytes.len()];
        (self.file)(at, &mut frame)?;
        let (head, copy) = frame.split_at(FRAME_HEADER_BYTES);
        if number(head, 0) != Some(page) || head[8..16] != self.salts {
            return Err(io::Error::new(io::ErrorKind::InvalidData, BegunAgain));
        }
        bytes.copy_from_slice(copy);
        Ok(())
    }
}

/// Whether there was that much; a log ends anywhere.
fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

struct Checksum {
    is_big_endian: bool,
    sums: (u32, u32),
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8; 4]| match self.is_big_endian {
            true => u32::from_be_bytes(*bytes),
            false => u32::from_le_bytes(*bytes),
        };
        let (mut one, mut two) = self.sums;
        for pair in bytes.as_chunks::<4>().0.as_chunks::<2>().0 {
            one = one.wrapping_add(word(&pair[0])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[1])).wrapping_add(one);
        }
        self.sums = (one, two);
    }

    fn is(&self, stored: &[u8]) -> bool {
        number(stored, 0).zip(number(stored, 4)) == Some(self.sums)
    }
}
