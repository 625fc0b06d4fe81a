//! Parts of a generation that is not complete: kept as rows, so that ten million drifts never lie in memory.

use drift::Blake3;
use drift::finding::{Drift, DriftId};
use drift::report::{HeldValue, Report};
use rusqlite::{OptionalExtension as _, Transaction};

use super::drifts::{self, Source};
use super::instances::{from_stored, to_stored};
use crate::instance::rank;

/// Bytes of parts that one instance may have waiting: 250,000 drifts of ordinary size, several times over.
pub const WAITING_BYTES: u64 = 512 * 1024 * 1024;

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    /// Others are missing.
    Waiting,
    /// It was the last that was missing.
    Complete,
    /// It contradicts the parts before it about how many there are.
    Contradicts,
    /// There is no room for it.
    TooMuch,
}

/// Keeps one part of generation `report.part.generation`; a newer generation takes the place of an older one.
///
/// # Errors
/// The database's.
pub fn add(
    tx: &Transaction<'_>,
    instance: i64,
    run: i64,
    report: &Report,
    bytes: usize,
) -> rusqlite::Result<Staged> {
    let part = report.part;
    let current: Option<(i64, i64, u32, i64)> = tx
        .prepare_cached(
            "SELECT run_number, generation, count, bytes FROM staging WHERE instance = ?1",
        )?
        .query_row([instance], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let waiting = match current {
        Some((at_run, generation, count, waiting))
            if at_run == run && from_stored(generation) == part.generation =>
        {
            if count != part.count {
                return Ok(Staged::Contradicts);
            }
            from_stored(waiting)
        }
        _ => {
            clear(tx, instance)?;
            tx.prepare_cached(
                "INSERT INTO staging (instance, run_number, generation, count, bytes) VALUES (?1, ?2, ?3, ?4, 0)",
            )?
            .execute((instance, run, to_stored(part.generation), part.count))?;
            0
        }
    };
    if waiting + bytes as u64 > WAITING_BYTES {
        clear(tx, instance)?;
        return Ok(Staged::TooMuch);
    }
    keep_rows(tx, instance, report)?;
    tx.prepare_cached(
        "INSERT INTO staged_parts (instance, part) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute((instance, part.index))?;
    tx.prepare_cached("UPDATE staging SET bytes = ?2 WHERE instance = ?1")?
        .execute((instance, to_stored(waiting + bytes as u64)))?;
    let have: u32 = tx
        .prepare_cached("SELECT count(*) FROM staged_parts WHERE instance = ?1")?
        .query_row([instance], |row| row.get(0))?;
    Ok(if have == part.count {
        Staged::Complete
    } else {
        Staged::Waiting
    })
}

fn keep_rows(tx: &Transaction<'_>, instance: i64, report: &Report) -> rusqlite::Result<()> {
    let mut row = tx.prepare_cached(
        "INSERT INTO staged_drifts (instance, id, opened, severity, drift, package) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET opened = excluded.opened, severity = excluded.severity, drift = excluded.drift,
             package = excluded.package",
    )?;
    for id in &report.closed {
        row.execute((
            instance,
            id.0.as_bytes(),
            false,
            0,
            None::<String>,
            None::<String>,
        ))?;
    }
    for open in &report.opened {
        let text = drifts::kept_text(&open.drift);
        row.execute((
            instance,
            open.id.0.as_bytes(),
            true,
            rank(&open.drift.severity),
            text,
            drifts::kept_package(open),
        ))?;
    }
    if report.held_whole {
        let mut row = tx.prepare_cached(
            "INSERT INTO staged_held (instance, path, held) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?;
        for held in &report.held {
            let text = serde_json::to_string(held).expect("a plain struct");
            row.execute((instance, held.path.as_bytes(), text))?;
        }
    }
    Ok(())
}

/// Makes what was staged the instance's open drifts: as a change, or as all there is. Whether everything fitted.
///
/// # Errors
/// The database's.
pub fn apply(
    tx: &Transaction<'_>,
    instance: i64,
    whole: bool,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let gone = if whole {
        "DELETE FROM drifts WHERE instance = ?1 AND source = 0 AND id NOT IN (
             SELECT id FROM staged_drifts WHERE instance = ?1 AND opened = 1)"
    } else {
        "DELETE FROM drifts WHERE instance = ?1 AND source = 0 AND id IN (
             SELECT id FROM staged_drifts WHERE instance = ?1 AND opened = 0)"
    };
    tx.prepare_cached(gone)?.execute([instance])?;
    let open = drifts::sum(tx, instance)?.open;
    let room = drifts::IDS.saturating_sub(open);
    retell(tx, instance, now_ms)?;
    tx.prepare_cached(
        "INSERT INTO drifts (instance, source, id, severity, opened_at_ms, drift, package)
         SELECT instance, ?2, id, severity, ?3, drift, package FROM staged_drifts AS new
         WHERE instance = ?1 AND opened = 1
             AND NOT EXISTS (SELECT 1 FROM drifts WHERE instance = ?1 AND source = 0 AND id = new.id)
         ORDER BY severity DESC LIMIT ?4",
    )?
    .execute((instance, Source::Agent as i64, now_ms, to_stored(room)))?;
    let missing: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM staged_drifts AS new WHERE instance = ?1 AND opened = 1
                 AND NOT EXISTS (SELECT 1 FROM drifts WHERE instance = ?1 AND source = 0 AND id = new.id))",
        )?
        .query_row([instance], |row| row.get(0))?;
    Ok(!missing)
}

/// Of what is open, takes over what the parts say that may change: as [`drifts::retell`] does from a whole report.
fn retell(tx: &Transaction<'_>, instance: i64, now_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE drifts SET package = new.package FROM staged_drifts AS new
         WHERE drifts.instance = ?1 AND drifts.source = ?2 AND drifts.drift IS NOT NULL
             AND new.instance = ?1 AND new.id = drifts.id AND new.opened = 1
             AND drifts.package IS NOT new.package",
    )?
    .execute((instance, Source::Agent as i64))?;
    // Their ids alone: what is told of all of them need not lie in memory. In this order it is asked only of drifts that
    // are kept whole.
    let attributed: Vec<DriftId> = tx
        .prepare_cached(
            "SELECT drifts.id FROM drifts CROSS JOIN staged_drifts AS new
             WHERE drifts.instance = ?1 AND drifts.source = ?2 AND drifts.drift IS NOT NULL
                 AND new.instance = ?1 AND new.id = drifts.id AND new.opened = 1
                 AND json_extract(new.drift, '$.attribution') IS NOT NULL",
        )?
        .query_map((instance, Source::Agent as i64), |row| {
            Ok(DriftId(Blake3::from_bytes(row.get(0)?)))
        })?
        .collect::<Result<_, _>>()?;
    for id in attributed {
        let text: String = tx
            .prepare_cached("SELECT drift FROM staged_drifts WHERE instance = ?1 AND id = ?2")?
            .query_row((instance, id.0.as_bytes()), |row| row.get(0))?;
        let told = serde_json::from_str::<Drift>(&text).ok();
        if let Some(attribution) = told.and_then(|drift| drift.attribution) {
            drifts::attribute(tx, instance, id, attribution, now_ms)?;
        }
    }
    Ok(())
}

/// The first `limit` held values that were staged, in path order.
///
/// # Errors
/// The database's.
pub fn held(tx: &Transaction<'_>, instance: i64, limit: usize) -> rusqlite::Result<Vec<HeldValue>> {
    let texts: Vec<String> = tx
        .prepare_cached("SELECT held FROM staged_held WHERE instance = ?1 ORDER BY path LIMIT ?2")?
        .query_map((instance, to_stored(limit as u64)), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(texts
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect())
}

/// Forgets what was staged.
///
/// # Errors
/// The database's.
pub fn clear(tx: &Transaction<'_>, instance: i64) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM staging WHERE instance = ?1",
        "DELETE FROM staged_parts WHERE instance = ?1",
        "DELETE FROM staged_drifts WHERE instance = ?1",
        "DELETE FROM staged_held WHERE instance = ?1",
    ] {
        tx.prepare_cached(statement)?.execute([instance])?;
    }
    Ok(())
}
