//! `/etc/ld.so.cache`: which file the loader takes for a library's name. Parsed, never run.
//!
//! glibc's new format (`dl-cache.h`), by itself or behind the old one that the loader no longer reads:
//! a header of 48 bytes, 24 bytes an entry, then the strings, whose offsets count from the header. Both byte orders.

use super::ShapeError;
use crate::TreePath;

/// Thousands of times the cache of a full desktop.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// More libraries than any image has; it keeps the work small whatever the header says.
const MAX_ENTRIES: usize = 65_536;
/// `PATH_MAX`: no path of a cache is longer.
const MAX_PATH_BYTES: usize = 4096;
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER_BYTES: usize = 16;
const OLD_ENTRY_BYTES: usize = 12;
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;
/// Where the header says which byte order it is in: 0 (older caches do not say), 2 little, 3 big.
const ORDER_AT: usize = 28;
const BIG_ENDIAN: u8 = 3;
/// Where the loader looks by itself.
const TRUSTED: [&[u8]; 9] = [
    b"lib",
    b"lib32",
    b"lib64",
    b"libx32",
    b"usr/lib",
    b"usr/lib32",
    b"usr/lib64",
    b"usr/libx32",
    b"usr/local/lib",
];

/// Whether this is a cache whose every entry names a library of the image in a trusted directory: one of the loader's
/// own, up to two directories below it (`x86_64-linux-gnu/blas`), or the `glibc-hwcaps/LEVEL` of a directory in it.
///
/// `names` says whether a path is a file or link of the image; where `/lib` is a link to `usr/lib` it is asked for the
/// path in `/usr`.
///
/// # Errors
/// [`ShapeError::TooLong`], [`ShapeError::LoaderCache`], [`ShapeError::Untrusted`] and [`ShapeError::Unknown`].
pub fn ld_so_cache(content: &[u8], names: impl Fn(&TreePath) -> bool) -> Result<(), ShapeError> {
    if content.len() > MAX_BYTES {
        return Err(ShapeError::TooLong(MAX_BYTES));
    }
    let cache = Cache::read(content).map_err(ShapeError::LoaderCache)?;
    for nth in 0..cache.count {
        let (key, value) = cache.entry(nth).map_err(ShapeError::LoaderCache)?;
        if key.is_empty() || key.contains(&b'/') {
            return Err(ShapeError::LoaderCache("a library's name is not a name"));
        }
        check_path(value, &names)?;
    }
    Ok(())
}

fn check_path(value: &[u8], names: impl Fn(&TreePath) -> bool) -> Result<(), ShapeError> {
    let untrusted = || ShapeError::Untrusted(crate::escape(value));
    if value.first() != Some(&b'/') {
        return Err(untrusted());
    }
    let path = TreePath::new(value).map_err(|_| untrusted())?;
    if !is_trusted(path.as_bytes()) {
        return Err(untrusted());
    }
    let in_usr =
        || TreePath::new(&[b"usr/", path.as_bytes()].concat()).is_ok_and(|path| names(&path));
    let known = names(&path) || (path.as_bytes().starts_with(b"lib") && in_usr());
    if known {
        Ok(())
    } else {
        Err(ShapeError::Unknown(crate::escape(value)))
    }
}

fn is_trusted(path: &[u8]) -> bool {
    TRUSTED.iter().any(|directory| {
        let Some(below) = path
            .strip_prefix(*directory)
            .and_then(|rest| rest.strip_prefix(b"/"))
        else {
            return false;
        };
        let names: Vec<&[u8]> = below.split(|&byte| byte == b'/').take(5).collect();
        matches!(
            names[..],
            [_] | [_, _] | [_, _, _] | [_, b"glibc-hwcaps", _, _]
        )
    })
}

struct Cache<'c> {
    /// From the new header on.
    bytes: &'c [u8],
    count: usize,
    strings_end: usize,
    order: Order,
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl<'c> Cache<'c> {
    fn read(content: &'c [u8]) -> Result<Self, &'static str> {
        let bytes = new_part(content).ok_or("it is not glibc's new format")?;
        let header = bytes.get(..HEADER_BYTES).ok_or("its header is cut short")?;
        let order = match header[ORDER_AT] & 3 {
            BIG_ENDIAN => Order::Big,
            _ => Order::Little,
        };
        let mut cache = Self {
            bytes,
            count: 0,
            strings_end: 0,
            order,
        };
        cache.count = cache
            .number(20)
            .filter(|&count| count <= MAX_ENTRIES)
            .ok_or("it has too many entries")?;
        let strings = cache.number(24).ok_or("its header is cut short")?;
        cache.strings_end = cache.strings_start() + strings;
        if cache.strings_end > bytes.len() {
            return Err("it is cut short");
        }
        Ok(cache)
    }

    fn strings_start(&self) -> usize {
        HEADER_BYTES + self.count * ENTRY_BYTES
    }

    /// A library's name and the path that the loader takes for it.
    fn entry(&self, nth: usize) -> Result<(&'c [u8], &'c [u8]), &'static str> {
        let at = HEADER_BYTES + nth * ENTRY_BYTES;
        let key = self.number(at + 4).and_then(|at| self.string(at));
        let value = self.number(at + 8).and_then(|at| self.string(at));
        key.zip(value).ok_or("a string lies outside it")
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        let number = match self.order {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        };
        usize::try_from(number).ok()
    }

    fn string(&self, at: usize) -> Option<&'c [u8]> {
        if at < self.strings_start() {
            return None;
        }
        let rest = self.bytes.get(at..self.strings_end)?;
        let end = rest
            .iter()
            .take(MAX_PATH_BYTES)
            .position(|&byte| byte == 0)?;
        Some(&rest[..end])
    }
}

/// From the new format's header on: at the start, or behind the old format, aligned to its own words.
fn new_part(content: &[u8]) -> Option<&[u8]> {
    if content.starts_with(MAGIC) {
        return Some(content);
    }
    if !content.starts_with(OLD_MAGIC) {
        return None;
    }
    let count = *content.get(OLD_HEADER_BYTES - 4..)?.first_chunk()?;
    [u32::from_le_bytes(count), u32::from_be_bytes(count)]
        .into_iter()
        .find_map(|count| {
            let entries = usize::try_from(count)
                .ok()
                .filter(|&count| count <= MAX_ENTRIES)?
                * OLD_ENTRY_BYTES;
            let end = OLD_HEADER_BYTES + entries;
            [end.next_multiple_of(8), end]
                .into_iter()
                .find_map(|at| content.get(at..).filter(|rest| rest.starts_with(MAGIC)))
        })
}
