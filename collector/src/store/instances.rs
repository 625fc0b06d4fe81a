//! Instances, by id, cloud id and key.

use drift::Blake3;
use drift::report::{ImageRef, Phase, RunId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, named_params};

use crate::instance::{Hold, Instance, Standing, severity};

/// What is known of an instance when it enrols.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The id that was drawn for it.
    pub id: String,
    /// Its fleet.
    pub fleet: String,
    /// Its cloud id, if it has or claims one.
    pub cloud_id: Option<String>,
    /// Whether the token was made for that very id.
    pub proven: bool,
    /// The token's id.
    pub token: String,
    /// SHA-256 of its key.
    pub public_key: [u8; 32],
    /// The image that it says it was baked from.
    pub image: Option<ImageRef>,
    /// Its boot.
    pub boot_id: String,
    /// When its certificate ends.
    pub certificate_until_ms: i64,
}

const COLUMNS: &str = "row, id, fleet, cloud_id, proven, public_key, standing, standing_reason, standing_since_ms, \
    hold_reason, hold_by, hold_at_ms, renewal_until_ms, enrolled_at_ms, certificate_until_ms, image_name, \
    image_version, image_build, image_manifest, image_known, heard_at_ms, run, run_number, sequence, generation, \
    phase, boot_id, agent_version, reported_manifest, unverifiable, first_scan, dropped_moments, open_count, \
    set_digest, overflow, raised_count, severity, drifted_since_ms, clean_since_ms, held_fixed, held_unproven, \
    moment_count";

/// Adds one.
///
/// # Errors
/// The database's.
pub fn insert(tx: &Transaction<'_>, enrolled: &Enrolled, now_ms: i64) -> rusqlite::Result<()> {
    let image = enrolled.image.as_ref();
    tx.prepare_cached(
        "INSERT INTO instances (id, fleet, cloud_id, proven, token, public_key, enrolled_at_ms, certificate_until_ms,
             image_name, image_version, image_build, image_manifest, boot_id)
         VALUES (:id, :fleet, :cloud_id, :proven, :token, :public_key, :now, :until,
             :name, :version, :build, :manifest, :boot_id)",
    )?
    .execute(named_params! {
        ":id": enrolled.id, ":fleet": enrolled.fleet, ":cloud_id": enrolled.cloud_id, ":proven": enrolled.proven,
        ":token": enrolled.token, ":public_key": enrolled.public_key, ":now": now_ms,
        ":until": enrolled.certificate_until_ms, ":name": image.map(|image| &image.name),
        ":version": image.map(|image| &image.version), ":build": image.map(|image| &image.build),
        ":manifest": image.map(|image| image.manifest.as_bytes()), ":boot_id": enrolled.boot_id,
    })?;
    Ok(())
}

/// The instance with this id.
///
/// # Errors
/// The database's.
pub fn by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<Instance>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM instances WHERE id = ?1"))?
        .query_row([id], read)
        .optional()
}

/// All instances, in the order in which they enrolled.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> rusqlite::Result<Vec<Instance>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM instances ORDER BY row"))?
        .query_map([], read)?
        .collect()
}

/// Instances after `after`, in the order in which they enrolled, of one fleet or all, at most `limit`.
///
/// # Errors
/// The database's.
pub fn page(
    connection: &Connection,
    fleet: Option<&str>,
    after: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Instance>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM instances WHERE row > ?1 AND (?2 IS NULL OR fleet = ?2) ORDER BY row LIMIT ?3"
        ))?
        .query_map((after, fleet, limit), read)?
        .collect()
}

/// The instances that have, or claim, this cloud id.
///
/// # Errors
/// The database's.
pub fn by_cloud_id(connection: &Connection, cloud_id: &str) -> rusqlite::Result<Vec<Instance>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM instances WHERE cloud_id = ?1 ORDER BY row"
        ))?
        .query_map([cloud_id], read)?
        .collect()
}

/// The instance that enrolled with this token and this key.
///
/// # Errors
/// The database's.
pub fn by_token_and_key(
    connection: &Connection,
    token: &str,
    public_key: &[u8; 32],
) -> rusqlite::Result<Option<Instance>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM instances WHERE token = ?1 AND public_key = ?2"
        ))?
        .query_row((token, public_key), read)
        .optional()
}

/// Whether this key has an identity already.
///
/// # Errors
/// The database's.
pub fn key_is_known(connection: &Connection, public_key: &[u8; 32]) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM instances WHERE public_key = ?1 LIMIT 1")?
        .exists([public_key])
}

/// The latest coverage that an instance reported, as JSON.
///
/// # Errors
/// The database's.
pub fn coverage(connection: &Connection, row: i64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT coverage FROM instances WHERE row = ?1")?
        .query_row([row], |row| row.get(0))
}

/// Notes when an instance's new certificate ends, and that an operator's leave to renew is used up.
///
/// # Errors
/// The database's.
pub fn renewed(tx: &Transaction<'_>, row: i64, until_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET certificate_until_ms = ?2, renewal_until_ms = NULL WHERE row = ?1",
    )?
    .execute((row, until_ms))?;
    Ok(())
}

/// Takes an instance out, or, with [`Standing::Active`], back in. Whether there was one.
///
/// # Errors
/// The database's.
pub fn set_standing(
    tx: &Transaction<'_>,
    id: &str,
    standing: Standing,
    reason: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE instances SET standing = ?2, standing_reason = ?3, standing_since_ms = ?4 WHERE id = ?1",
        )?
        .execute((id, standing.word(), reason, now_ms))?;
    Ok(changed > 0)
}

/// Sets or lifts the hold on an instance.
///
/// # Errors
/// The database's.
pub fn set_hold(tx: &Transaction<'_>, row: i64, hold: Option<&Hold>) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE instances SET hold_reason = ?2, hold_by = ?3, hold_at_ms = ?4 WHERE row = ?1",
    )?
    .execute((
        row,
        hold.map(|hold| &hold.reason),
        hold.map(|hold| &hold.by),
        hold.map(|hold| hold.at_ms),
    ))?;
    Ok(())
}

/// Lets an expired certificate be renewed until then.
///
/// # Errors
/// The database's.
pub fn allow_renewal(tx: &Transaction<'_>, row: i64, until_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE instances SET renewal_until_ms = ?2 WHERE row = ?1")?
        .execute((row, until_ms))?;
    Ok(())
}

/// Stores what a report made of an instance: everything in `instance` that reports change, and its coverage where it
/// is new.
///
/// # Errors
/// The database's.
pub fn store_reported(
    tx: &Transaction<'_>,
    instance: &Instance,
    coverage: Option<&str>,
) -> rusqlite::Result<()> {
    let image = instance.image.as_ref();
    tx.prepare_cached(
        "UPDATE instances SET image_name = :name, image_version = :version, image_build = :build,
             image_manifest = :manifest, image_known = :known, heard_at_ms = :heard, run = :run,
             run_number = :run_number, sequence = :sequence, generation = :generation, phase = :phase,
             boot_id = :boot_id, agent_version = :agent_version, reported_manifest = :reported,
             unverifiable = :unverifiable, coverage = coalesce(:coverage, coverage), first_scan = :first_scan,
             dropped_moments = :dropped, open_count = :open, set_digest = :set_digest, overflow = :overflow,
             raised_count = :raised, severity = :severity, drifted_since_ms = :drifted_since,
             clean_since_ms = :clean_since, held_fixed = :held_fixed, held_unproven = :held_unproven,
             moment_count = :moments
         WHERE row = :row",
    )?
    .execute(named_params! {
        ":row": instance.row, ":name": image.map(|image| &image.name), ":version": image.map(|image| &image.version),
        ":build": image.map(|image| &image.build), ":manifest": image.map(|image| image.manifest.as_bytes()),
        ":known": instance.image_known, ":heard": instance.heard_at_ms, ":run": instance.run.map(|run| run.0),
        ":run_number": instance.run_number, ":sequence": to_stored(instance.sequence),
        ":generation": to_stored(instance.generation), ":phase": instance.phase.map(phase_word),
        ":boot_id": instance.boot_id, ":agent_version": instance.agent_version,
        ":reported": instance.reported_manifest.as_ref().map(Blake3::as_bytes),
        ":unverifiable": instance.unverifiable, ":coverage": coverage, ":first_scan": instance.first_scan,
        ":dropped": to_stored(instance.dropped_moments), ":open": to_stored(instance.open),
        ":set_digest": instance.set_digest.as_ref().map(Blake3::as_bytes), ":overflow": instance.overflow,
        ":raised": to_stored(instance.raised), ":severity": instance.severity.as_ref().map(crate::instance::rank),
        ":drifted_since": instance.drifted_since_ms, ":clean_since": instance.clean_since_ms,
        ":held_fixed": instance.held_fixed, ":held_unproven": to_stored(instance.held_unproven),
        ":moments": to_stored(instance.moments),
    })?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Instance> {
    Ok(Instance {
        row: row.get("row")?,
        id: row.get("id")?,
        fleet: row.get("fleet")?,
        cloud_id: row.get("cloud_id")?,
        proven: row.get("proven")?,
        public_key: row.get("public_key")?,
        standing: word(row, "standing", Standing::from_word)?,
        standing_reason: row.get("standing_reason")?,
        standing_since_ms: row.get("standing_since_ms")?,
        hold: hold(row)?,
        renewal_until_ms: row.get("renewal_until_ms")?,
        enrolled_at_ms: row.get("enrolled_at_ms")?,
        certificate_until_ms: row.get("certificate_until_ms")?,
        image: image(row)?,
        image_known: row.get("image_known")?,
        heard_at_ms: row.get("heard_at_ms")?,
        run: row.get::<_, Option<[u8; 16]>>("run")?.map(RunId),
        run_number: row.get("run_number")?,
        sequence: from_stored(row.get("sequence")?),
        generation: from_stored(row.get("generation")?),
        phase: row
            .get::<_, Option<String>>("phase")?
            .map(|word| phase_of(&word)),
        boot_id: row.get("boot_id")?,
        agent_version: row.get("agent_version")?,
        reported_manifest: row
            .get::<_, Option<[u8; 32]>>("reported_manifest")?
            .map(Blake3::from_bytes),
        unverifiable: row.get("unverifiable")?,
        first_scan: row.get("first_scan")?,
        dropped_moments: from_stored(row.get("dropped_moments")?),
        open: from_stored(row.get("open_count")?),
        set_digest: row
            .get::<_, Option<[u8; 32]>>("set_digest")?
            .map(Blake3::from_bytes),
        overflow: row.get("overflow")?,
        raised: from_stored(row.get("raised_count")?),
        severity: row.get::<_, Option<i64>>("severity")?.map(severity),
        drifted_since_ms: row.get("drifted_since_ms")?,
        clean_since_ms: row.get("clean_since_ms")?,
        held_fixed: row.get("held_fixed")?,
        held_unproven: from_stored(row.get("held_unproven")?),
        moments: from_stored(row.get("moment_count")?),
    })
}

fn hold(row: &Row<'_>) -> rusqlite::Result<Option<Hold>> {
    let Some(reason) = row.get("hold_reason")? else {
        return Ok(None);
    };
    Ok(Some(Hold {
        reason,
        by: row.get("hold_by")?,
        at_ms: row.get("hold_at_ms")?,
    }))
}

fn image(row: &Row<'_>) -> rusqlite::Result<Option<ImageRef>> {
    let Some(name) = row.get("image_name")? else {
        return Ok(None);
    };
    Ok(Some(ImageRef {
        name,
        version: row.get("image_version")?,
        build: row.get("image_build")?,
        manifest: Blake3::from_bytes(row.get("image_manifest")?),
    }))
}

fn word<T>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(
            0,
            Type::Text,
            format!("`{text}` is no {column}").into(),
        )
    })
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopped => "stopped",
        Phase::Unknown => "unknown",
    }
}

fn phase_of(word: &str) -> Phase {
    match word {
        "starting" => Phase::Starting,
        "running" => Phase::Running,
        "stopped" => Phase::Stopped,
        _ => Phase::Unknown,
    }
}

/// SQLite counts to `i64::MAX`; so do we.
pub(super) fn to_stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The reverse of [`to_stored`].
pub(super) fn from_stored(count: i64) -> u64 {
    count.max(0).unsigned_abs()
}
