//! What is open on instances, what happened there, and the values that are held.
//!
//! Every id is kept, with its severity; the whole drift only of the gravest [`ROWS`]. The set digest is over all ids
//! that the agent opened, so the collector knows when it does not hold what the agent holds.

use drift::attribution::Attribution;
use drift::finding::{Drift, DriftId, HostPackage, set_digest};
use drift::report::{HeldValue, Moment, OpenDrift};
use drift::{Blake3, TreePath};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::instances::{from_stored, to_stored};
use crate::instance::rank;

/// Whole drifts kept of one instance. More tell nobody anything; the count and the digest go on.
pub const ROWS: u64 = 10_000;
/// Ids kept of one instance: 8 MiB. Beyond it the agent's count is taken as it comes.
pub const IDS: u64 = 250_000;
/// A drift whose JSON is longer is kept by its id alone: more than the longest path and its attributes take.
pub const DRIFT_BYTES: usize = 64 * 1024;
/// Moments kept of one instance, the latest.
pub const MOMENTS: u64 = 10_000;
/// Moments are thinned out in steps, not one by one.
const MOMENTS_SLACK: u64 = 1_000;

/// Who says that something is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The agent.
    Agent = 0,
    /// The collector, of the manifest that the instance verifies against.
    Manifest = 1,
    /// The collector, of a value that was held.
    Held = 2,
    /// The collector, of the dm-verity devices that the instance is mounted from.
    Verity = 3,
}

/// Something that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Its name.
    pub id: DriftId,
    /// Whether the collector says so, and not the agent.
    pub raised: bool,
    /// [`crate::instance::rank`] of its severity.
    pub rank: i64,
    /// When the collector heard of it.
    pub opened_at_ms: i64,
    /// What it is; none beyond the gravest [`ROWS`].
    pub drift: Option<Drift>,
    /// What the host's package database says of it: for people, and for nothing that is decided.
    pub package: Option<HostPackage>,
}

/// What is open in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// By the agent's word.
    pub open: u64,
    /// By the collector's word.
    pub raised: u64,
    /// The rank of the gravest.
    pub rank: Option<i64>,
}

/// Opens one; if it is open, nothing of it changes.
///
/// # Errors
/// The database's.
pub fn open(
    tx: &Transaction<'_>,
    instance: i64,
    source: Source,
    id: DriftId,
    drift: &Drift,
    now_ms: i64,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO drifts (instance, source, id, severity, opened_at_ms, drift) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )?
    .execute((instance, source as i64, id.0.as_bytes(), rank(&drift.severity), now_ms, kept_text(drift)))?;
    Ok(())
}

/// Opens what an agent says is open; if it is open, only what [`retell`] takes over may change.
///
/// # Errors
/// The database's.
pub fn open_reported(
    tx: &Transaction<'_>,
    instance: i64,
    open: &OpenDrift,
    now_ms: i64,
) -> rusqlite::Result<()> {
    self::open(tx, instance, Source::Agent, open.id, &open.drift, now_ms)?;
    retell(tx, instance, open, now_ms)
}

/// Of what an agent says is open, and is, takes over what may change: what the host's package database says of it, which
/// is the latest that was told, and who did it, which is the first ([`attribute`]).
///
/// # Errors
/// The database's.
pub fn retell(
    tx: &Transaction<'_>,
    instance: i64,
    open: &OpenDrift,
    now_ms: i64,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE drifts SET package = ?4
         WHERE instance = ?1 AND source = ?2 AND id = ?3 AND drift IS NOT NULL AND package IS NOT ?4",
    )?
    .execute((instance, Source::Agent as i64, open.id.0.as_bytes(), kept_package(open)))?;
    match &open.drift.attribution {
        Some(attribution) => attribute(tx, instance, open.id, attribution.clone(), now_ms),
        None => Ok(()),
    }
}

/// Adds who did it to a drift that is open and of which that was not told. What was told stays: an agent that was started
/// again no longer knows it, and whoever does the same once more did not open the drift. But an agent may have seen a
/// drift before it heard who did the last of it, and says so at once: until [`AMENDED_WITHIN_MS`] another process is
/// taken for the one that was told.
///
/// # Errors
/// The database's.
pub fn attribute(
    tx: &Transaction<'_>,
    instance: i64,
    id: DriftId,
    attribution: Box<Attribution>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let place = (instance, Source::Agent as i64, id.0.as_bytes());
    let kept: Option<(Option<String>, i64)> = tx
        .prepare_cached(
            "SELECT drift, opened_at_ms FROM drifts WHERE instance = ?1 AND source = ?2 AND id = ?3",
        )?
        .query_row(place, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((Some(text), opened_at_ms)) = kept else {
        return Ok(());
    };
    let is_just_opened = now_ms.saturating_sub(opened_at_ms) < AMENDED_WITHIN_MS;
    let may_be_told = |drift: &Drift| match &drift.attribution {
        None => true,
        Some(before) => is_just_opened && is_another_process(before, &attribution),
    };
    let kept = serde_json::from_str::<Drift>(&text).ok();
    let Some(mut drift) = kept.filter(may_be_told) else {
        return Ok(());
    };
    drift.attribution = Some(attribution);
    if let Some(text) = kept_text(&drift) {
        tx.prepare_cached(
            "UPDATE drifts SET drift = ?4 WHERE instance = ?1 AND source = ?2 AND id = ?3",
        )?
        .execute((place.0, place.1, place.2, text))?;
    }
    Ok(())
}

/// Far longer than an agent takes to hear of what it has seen already.
const AMENDED_WITHIN_MS: i64 = 10_000;

/// Whether the later one names a process, and not that of the one before.
fn is_another_process(before: &Attribution, later: &Attribution) -> bool {
    let name = |by: &Attribution| {
        let process = by.process.as_ref()?;
        Some((process.pid, process.started_milliseconds))
    };
    later.process.is_some() && name(before) != name(later)
}

/// What the host's package database says, as it is kept.
pub fn kept_package(open: &OpenDrift) -> Option<String> {
    let package = open.host_package.as_ref()?;
    Some(serde_json::to_string(package).expect("a plain struct"))
}

/// A drift as it is kept, unless it is too long to be: without who did it, if that makes it too long.
pub fn kept_text(drift: &Drift) -> Option<String> {
    let text = |drift: &Drift| {
        let text = serde_json::to_string(drift).expect("a plain struct");
        Some(text).filter(|text| text.len() <= DRIFT_BYTES)
    };
    text(drift).or_else(|| {
        drift.attribution.as_ref()?;
        text(&Drift {
            attribution: None,
            ..drift.clone()
        })
    })
}

/// Closes one; nothing happens if it is not open.
///
/// # Errors
/// The database's.
pub fn close(
    tx: &Transaction<'_>,
    instance: i64,
    source: Source,
    id: DriftId,
) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM drifts WHERE instance = ?1 AND source = ?2 AND id = ?3")?
        .execute((instance, source as i64, id.0.as_bytes()))?;
    Ok(())
}

/// The ids that are open by one source's word, sorted.
///
/// # Errors
/// The database's.
pub fn ids(
    connection: &Connection,
    instance: i64,
    source: Source,
) -> rusqlite::Result<Vec<DriftId>> {
    connection
        .prepare_cached("SELECT id FROM drifts WHERE instance = ?1 AND source = ?2 ORDER BY id")?
        .query_map((instance, source as i64), |row| {
            Ok(DriftId(Blake3::from_bytes(row.get(0)?)))
        })?
        .collect()
}

/// The digest of what is open by the agent's word.
///
/// # Errors
/// The database's.
pub fn digest(connection: &Connection, instance: i64) -> rusqlite::Result<Blake3> {
    ids(connection, instance, Source::Agent).map(set_digest)
}

/// What is open in sum.
///
/// # Errors
/// The database's.
pub fn sum(connection: &Connection, instance: i64) -> rusqlite::Result<Sum> {
    connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE source = 0), count(*) FILTER (WHERE source > 0), max(severity)
             FROM drifts WHERE instance = ?1",
        )?
        .query_row([instance], |row| {
            Ok(Sum { open: from_stored(row.get(0)?), raised: from_stored(row.get(1)?), rank: row.get(2)? })
        })
}

/// Keeps the whole drift of the gravest [`ROWS`] only, the oldest of those that are as grave.
///
/// # Errors
/// The database's.
pub fn thin_out(tx: &Transaction<'_>, instance: i64) -> rusqlite::Result<()> {
    let whole: i64 = tx
        .prepare_cached(
            "SELECT count(*) FROM drifts WHERE instance = ?1 AND source = 0 AND drift IS NOT NULL",
        )?
        .query_row([instance], |row| row.get(0))?;
    let excess = from_stored(whole).saturating_sub(ROWS);
    if excess > 0 {
        tx.prepare_cached(
            "UPDATE drifts SET drift = NULL, package = NULL WHERE instance = ?1 AND source = 0 AND id IN (
                 SELECT id FROM drifts WHERE instance = ?1 AND source = 0 AND drift IS NOT NULL
                 ORDER BY severity, opened_at_ms DESC, id LIMIT ?2)",
        )?
        .execute((instance, to_stored(excess)))?;
    }
    Ok(())
}

/// What is open on an instance, the gravest first, at most `limit`.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection, instance: i64, limit: u32) -> rusqlite::Result<Vec<Opened>> {
    connection
        .prepare_cached(
            "SELECT id, source, severity, opened_at_ms, drift, package FROM drifts WHERE instance = ?1
             ORDER BY source = 0, severity DESC, opened_at_ms, id LIMIT ?2",
        )?
        .query_map((instance, limit), read)?
        .collect()
}

/// Whether the host's package database says anything of what is open.
///
/// # Errors
/// The database's.
pub fn is_labelled(connection: &Connection, instance: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM drifts WHERE instance = ?1 AND package IS NOT NULL LIMIT 1")?
        .exists([instance])
}

/// Drifts that are open on at least `least` instances of a fleet: the same path, kind and content is one cause.
///
/// # Errors
/// The database's.
pub fn shared(
    connection: &Connection,
    fleet: &str,
    least: u32,
) -> rusqlite::Result<Vec<(DriftId, u64)>> {
    connection
        .prepare_cached(
            "SELECT drifts.id, count(*) AS many FROM drifts JOIN instances ON instances.row = drifts.instance
             WHERE instances.fleet = ?1 AND instances.standing = 'active'
             GROUP BY drifts.id HAVING many >= ?2 ORDER BY many DESC LIMIT 1000",
        )?
        .query_map((fleet, least), |row| Ok((DriftId(Blake3::from_bytes(row.get(0)?)), from_stored(row.get(1)?))))?
        .collect()
}

/// Keeps a moment, unless it is kept. Whether it is new.
///
/// # Errors
/// The database's.
pub fn add_moment(
    tx: &Transaction<'_>,
    instance: i64,
    run: i64,
    moment: &Moment,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let text = kept_text(&moment.drift).unwrap_or_else(|| "null".to_owned());
    let added = tx
        .prepare_cached(
            "INSERT INTO moments (instance, run_number, number, received_at_ms, agent_clock_ms, drift)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute((instance, run, to_stored(moment.number), now_ms, moment.agent_clock_milliseconds, text))?;
    Ok(added > 0)
}

/// Drops the oldest moments of an instance that has `count` of them; how many it has then.
///
/// # Errors
/// The database's.
pub fn forget_moments(tx: &Transaction<'_>, instance: i64, count: u64) -> rusqlite::Result<u64> {
    if count <= MOMENTS + MOMENTS_SLACK {
        return Ok(count);
    }
    let dropped = tx
        .prepare_cached(
            "DELETE FROM moments WHERE instance = ?1 AND (run_number, number) IN (
                 SELECT run_number, number FROM moments WHERE instance = ?1
                 ORDER BY received_at_ms, run_number, number LIMIT ?2)",
        )?
        .execute((instance, to_stored(count - MOMENTS)))?;
    Ok(count.saturating_sub(dropped as u64))
}

/// A moment as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// When it came.
    pub received_at_ms: i64,
    /// When it was, by the agent's clock.
    pub agent_clock_ms: i64,
    /// What it was; none if it was too long to be kept.
    pub drift: Option<Drift>,
}

/// The latest moments of an instance, at most `limit`.
///
/// # Errors
/// The database's.
pub fn moments(connection: &Connection, instance: i64, limit: u32) -> rusqlite::Result<Vec<Kept>> {
    connection
        .prepare_cached(
            "SELECT received_at_ms, agent_clock_ms, drift FROM moments WHERE instance = ?1
             ORDER BY received_at_ms DESC, run_number DESC, number DESC LIMIT ?2",
        )?
        .query_map((instance, limit), |row| {
            let text: String = row.get(2)?;
            Ok(Kept {
                received_at_ms: row.get(0)?,
                agent_clock_ms: row.get(1)?,
                drift: serde_json::from_str(&text).ok(),
            })
        })?
        .collect()
}

/// A value as it was held first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Where.
    pub path: TreePath,
    /// What was there.
    pub value: Option<Blake3>,
    /// With an append-only file: how long it was.
    pub length: Option<u64>,
}

/// The values that were fixed, in path order.
///
/// # Errors
/// The database's.
pub fn held(connection: &Connection, instance: i64) -> rusqlite::Result<Vec<First>> {
    let mut statement = connection
        .prepare_cached("SELECT path, value, length FROM held WHERE instance = ?1 ORDER BY path")?;
    let mut rows = statement.query([instance])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        // What was checked when it came is checked again when it is read: the file may be altered by hand.
        let Ok(path) = TreePath::new(&row.get::<_, Vec<u8>>(0)?) else {
            continue;
        };
        let value = row.get::<_, Option<[u8; 32]>>(1)?.map(Blake3::from_bytes);
        held.push(First {
            path,
            value,
            length: row.get::<_, Option<i64>>(2)?.map(from_stored),
        });
    }
    Ok(held)
}

/// Fixes a value; of an append-only file what the agent held of it before, if an earlier report was lost.
///
/// # Errors
/// The database's.
pub fn hold(tx: &Transaction<'_>, instance: i64, held: &HeldValue) -> rusqlite::Result<()> {
    let before = held.prefix.as_ref();
    let (value, length) = match before.and_then(|prefix| Some((prefix.digest?, prefix.length))) {
        Some((digest, length)) => (Some(digest), Some(length)),
        None => (held.value, held.length),
    };
    tx.prepare_cached(
        "INSERT INTO held (instance, path, value, length) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?
    .execute((
        instance,
        held.path.as_bytes(),
        value.as_ref().map(Blake3::as_bytes),
        length.map(to_stored),
    ))?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Opened> {
    let drift: Option<String> = row.get(4)?;
    let package: Option<String> = row.get(5)?;
    Ok(Opened {
        package: package.and_then(|text| serde_json::from_str(&text).ok()),
        id: DriftId(Blake3::from_bytes(row.get(0)?)),
        raised: row.get::<_, i64>(1)? != Source::Agent as i64,
        rank: row.get(2)?,
        opened_at_ms: row.get(3)?,
        drift: drift.and_then(|text| serde_json::from_str(&text).ok()),
    })
}
