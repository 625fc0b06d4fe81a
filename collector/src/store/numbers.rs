//! Runs and report numbers: a report counts once, and an older run changes nothing.

use drift::Blake3;
use drift::report::RunId;
use rusqlite::{OptionalExtension as _, Transaction};

use super::instances::{from_stored, to_stored};

/// Report numbers of a run whose bodies are remembered. An agent sends again what was not acknowledged, which is a few.
pub const WINDOW: u64 = 256;
/// Runs of an instance whose bodies are remembered.
const RUNS: i64 = 16;
/// Runs of an instance that are known to be over: years of restarts, at some 60 bytes each. One that is forgotten would
/// pass for a new one when a report of it is said again.
const RUNS_KNOWN: i64 = 1_024;

/// A run that was heard of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its place among the instance's runs.
    pub number: i64,
    /// Its latest sequence number.
    pub sequence: u64,
}

/// The run, if it was heard of before.
///
/// # Errors
/// The database's.
pub fn run(tx: &Transaction<'_>, instance: i64, run: RunId) -> rusqlite::Result<Option<Known>> {
    tx.prepare_cached("SELECT number, sequence FROM runs WHERE instance = ?1 AND run = ?2")?
        .query_row((instance, run.0), |row| {
            Ok(Known {
                number: row.get(0)?,
                sequence: from_stored(row.get(1)?),
            })
        })
        .optional()
}

/// Whether a run that was heard of came after this one.
///
/// # Errors
/// The database's.
pub fn is_followed(tx: &Transaction<'_>, instance: i64, run: RunId) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM runs WHERE instance = ?1 AND previous = ?2")?
        .exists((instance, run.0))
}

/// Notes a run that was not heard of before, and forgets the oldest beyond [`RUNS_KNOWN`], and the bodies
/// of those beyond [`RUNS`], but for `current`.
///
/// # Errors
/// The database's.
pub fn add_run(
    tx: &Transaction<'_>,
    instance: i64,
    run: RunId,
    previous: Option<RunId>,
    current: i64,
    now_ms: i64,
) -> rusqlite::Result<Known> {
    let number: i64 = tx
        .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM runs WHERE instance = ?1")?
        .query_row([instance], |row| row.get(0))?;
    tx.prepare_cached(
        "INSERT INTO runs (instance, number, run, previous, started_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute((instance, number, run.0, previous.map(|run| run.0), now_ms))?;
    tx.prepare_cached("DELETE FROM runs WHERE instance = ?1 AND number <= ?2 AND number != ?3")?
        .execute((instance, number - RUNS_KNOWN, current))?;
    tx.prepare_cached(
        "DELETE FROM numbers WHERE instance = ?1 AND run_number <= ?2 AND run_number != ?3",
    )?
    .execute((instance, number - RUNS, current))?;
    Ok(Known {
        number,
        sequence: 0,
    })
}

/// The body that came with this number, if it is remembered.
///
/// # Errors
/// The database's.
pub fn body(
    tx: &Transaction<'_>,
    instance: i64,
    run: i64,
    sequence: u64,
) -> rusqlite::Result<Option<Blake3>> {
    tx.prepare_cached(
        "SELECT body FROM numbers WHERE instance = ?1 AND run_number = ?2 AND sequence = ?3",
    )?
    .query_row((instance, run, to_stored(sequence)), |row| {
        Ok(Blake3::from_bytes(row.get(0)?))
    })
    .optional()
}

/// Remembers the body of a new number, and forgets those that fell out of the window.
///
/// # Errors
/// The database's.
pub fn add(
    tx: &Transaction<'_>,
    instance: i64,
    run: Known,
    sequence: u64,
    body: &Blake3,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO numbers (instance, run_number, sequence, body) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((instance, run.number, to_stored(sequence), body.as_bytes()))?;
    if sequence > run.sequence {
        tx.prepare_cached("UPDATE runs SET sequence = ?3 WHERE instance = ?1 AND number = ?2")?
            .execute((instance, run.number, to_stored(sequence)))?;
        let forgotten = sequence.saturating_sub(WINDOW);
        if forgotten > 0 {
            tx.prepare_cached(
                "DELETE FROM numbers WHERE instance = ?1 AND run_number = ?2 AND sequence <= ?3",
            )?
            .execute((instance, run.number, to_stored(forgotten)))?;
        }
    }
    Ok(())
}
