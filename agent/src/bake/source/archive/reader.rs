//! The bytes of a tar in, its members out, one by one: ustar, GNU and pax, as they come by (POSIX pax(1), tar(5)).
//!
//! Own code, because what the crates for it hold in memory is as long as the archive says, and they take the sparse files
//! of pax for what they are stored as. Hostile bytes: every length has a limit, and what is not understood is an error.

use std::io::{self, Read};

use super::pax::{Pax, Record, record};

/// One member, with what its extensions say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) flag: u8,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: (i64, u32),
    /// What a link points to.
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it has an ACL as text, which cannot be held: it names users by their names.
    pub(super) has_text_acl: bool,
    /// Length of a regular file.
    pub(super) size: u64,
}

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It cannot be read.
    #[error("read it")]
    Read(#[from] io::Error),
    /// It breaks the rules of its format.
    #[error("at byte {at}: {problem}")]
    Malformed {
        /// Where.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
}

/// A tar that is being read.
pub(super) struct Reader<R> {
    input: R,
    at: u64,
    globals: Vec<Record>,
    /// What is stored of the present member and was not read yet, its padding included.
    left: u64,
    /// Where the stored bytes of the present member belong, if it is sparse.
    sparse: Option<Vec<(u64, u64)>>,
    size: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Reader {
            input,
            at: 0,
            globals: Vec::new(),
            left: 0,
            sparse: None,
            size: 0,
        }
    }

    /// The next member; none at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Header>, TarError> {
        self.skip_rest()?;
        let mut own: Vec<Record> = Vec::new();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            let block = self.block()?;
            if block == [0; BLOCK] {
                return self.end();
            }
            self.verify(&block)?;
            let stored = self.number(&block[124..136])?;
            match block[156] {
                b'L' => long_path = Some(self.long_name(stored)?),
                b'K' => long_link = Some(self.long_name(stored)?),
                b'x' | b'X' => own = self.records(stored)?,
                b'g' => {
                    for (key, value) in self.records(stored)? {
                        self.globals.retain(|(known, _)| *known != key);
                        self.globals.push((key, value));
                    }
                    let bytes = |(key, value): &Record| key.len() + value.len();
                    let bytes: usize = self.globals.iter().map(bytes).sum();
                    if self.globals.len() > MAX_GLOBALS || bytes > MAX_NAME as usize {
                        return Err(self.malformed("too many global records"));
                    }
                }
                b'V' => self.pass(stored)?,
                _ => {
                    return self
                        .member(&block, stored, &own, long_path, long_link)
                        .map(Some);
                }
            }
        }
    }

    /// Tells `sink` the content of the member that came last, holes as zeros.
    pub(super) fn content<E: From<TarError>>(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let whole = [(0, self.size)];
        let sparse = self.sparse.take();
        let mut at = 0;
        let mut buffer = vec![0; usize::try_from(self.size).unwrap_or(CHUNK).min(CHUNK)];
        for &(start, length) in sparse.as_deref().unwrap_or(&whole) {
            zeros(start - at, sink)?;
            let mut rest = length;
            while rest > 0 {
                let take = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
                self.fill(&mut buffer[..take])?;
                self.left = self.left.saturating_sub(take as u64);
                sink(&buffer[..take])?;
                rest -= take as u64;
            }
            at = start + length;
        }
        zeros(self.size - at, sink)
    }

    fn member(
        &mut self,
        block: &[u8; BLOCK],
        stored: u64,
        own: &[Record],
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Header, TarError> {
        let mut header = Header {
            path: long_path.unwrap_or_else(|| path_of(block)),
            flag: block[156],
            mode: (self.number(&block[100..108])? & 0o7777) as u16,
            uid: self.narrow(&block[108..116])?,
            gid: self.narrow(&block[116..124])?,
            modified: (self.signed(&block[136..148])?, 0),
            link: long_link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
            ..Header::default()
        };
        if matches!(header.flag, b'3' | b'4') {
            header.device = (
                self.narrow(&block[329..337])?,
                self.narrow(&block[337..345])?,
            );
        }
        let mut pax = Pax {
            stored,
            ..Pax::default()
        };
        for (key, value) in self.globals.iter().chain(own) {
            pax.take(&mut header, key, value)
                .map_err(|problem| TarError::Malformed {
                    at: self.at,
                    problem,
                })?;
        }
        let is_file = matches!(header.flag, b'0' | 0 | b'7' | b'S');
        if !is_file {
            // A hard link may repeat the size of its file, and has no content for that.
            let carried = if matches!(header.flag, b'1'..=b'6') {
                0
            } else {
                pax.stored
            };
            self.left = padded(carried);
            self.size = 0;
            return Ok(header);
        }
        self.left = padded(pax.stored);
        self.sparse = self.sparse_map(block, &header, &mut pax)?;
        header.size = match &self.sparse {
            Some(map) => {
                let size = pax
                    .real_size
                    .ok_or_else(|| self.malformed("a sparse file without its length"))?;
                self.check_map(map, size, pax.stored)?;
                size
            }
            None => pax.stored,
        };
        if header.size > MAX_FILE {
            return Err(self.malformed("a file that is longer than any"));
        }
        self.size = header.size;
        Ok(header)
    }

    /// Where the stored bytes belong: GNU's own form, or one of those of pax.
    fn sparse_map(
        &mut self,
        block: &[u8; BLOCK],
        header: &Header,
        pax: &mut Pax,
    ) -> Result<Option<Vec<(u64, u64)>>, TarError> {
        if header.flag == b'S' {
            pax.real_size = Some(self.number(&block[483..495])?);
            let mut map = Vec::new();
            self.old_entries(&block[386..482], &mut map)?;
            let mut is_extended = block[482] != 0;
            while is_extended {
                let more = self.block()?;
                self.old_entries(&more[..504], &mut map)?;
                is_extended = more[504] != 0;
                self.check_count(&map)?;
            }
            return Ok(Some(map));
        }
        match (pax.major, &pax.map) {
            (Some(1), _) => {
                let mut map = Vec::new();
                let mut text = Text::default();
                let count = self.text_number(&mut text)?;
                for _ in 0..count {
                    map.push((self.text_number(&mut text)?, self.text_number(&mut text)?));
                    self.check_count(&map)?;
                }
                pax.stored = pax.stored.saturating_sub(text.blocks * BLOCK as u64);
                Ok(Some(map))
            }
            (None | Some(0), Some(map)) => Ok(Some(map.clone())),
            (None, None) if pax.real_size.is_none() => Ok(None),
            _ => Err(self.malformed("a sparse file of a form that is not known")),
        }
    }

    fn old_entries(&self, bytes: &[u8], map: &mut Vec<(u64, u64)>) -> Result<(), TarError> {
        for entry in bytes.chunks_exact(24) {
            if entry[0] == 0 && entry[12] == 0 {
                break;
            }
            map.push((self.number(&entry[..12])?, self.number(&entry[12..])?));
        }
        Ok(())
    }

    fn check_count(&self, map: &[(u64, u64)]) -> Result<(), TarError> {
        if map.len() > MAX_EXTENTS {
            return Err(self.malformed("a sparse file with too many parts"));
        }
        Ok(())
    }

    /// Parts in order that do not overlap, within the file, and as many bytes as are stored.
    fn check_map(&self, map: &[(u64, u64)], size: u64, stored: u64) -> Result<(), TarError> {
        self.check_count(map)?;
        let (mut end, mut sum) = (0, 0_u64);
        for &(start, length) in map {
            let next = start
                .checked_add(length)
                .filter(|&next| start >= end && next <= size);
            end =
                next.ok_or_else(|| self.malformed("a sparse file whose parts are out of order"))?;
            sum += length;
        }
        if sum == stored {
            Ok(())
        } else {
            Err(self.malformed("a sparse file whose parts are not what is stored"))
        }
    }

    /// One decimal number and its newline from the map that lies before a file's bytes (GNU sparse 1.0).
    fn text_number(&mut self, text: &mut Text) -> Result<u64, TarError> {
        let mut number = 0_u64;
        loop {
            if text.rest.is_empty() {
                if self.left < BLOCK as u64 {
                    return Err(self.malformed("a sparse file whose map is cut short"));
                }
                let block = self.block()?;
                self.left -= BLOCK as u64;
                text.rest = block.to_vec();
                text.rest.reverse();
                text.blocks += 1;
            }
            match text.rest.pop() {
                Some(b'\n') => return Ok(number),
                Some(digit @ b'0'..=b'9') => {
                    let next = number.checked_mul(10);
                    let next = next.and_then(|next| next.checked_add(u64::from(digit - b'0')));
                    number = next
                        .ok_or_else(|| self.malformed("a sparse file with too large a number"))?;
                }
                _ => return Err(self.malformed("a sparse file whose map is not numbers")),
            }
        }
    }

    fn records(&mut self, stored: u64) -> Result<Vec<Record>, TarError> {
        let bytes = self.whole(stored, MAX_EXTENSION)?;
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() && rest[0] != 0 {
            let record = record(rest).ok_or_else(|| self.malformed("a pax record that is none"))?;
            records.push((record.0.to_vec(), record.1.to_vec()));
            if records.len() > MAX_RECORDS {
                return Err(self.malformed("too many pax records"));
            }
            rest = record.2;
        }
        Ok(records)
    }

    fn long_name(&mut self, stored: u64) -> Result<Vec<u8>, TarError> {
        let bytes = self.whole(stored, MAX_NAME)?;
        Ok(until_nul(&bytes).to_vec())
    }

    fn whole(&mut self, stored: u64, most: u64) -> Result<Vec<u8>, TarError> {
        if stored > most {
            return Err(self.malformed("a name or extension that is longer than any"));
        }
        let mut bytes = vec![0; padded(stored) as usize];
        self.fill(&mut bytes)?;
        bytes.truncate(stored as usize);
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let left = std::mem::take(&mut self.left);
        self.sparse = None;
        self.pass_bytes(left)
    }

    fn pass(&mut self, stored: u64) -> Result<(), TarError> {
        self.pass_bytes(padded(stored))
    }

    fn pass_bytes(&mut self, mut bytes: u64) -> Result<(), TarError> {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK)];
        while bytes > 0 {
            let take = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
            self.fill(&mut buffer[..take])?;
            bytes -= take as u64;
        }
        Ok(())
    }

    /// The second of the two empty blocks; what pads the last record is read away, as whoever writes may wait for it.
    fn end(&mut self) -> Result<Option<Header>, TarError> {
        if self.block()? != [0; BLOCK] {
            return Err(self.malformed("something after an empty block"));
        }
        io::copy(&mut (&mut self.input).take(MAX_TAIL), &mut io::sink())?;
        Ok(None)
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        match self.input.read_exact(buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.malformed("it is cut short, or no tar (a compressed one is to be unpacked first: zstd -dc, gzip -dc)"));
            }
            outcome => outcome?,
        }
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn verify(&self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    0x20
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if self.number(&block[148..156]).ok() == Some(sum) {
            Ok(())
        } else {
            Err(self.malformed("a header whose checksum is wrong: it is damaged, or no tar (a compressed one is to be unpacked first: zstd -dc, gzip -dc)"))
        }
    }

    fn number(&self, field: &[u8]) -> Result<u64, TarError> {
        u64::try_from(self.signed(field)?).map_err(|_| self.malformed("a negative number"))
    }

    fn narrow(&self, field: &[u8]) -> Result<u32, TarError> {
        u32::try_from(self.number(field)?).map_err(|_| self.malformed("too large a number"))
    }

    /// Octal, or base 256 with the first bit set.
    fn signed(&self, field: &[u8]) -> Result<i64, TarError> {
        let too_large = || self.malformed("too large a number");
        if field[0] & 0x80 != 0 {
            let first = if field[0] & 0x40 == 0 {
                i64::from(field[0] & 0x3F)
            } else {
                i64::from(field[0] as i8)
            };
            return field[1..].iter().try_fold(first, |number, byte| {
                let number = number.checked_mul(256).ok_or_else(too_large)?;
                Ok(number | i64::from(*byte))
            });
        }
        let digits = until_nul(field).trim_ascii();
        digits.iter().try_fold(0_i64, |number, digit| match digit {
            b'0'..=b'7' => {
                let number = number.checked_mul(8).ok_or_else(too_large)?;
                number
                    .checked_add(i64::from(digit - b'0'))
                    .ok_or_else(too_large)
            }
            _ => Err(self.malformed("a number that is none")),
        })
    }

    fn malformed(&self, problem: &'static str) -> TarError {
        TarError::Malformed {
            at: self.at,
            problem,
        }
    }
}

/// The map before a sparse file's bytes, as far as it was read; reversed.
#[derive(Default)]
struct Text {
    rest: Vec<u8>,
    blocks: u64,
}

fn path_of(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    // GNU's own headers have other things where ustar has its prefix.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

fn padded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

fn zeros<E>(mut count: u64, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let zeros = [0; 16 * 1024];
    while count > 0 {
        let take = usize::try_from(count)
            .unwrap_or(zeros.len())
            .min(zeros.len());
        sink(&zeros[..take])?;
        count -= take as u64;
    }
    Ok(())
}

const BLOCK: usize = 512;
const CHUNK: usize = 256 * 1024;
/// All extended attributes of one file, sixty-four times over.
const MAX_EXTENSION: u64 = 4 * 1024 * 1024;
/// Longer than any path or link target (`PATH_MAX`).
const MAX_NAME: u64 = 64 * 1024;
/// More than one file has extended attributes.
const MAX_RECORDS: usize = 4096;
/// They count for every member, so there are few.
const MAX_GLOBALS: usize = 64;
/// As long as ext4 has them. What is not stored of a sparse one is hashed all the same.
const MAX_FILE: u64 = 16 << 40;
const MAX_EXTENTS: usize = 1024 * 1024;
/// As much as a tar is padded with at its end, and more.
const MAX_TAIL: u64 = 16 * 1024 * 1024;
