//! Receives databases that SQLite itself wrote, whole and hostile; holds the rows that are read to those that it has.

use std::fs;

use drift::manifest::Source as _;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// A table with rows of every length, beside others and an index.
struct Made {
    place: TempDir,
    sqlite: Connection,
}

impl Made {
    fn with(page_bytes: usize, journal: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let sqlite = Connection::open(place.path().join("db")).unwrap();
        let begin = format!(
            "PRAGMA page_size = {page_bytes}; PRAGMA journal_mode = {journal}; PRAGMA wal_autocheckpoint = 0;
             PRAGMA synchronous = OFF;
             CREATE TABLE 'Other' (a INTEGER, b TEXT); CREATE INDEX 'Packages2' ON 'Other'(b);
             INSERT INTO Other VALUES (1, 'one'), (2, 'two');
             CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);"
        );
        sqlite.execute_batch(&begin).unwrap();
        Made { place, sqlite }
    }

    fn put(&self, rows: impl IntoIterator<Item = Vec<u8>>) {
        for row in rows {
            let insert = "INSERT INTO Packages (blob) VALUES (?)";
            self.sqlite.execute(insert, [row]).unwrap();
        }
    }

    fn sql(&self, text: &str) {
        self.sqlite.execute_batch(text).unwrap();
    }

    fn rows(&self) -> Vec<Vec<u8>> {
        let asked = "SELECT blob FROM Packages ORDER BY hnum";
        let mut asked = self.sqlite.prepare(asked).unwrap();
        let rows = asked.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.place.path().join(name)).unwrap_or_default()
    }
}

/// So many bytes, other ones for each length.
fn blob(length: usize) -> Vec<u8> {
    let byte = |nth: usize| u8::try_from((nth * 7 + length) % 251).unwrap();
    (0..length).map(byte).collect()
}

fn read(file: &[u8], log: Option<&[u8]>) -> io::Result<Vec<Vec<u8>>> {
    let of_file = |at: u64, buffer: &mut [u8]| file.read_at(at, buffer);
    let log = log.unwrap_or_default();
    let of_log = |at: u64, buffer: &mut [u8]| log.read_at(at, buffer);
    let mut budget = Budget::until(None);
    let database = Database::open(&of_file, Some(&of_log), &mut budget)?;
    let mut blobs = Vec::new();
    let Some(mut rows) = database.table(b"Packages", &mut budget)? else {
        return Ok(blobs);
    };
    while let Some(row) = rows.next(&mut budget)? {
        blobs.push(column(&row, 1).unwrap_or_default().to_vec());
    }
    Ok(blobs)
}

#[test]
fn rows_of_every_length_are_read_from_pages_of_every_size() {
    for page_bytes in [512, 1024, 4096, 65_536] {
        let made = Made::with(page_bytes, "DELETE");
        // Around each length at which a row begins to need another page.
        let edges = [0, 1, 127, 128, page_bytes - 40, page_bytes, 3 * page_bytes];
        made.put((0..80).flat_map(|more| edges.map(|edge| blob(edge + more))));
        made.put([blob(1_000_000)]);
        made.sql("DELETE FROM Packages WHERE hnum % 3 = 0");
        let rows = read(&made.file("db"), None).unwrap();
        assert!(rows.len() > 300);
        assert!(rows == made.rows(), "{page_bytes}");
    }
}

#[test]
fn a_database_without_the_table_has_no_rows() {
    let made = Made::with(4096, "DELETE");
    made.sql("DROP TABLE Packages; CREATE VIEW Packages AS SELECT * FROM Other");
    assert_eq!(read(&made.file("db"), None).unwrap(), [[0; 0]; 0]);
}

#[test]
fn what_was_committed_to_the_log_is_read_and_what_was_not_is_not() {
    let made = Made::with(1024, "WAL");
    made.put((0..50).map(|nth| blob(nth * 90)));
    assert!(read(&made.file("db"), None).unwrap().is_empty());
    let committed = made.rows();
    assert!(read(&made.file("db"), Some(&made.file("db-wal"))).unwrap() == committed);
    // Written back in part of the log's life: it begins again from its start, with old frames behind the new ones.
    made.sql("PRAGMA wal_checkpoint(RESTART)");
    made.put([blob(700)]);
    let committed = made.rows();
    assert!(read(&made.file("db"), Some(&made.file("db-wal"))).unwrap() == committed);
    // More than the cache holds, so that it is in the file before it is committed.
    let before = made.file("db-wal");
    made.sql("PRAGMA cache_size = 2; BEGIN; UPDATE Packages SET blob = zeroblob(3000)");
    assert!(made.file("db-wal") != before);
    assert!(read(&made.file("db"), Some(&made.file("db-wal"))).unwrap() == committed);
}

#[test]
fn a_log_that_begins_again_while_it_is_read_gives_no_page_of_another_time() {
    let made = Made::with(1024, "WAL");
    made.put((0..50).map(|nth| blob(nth * 90)));
    let (file, log) = (made.file("db"), made.file("db-wal"));
    made.sql("PRAGMA wal_checkpoint(RESTART); UPDATE Packages SET blob = zeroblob(3000)");
    let later = made.file("db-wal");
    let now = std::cell::Cell::new(&log);
    let of_file = |at: u64, buffer: &mut [u8]| file.read_at(at, buffer);
    let of_log = |at: u64, buffer: &mut [u8]| now.get().read_at(at, buffer);
    let mut budget = Budget::until(None);
    let database = Database::open(&of_file, Some(&of_log), &mut budget).unwrap();
    let rows = database.table(b"Packages", &mut budget).unwrap();
    let mut rows = rows.expect("the table");
    now.set(&later);
    let told = loop {
        match rows.next(&mut budget) {
            Ok(row) => assert!(row.is_some(), "pages of two times"),
            Err(error) => break error,
        }
    };
    assert_eq!(told.kind(), io::ErrorKind::InvalidData);
    assert!(told.to_string().contains("began again"), "{told}");
}

/// As a power failure leaves it, or a reader meets it.
#[test]
fn a_log_that_ends_anywhere_or_is_damaged_anywhere_gives_what_was_committed_before() {
    const FRAME: usize = 24 + 512;
    let made = Made::with(512, "WAL");
    made.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let mut states = vec![made.rows()];
    for length in [3, 600, 5000, 10] {
        made.put([blob(length)]);
        states.push(made.rows());
    }
    let (file, log) = (made.file("db"), made.file("db-wal"));
    let mut seen = std::collections::BTreeSet::new();
    let ends =
        (0..log.len() / FRAME).flat_map(|frame| [0, 1, 31, 32, 50].map(|at| frame * FRAME + at));
    for end in ends.chain([log.len()]) {
        let rows = read(&file, Some(&log[..end])).unwrap();
        let state = states.iter().position(|state| *state == rows);
        seen.insert(state.unwrap_or_else(|| panic!("cut at {end}: a state that never was")));
        let Some(byte) = (end < log.len()).then_some(end) else {
            continue;
        };
        let mut damaged = log.clone();
        damaged[byte] ^= 0x40;
        let after = read(&file, Some(&damaged)).unwrap();
        assert!(after == rows, "byte {byte}");
    }
    assert_eq!(seen.len(), states.len());
}

/// Where the root of the table lies, and the first of its leaves.
fn root(file: &[u8]) -> usize {
    let schema = |wanted: &[u8]| {
        let at = file.windows(wanted.len()).position(|bytes| bytes == wanted);
        at.unwrap() + wanted.len()
    };
    // `PackagesPackages`, name and table, comes before the page.
    usize::from(file[schema(b"PackagesPackages")])
}

/// What it is, of which database, how it is spoiled (it is told where the table's root lies), and what is said of it.
type Case<'c> = (&'c str, &'c [u8], &'c dyn Fn(&mut Vec<u8>, usize), &'c str);

#[test]
fn a_hostile_database_is_refused_and_holds_nobody_up() {
    const PAGE: usize = 1024;
    let leaf = Made::with(PAGE, "DELETE");
    leaf.put([blob(900)]);
    let leaf = leaf.file("db");
    let tree = Made::with(PAGE, "DELETE");
    tree.put((0..100).map(|_| blob(900)));
    let tree = tree.file("db");
    let chain = Made::with(PAGE, "DELETE");
    chain.put([blob(100_000)]);
    let chain = chain.file("db");
    let short = |file: &[u8], at: usize| usize::from(file[at]) << 8 | usize::from(file[at + 1]);
    let cases: [Case<'_>; 12] = [
        ("no magic", &leaf, &|file, _| file[3] = 0, "its header"),
        (
            "pages of 3 bytes",
            &leaf,
            &|file, _| file[16..18].copy_from_slice(&[0, 3]),
            "its header",
        ),
        (
            "all reserved",
            &leaf,
            &|file, _| file[16..21].copy_from_slice(&[2, 0, 1, 1, 255]),
            "its header",
        ),
        (
            "cut in its header",
            &leaf,
            &|file, _| file.truncate(50),
            "its length",
        ),
        (
            "cut in its pages",
            &leaf,
            &|file, _| file.truncate(PAGE),
            "its length",
        ),
        (
            "no page of a table",
            &leaf,
            &|file, at| {
                file[at] = 2;
            },
            "a page of a table",
        ),
        (
            "more cells than a page has",
            &leaf,
            &|file, at| {
                file[at + 3..at + 5].fill(255);
            },
            "rows on top of each other",
        ),
        (
            "a row of an exabyte",
            &leaf,
            &|file, at| {
                let cell = at + short(file, at + 8);
                file[cell..cell + 9].fill(255);
            },
            "a row too long",
        ),
        (
            "one row many times",
            &leaf,
            &|file, at| {
                let cell = [file[at + 8], file[at + 9]];
                file[at + 4] = 40;
                for nth in 0..40 {
                    file[at + 8 + 2 * nth..at + 10 + 2 * nth].copy_from_slice(&cell);
                }
            },
            "rows on top of each other",
        ),
        (
            "a tree that goes round",
            &tree,
            &|file, at| {
                let page = u32::try_from(root(file)).unwrap();
                let cell = at + short(file, at + 12);
                file[cell..cell + 4].copy_from_slice(&page.to_be_bytes());
            },
            "a table too deep",
        ),
        (
            "a page that is not there",
            &tree,
            &|file, at| {
                file[at + 8..at + 12].fill(255);
            },
            "its length",
        ),
        (
            "a chain to page 0",
            &chain,
            &|file, at| {
                let here = in_leaf(100_005, PAGE);
                let end = at + short(file, at + 8) + 4 + here;
                file[end..end + 4].fill(0);
            },
            "a page 0",
        ),
    ];
    for (name, good, spoil, told) in cases {
        let mut file = good.to_vec();
        spoil(&mut file, (root(good) - 1) * PAGE);
        let error = read(&file, None).expect_err(name);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
        assert!(error.to_string().contains(told), "{name}: {error}");
    }
}

/// A tree whose pages all lead to the same two would have 2²⁰ leaves.
#[test]
fn reading_the_same_pages_again_and_again_ends_with_the_budget() {
    const PAGE: usize = 512;
    const DEPTH: u32 = 18;
    let made = Made::with(PAGE, "DELETE");
    made.put([blob(1)]);
    let mut file = made.file("db");
    let leaf = u32::try_from(root(&file)).unwrap();
    let first = u32::try_from(file.len() / PAGE).unwrap() + 1;
    for level in 0..DEPTH {
        let mut page = [0; PAGE];
        let below = if level + 1 == DEPTH {
            leaf
        } else {
            first + level + 1
        };
        page[0] = 5;
        page[4] = 1;
        page[8..12].copy_from_slice(&below.to_be_bytes());
        page[12..14].copy_from_slice(&500_u16.to_be_bytes());
        page[500..504].copy_from_slice(&below.to_be_bytes());
        file.extend(page);
    }
    let of_file = |at: u64, buffer: &mut [u8]| file.read_at(at, buffer);
    let mut budget = Budget::until(None);
    budget.bytes = 1 << 20;
    let database = Database::open(&of_file, None, &mut budget).unwrap();
    let mut rows = database.rows(first, &mut budget).unwrap();
    let error = loop {
        match rows.next(&mut budget) {
            Ok(row) => assert!(row.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

fn small() -> (Vec<u8>, Vec<u8>) {
    let made = Made::with(512, "WAL");
    made.put((0..20).map(|nth| blob(nth * 50)));
    made.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    made.put([blob(2000)]);
    (made.file("db"), made.file("db-wal"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_changed_in_a_database_ends_with_rows_or_an_error(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12)
    ) {
        static SMALL: std::sync::LazyLock<(Vec<u8>, Vec<u8>)> = std::sync::LazyLock::new(small);
        let (mut file, log) = SMALL.clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = read(&file, None);
        let _ = read(&file, Some(&log));
    }
}
