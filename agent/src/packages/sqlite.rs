//! Receives an SQLite database and its write-ahead log; hands on the rows of one of its tables, one at a time.
//!
//! Nothing is written and nothing is believed: each page that is read counts against the budget however often a tree
//! or a chain comes back to it, rows together are no longer than the pages that they came from, and a tree is no deeper
//! than SQLite's own. Indexes and free pages are not looked at (<https://www.sqlite.org/fileformat2.html>).

use std::io;

use super::Budget;
use super::wal::Log;

/// Fills a buffer from an offset on; `UnexpectedEof` where there is not that much.
pub(super) type ReadAt<'f> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'f;

/// A database, open.
pub(super) struct Database<'f> {
    file: &'f ReadAt<'f>,
    log: Option<Log<'f>>,
    page_bytes: usize,
    /// Without what is reserved at the end of each page.
    usable: usize,
}

/// The rows of a table that are still to come, in the order of their ids.
pub(super) struct Rows<'d> {
    database: &'d Database<'d>,
    /// From the root down: pages, and how many cells of each were passed.
    way: Vec<(Page, usize)>,
    /// Bytes of pages that no row has had yet.
    bytes: usize,
}

/// Why bytes are not a database that is read here.
#[derive(Debug, thiserror::Error)]
#[error("it is damaged, or no SQLite database: {0}")]
struct Damaged(&'static str);

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damaged(what))
}

/// What lies beyond the end is damage.
fn whole(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("its length")),
        read => read,
    }
}

const HEADER_BYTES: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// SQLite's own limit.
const MAX_DEPTH: usize = 20;
/// The header of the largest package of a distribution (a kernel's, with its modules) has 5 MiB.
const MAX_ROW_BYTES: u64 = 32 * 1024 * 1024;
/// A row in its page: two bytes that say where it is, one or more for its length and its id each.
const ROW_OVERHEAD_BYTES: usize = 4;

impl<'f> Database<'f> {
    /// Reads the header of a database, and its log.
    ///
    /// # Errors
    /// `InvalidData` if it is none; a budget that is spent, and what reading gives.
    pub(super) fn open(
        file: &'f ReadAt<'f>,
        log: Option<&'f ReadAt<'f>>,
        budget: &mut Budget,
    ) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        whole(file(0, &mut header))?;
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        let usable = page_bytes.saturating_sub(usize::from(header[20]));
        let is_database = header.starts_with(b"SQLite format 3\0");
        if !is_database || !page_bytes.is_power_of_two() || usable < 480 {
            return Err(damaged("its header"));
        }
        let log = log.map(|log| Log::read(log, page_bytes, budget));
        Ok(Database {
            file,
            log: log.transpose()?,
            page_bytes,
            usable,
        })
    }

    /// The rows of a table; none if there is no such table.
    ///
    /// # Errors
    /// See [`Rows::next`].
    pub(super) fn table(&self, name: &[u8], budget: &mut Budget) -> io::Result<Option<Rows<'_>>> {
        // sqlite_schema: type, name, tbl_name, rootpage, sql.
        let mut schema = self.rows(1, budget)?;
        while let Some(row) = schema.next(budget)? {
            if column(&row, 0) != Some(b"table") || column(&row, 1) != Some(name) {
                continue;
            }
            let root = column(&row, 3).unwrap_or_default();
            let root = root
                .iter()
                .fold(0_u32, |root, byte| (root << 8) | u32::from(*byte));
            return self.rows(root, budget).map(Some);
        }
        Ok(None)
    }

    fn rows(&self, root: u32, budget: &mut Budget) -> io::Result<Rows<'_>> {
        let mut rows = Rows {
            database: self,
            way: Vec::new(),
            bytes: 0,
        };
        rows.descend(root, budget)?;
        Ok(rows)
    }

    fn page(&self, number: u32, budget: &mut Budget) -> io::Result<Page> {
        budget.take(self.page_bytes)?;
        let before = number.checked_sub(1).ok_or(damaged("a page 0"))?;
        let mut page = vec![0; self.page_bytes];
        let logged = self
            .log
            .as_ref()
            .and_then(|log| log.page(number, &mut page));
        let at = u64::from(before) * self.page_bytes as u64;
        whole(logged.unwrap_or_else(|| (self.file)(at, &mut page)))?;
        page.truncate(self.usable);
        Ok(Page {
            bytes: page,
            start: if number == 1 { HEADER_BYTES } else { 0 },
        })
    }
}

impl Rows<'_> {
    /// The next row, as a record; none at the end.
    ///
    /// # Errors
    /// `InvalidData` for a table that is damaged; a budget that is spent, and what reading gives.
    pub(super) fn next(&mut self, budget: &mut Budget) -> io::Result<Option<Vec<u8>>> {
        while let Some((page, passed)) = self.way.last_mut() {
            let step = page.step(*passed).ok_or(damaged("a page of a table"))?;
            *passed += 1;
            match step {
                Step::Down(number) => self.descend(number, budget)?,
                Step::Row(at) => return self.row(at, budget).map(Some),
                Step::Up => drop(self.way.pop()),
            }
        }
        Ok(None)
    }

    fn descend(&mut self, number: u32, budget: &mut Budget) -> io::Result<()> {
        if self.way.len() == MAX_DEPTH {
            return Err(damaged("a table too deep"));
        }
        self.way.push((self.database.page(number, budget)?, 0));
        self.bytes += self.database.page_bytes;
        Ok(())
    }

    /// A row: what of it lies in its leaf, from there on in a chain of pages.
    fn row(&mut self, at: usize, budget: &mut Budget) -> io::Result<Vec<u8>> {
        const CUT: &str = "a row is cut short";
        let (page, _) = self.way.last().ok_or(damaged(CUT))?;
        let mut cell = page.bytes.get(at..).unwrap_or_default();
        let length = varint(&mut cell)
            .filter(|length| *length <= MAX_ROW_BYTES)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(damaged("a row too long"))?;
        let _id = varint(&mut cell);
        let here = in_leaf(length, self.database.usable);
        let mut row = cell.get(..here).ok_or(damaged(CUT))?.to_vec();
        let mut next = number(cell, here);
        while row.len() < length {
            let page = self.database.page(next.ok_or(damaged(CUT))?, budget)?;
            self.bytes += self.database.page_bytes;
            next = number(&page.bytes, 0);
            let more = &page.bytes[4..];
            row.extend_from_slice(&more[..more.len().min(length - row.len())]);
        }
        let left = self.bytes.checked_sub(length + ROW_OVERHEAD_BYTES);
        self.bytes = left.ok_or(damaged("rows on top of each other"))?;
        Ok(row)
    }
}

/// How much of a row lies in its leaf.
fn in_leaf(length: usize, usable: usize) -> usize {
    let most = usable - 35;
    let least = (usable - 12) * 32 / 255 - 23;
    if length <= most {
        return length;
    }
    let here = least + (length - least) % (usable - 4);
    if here <= most { here } else { least }
}

/// One page, as far as it is used.
struct Page {
    bytes: Vec<u8>,
    /// The first one has the database's header before its own.
    start: usize,
}

enum Step {
    /// Into this page.
    Down(u32),
    /// A row begins there.
    Row(usize),
    /// All cells are passed.
    Up,
}

impl Page {
    /// What comes after so many cells; nothing if this is no page of a table.
    fn step(&self, passed: usize) -> Option<Step> {
        let head = self.bytes.get(self.start..)?;
        let is_leaf = match *head.first()? {
            LEAF => true,
            INTERIOR => false,
            _ => return None,
        };
        let short = |at: usize| {
            let bytes = head.get(at..)?.first_chunk()?;
            Some(usize::from(u16::from_be_bytes(*bytes)))
        };
        let cells = short(3)?;
        Some(match (is_leaf, passed.cmp(&cells)) {
            (true, std::cmp::Ordering::Less) => Step::Row(short(8 + 2 * passed)?),
            (false, std::cmp::Ordering::Less) => {
                Step::Down(number(&self.bytes, short(12 + 2 * passed)?)?)
            }
            (false, std::cmp::Ordering::Equal) => Step::Down(number(head, 8)?),
            _ => Step::Up,
        })
    }
}

/// The bytes of a row's column: a text, a blob, or a number (big-endian, no bytes for 0, 1 and nothing).
pub(super) fn column(row: &[u8], nth: usize) -> Option<&[u8]> {
    let mut rest = row;
    let header_bytes = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = row.get(row.len() - rest.len()..header_bytes)?;
    let mut values = row.get(header_bytes..)?;
    for _ in 0..nth {
        let bytes = value_bytes(varint(&mut types)?)?;
        values = values.get(bytes..)?;
    }
    values.get(..value_bytes(varint(&mut types)?)?)
}

fn value_bytes(serial_type: u64) -> Option<usize> {
    let bytes = match serial_type {
        0 | 8 | 9 => 0,
        1..=4 => serial_type,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        _ => (serial_type - 12) / 2,
    };
    usize::try_from(bytes).ok()
}

/// Up to nine bytes, seven bits each and eight in the last.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    const LAST: usize = 8;
    let mut number = 0;
    for nth in 0..=LAST {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        if nth == LAST {
            return Some((number << 8) | u64::from(byte));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

/// The big-endian number at a place.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
