//! Receives entries and keeps them in their chain; hands them on by page, or all in order to whoever walks the chain.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use crate::ledger::{BrokenLink, Chain, Entry, Hash, Link, MAX_PAGE, Recorded, Walked};

/// Appends an entry to the chain and gives the new head.
///
/// It is part of the caller's transaction: what the entry tells of and the entry are durable together or not at all.
/// The transaction must be able to write (`BEGIN IMMEDIATE`), so that no other entry comes between head and tail.
///
/// # Errors
/// Whatever the database gives.
pub fn append(tx: &Transaction<'_>, at_ms: i64, entry: &Entry) -> Result<Hash, rusqlite::Error> {
    let head: Option<(i64, [u8; 32])> = tx
        .prepare_cached("SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (last, previous) = head.map_or((0, Chain::GENESIS), |(last, hash)| {
        (last, Hash::from_bytes(hash))
    });
    let text = entry
        .recorded(last.unsigned_abs() + 1, at_ms)
        .to_canonical();
    let hash = Link::hash_after(previous, &text);
    tx.prepare_cached("INSERT INTO ledger (sequence, entry, hash) VALUES (?1, ?2, ?3)")?
        .execute(params![last + 1, text, hash.as_bytes()])?;
    Ok(hash)
}

/// Which entries of the ledger to list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only entries before this one; none for the newest.
    pub before: Option<u64>,
    /// How many, at most [`MAX_PAGE`].
    pub limit: u32,
    /// Only these fleets; none for all and for entries that concern no fleet.
    pub fleets: Option<Vec<String>>,
    /// Only entries about this.
    pub subject: Option<String>,
}

/// The entries of a page with their hashes, newest first.
///
/// # Errors
/// Whatever the database gives; a row whose text is no entry is left to [`verify`] to name and left out here.
pub fn list(db: &Connection, page: &Page) -> Result<Vec<(Recorded, Hash)>, rusqlite::Error> {
    let fleets = page
        .fleets
        .as_ref()
        .map(|fleets| serde_json::to_string(fleets).expect("a list of strings"));
    let before = page
        .before
        .map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    db.prepare_cached(
        "SELECT entry, hash FROM ledger WHERE sequence < ?1
           AND (?2 IS NULL OR fleet IN (SELECT value FROM json_each(?2)))
           AND (?3 IS NULL OR subject = ?3)
         ORDER BY sequence DESC LIMIT ?4",
    )?
    .query_map(
        params![before, fleets, page.subject, page.limit.min(MAX_PAGE)],
        |row| {
            let (text, hash): (String, [u8; 32]) = (row.get(0)?, row.get(1)?);
            Ok(serde_json::from_str(&text)
                .ok()
                .map(|recorded| (recorded, Hash::from_bytes(hash))))
        },
    )?
    .filter_map(Result::transpose)
    .collect()
}

/// What a walk along the whole chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Every link holds.
    Holds(Walked),
    /// This one, before all others, does not; what comes before it does.
    Broken(BrokenLink, Walked),
}

/// Walks the whole chain, one row in memory at a time, and looks for a head that was noted earlier.
///
/// # Errors
/// Whatever the database gives.
pub fn verify(db: &Connection, sought: Option<Hash>) -> Result<Verified, rusqlite::Error> {
    let mut statement = db.prepare("SELECT sequence, entry, hash FROM ledger ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    let mut chain = Chain::new(sought);
    while let Some(row) = rows.next()? {
        if let Err(broken) = chain.follow(&link(row)?) {
            return Ok(Verified::Broken(broken, chain.finish()));
        }
    }
    Ok(Verified::Holds(chain.finish()))
}

/// A row as a link. What is no text or no hash stands for nothing that could follow, and breaks the chain there.
fn link(row: &Row<'_>) -> Result<Link, rusqlite::Error> {
    let sequence: i64 = row.get(0)?;
    let entry: Option<String> = row.get(1).ok();
    let hash: Option<[u8; 32]> = row.get(2).ok();
    let hash = hash.map_or(Chain::GENESIS, Hash::from_bytes);
    Ok(Link {
        sequence: sequence.unsigned_abs(),
        entry: entry.unwrap_or_default(),
        hash,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Broken;
    use serde_json::json;

    fn ledger_of(count: usize) -> (Connection, Vec<Hash>) {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("migrations/V4__ledger.sql"))
            .unwrap();
        let mut heads = Vec::new();
        for number in 0..count {
            let tx = db.transaction().unwrap();
            let entry = Entry {
                kind: "refused",
                fleet: (number % 2 == 0).then(|| "web".into()),
                subject: Some(format!("i-{number}")),
                reason: "a token that was used".into(),
                detail: json!({"n": number}),
                actor: "collector".into(),
            };
            heads.push(append(&tx, 1_000, &entry).unwrap());
            tx.commit().unwrap();
        }
        (db, heads)
    }

    fn broken_at(db: &Connection) -> Option<(u64, Broken)> {
        match verify(db, None).unwrap() {
            Verified::Holds(_) => None,
            Verified::Broken(link, _) => Some((link.sequence, link.broken)),
        }
    }

    #[test]
    fn what_was_appended_is_listed_newest_first_and_the_chain_holds() {
        let (db, heads) = ledger_of(4);
        let page = Page {
            limit: 2,
            ..Page::default()
        };
        let listed = list(&db, &page).unwrap();
        assert_eq!(
            listed
                .iter()
                .map(|(recorded, _)| recorded.sequence)
                .collect::<Vec<_>>(),
            [4, 3]
        );
        assert_eq!(listed[0].1, heads[3]);
        assert!(
            matches!(verify(&db, Some(heads[1])).unwrap(), Verified::Holds(walked) if walked.found_at == Some(2))
        );
    }

    #[test]
    fn an_operator_of_one_fleet_sees_only_its_entries() {
        let (db, _) = ledger_of(4);
        let page = Page {
            limit: 10,
            fleets: Some(vec!["web".into()]),
            ..Page::default()
        };
        assert_eq!(list(&db, &page).unwrap().len(), 2);
        let none = Page {
            limit: 10,
            fleets: Some(vec![]),
            ..Page::default()
        };
        assert_eq!(
            list(&db, &none).unwrap().len(),
            0,
            "no fleet is not every fleet"
        );
    }

    #[test]
    fn the_database_refuses_to_alter_remove_or_insert_between() {
        let (db, _) = ledger_of(3);
        for sql in [
            "UPDATE ledger SET entry = '{}' WHERE sequence = 2",
            "DELETE FROM ledger WHERE sequence = 3",
            "INSERT OR REPLACE INTO ledger (sequence, entry, hash) VALUES (2, '{}', zeroblob(32))",
            "INSERT INTO ledger (sequence, entry, hash) VALUES (9, '{}', zeroblob(32))",
        ] {
            assert!(db.execute(sql, []).is_err(), "{sql}");
        }
        assert_eq!(broken_at(&db), None);
    }

    #[test]
    fn whoever_goes_around_the_triggers_breaks_the_chain() {
        let tampering = [
            (
                "UPDATE ledger SET entry = replace(entry, 'used', 'good') WHERE sequence = 2",
                2,
                Broken::Altered,
            ),
            ("DELETE FROM ledger WHERE sequence = 2", 2, Broken::Missing),
            (
                "UPDATE ledger SET sequence = sequence + 1 WHERE sequence = 3",
                3,
                Broken::Missing,
            ),
        ];
        for (sql, sequence, broken) in tampering {
            let (db, _) = ledger_of(3);
            db.execute_batch(
                "DROP TRIGGER ledger_is_never_altered; DROP TRIGGER ledger_is_never_shortened",
            )
            .unwrap();
            db.execute(sql, []).unwrap();
            assert_eq!(broken_at(&db), Some((sequence, broken)), "{sql}");
        }
    }
}
