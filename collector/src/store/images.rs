//! Receives registered builds, keys and what channels were pointed to, and hands on what is known of each.

use std::collections::{BTreeMap, BTreeSet};

use drift::key::TrustedKey;
use drift::report::ImageRef;
use drift::{Blake3, Sha256};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use crate::image::{
    self, Assignment, Build, Registered, ShownAssignment, ShownBuild, ShownKey, Version,
};
use crate::judge::LastGood;

use super::artifacts;

/// What is registered under a name, version and build.
///
/// # Errors
/// Whatever the database gives.
pub fn lookup(
    db: &Connection,
    name: &str,
    version: &str,
    build: &str,
) -> rusqlite::Result<Option<Registered>> {
    db.prepare_cached("SELECT blake3 FROM builds WHERE name = ?1 AND version = ?2 AND build = ?3")?
        .query_row([name, version, build], |row| {
            Ok(Registered {
                digest: Blake3::from_bytes(row.get(0)?),
            })
        })
        .optional()
}

/// The digest that is registered under a name, version and build.
///
/// # Errors
/// Whatever the database gives.
pub fn registered_manifest(
    db: &Connection,
    name: &str,
    version: &str,
    build: &str,
) -> rusqlite::Result<Option<Blake3>> {
    Ok(lookup(db, name, version, build)?.map(|registered| registered.digest))
}

/// A build that is to be registered.
#[derive(Debug)]
pub struct NewBuild {
    /// Name, version, build and digest.
    pub image: ImageRef,
    /// The digest that the rest of the world speaks.
    pub sha256: Sha256,
    /// Entries in the manifest.
    pub entries: u64,
    /// The signature, as it came.
    pub envelope: String,
    /// The statement in it, as JSON.
    pub statement: String,
    /// The trusted keys that signed it.
    pub signers: Vec<String>,
    /// When the version expires; kept from its first build on.
    pub expires_at_ms: Option<i64>,
}

/// Registers a build that is not there yet.
///
/// # Errors
/// Whatever the database gives.
pub fn register(
    tx: &Transaction<'_>,
    new: &NewBuild,
    by: &str,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let ImageRef {
        name,
        version,
        build,
        manifest,
    } = &new.image;
    tx.execute(
        "INSERT INTO versions (name, version, added_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
        params![name, version, now_ms, new.expires_at_ms],
    )?;
    tx.execute(
        "INSERT INTO builds (name, version, build, blake3, sha256, entries, envelope, statement, added_at_ms, added_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            name,
            version,
            build,
            manifest.as_bytes(),
            new.sha256.as_bytes(),
            i64::try_from(new.entries).unwrap_or(i64::MAX),
            new.envelope,
            new.statement,
            now_ms,
            by
        ],
    )?;
    for key in &new.signers {
        sign(tx, &new.image, key)?;
    }
    Ok(())
}

/// Notes that a key signed a build: one that is registered can gain signatures by further keys.
///
/// # Errors
/// Whatever the database gives.
pub fn sign(tx: &Transaction<'_>, image: &ImageRef, key: &str) -> rusqlite::Result<()> {
    let signed = params![image.name, image.version, image.build, key];
    tx.execute("INSERT INTO signers (name, version, build, key) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING", signed)?;
    Ok(())
}

/// Whether a version is registered.
///
/// # Errors
/// Whatever the database gives.
pub fn has_version(db: &Connection, name: &str, version: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM versions WHERE name = ?1 AND version = ?2")?
        .exists([name, version])
}

/// Revokes a version, or restores it where there is no reason; `false` where nothing changed.
///
/// # Errors
/// Whatever the database gives.
pub fn set_revoked(
    tx: &Transaction<'_>,
    name: &str,
    version: &str,
    revoked: Option<(&str, &str)>,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let (by, reason) = revoked.unzip();
    let changed = tx.execute(
        "UPDATE versions SET revoked_at_ms = ?3, revoked_by = ?4, revoked_reason = ?5
         WHERE name = ?1 AND version = ?2 AND (revoked_at_ms IS NULL) = (?3 IS NOT NULL)",
        params![name, version, revoked.map(|_| now_ms), by, reason],
    )?;
    Ok(changed > 0)
}

/// Points a channel to a version.
///
/// # Errors
/// Whatever the database gives.
pub fn assign(
    tx: &Transaction<'_>,
    channel: &str,
    name: &str,
    version: &str,
    by: &str,
    reason: &str,
    now_ms: i64,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO assignments (channel, name, version, at_ms, by, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![channel, name, version, now_ms, by, reason],
    )?;
    Ok(())
}

/// The names of all channels.
///
/// # Errors
/// Whatever the database gives.
pub fn channels(db: &Connection) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT DISTINCT channel FROM assignments ORDER BY channel")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// What a channel was pointed to, oldest first.
///
/// # Errors
/// Whatever the database gives.
pub fn history(db: &Connection, channel: &str) -> rusqlite::Result<Vec<ShownAssignment>> {
    db.prepare_cached("SELECT name, version, at_ms, by, reason FROM assignments WHERE channel = ?1 ORDER BY number")?
        .query_map([channel], |row| {
            Ok(ShownAssignment {
                name: row.get(0)?,
                version: row.get(1)?,
                at_ms: row.get(2)?,
                by: row.get(3)?,
                reason: row.get(4)?,
            })
        })?
        .collect()
}

/// The last good image of a channel, or why there is none.
///
/// # Errors
/// Whatever the database gives.
pub fn last_good(
    db: &Connection,
    channel: &str,
    now_ms: i64,
) -> rusqlite::Result<Result<LastGood, String>> {
    let history: Vec<Assignment> = history(db, channel)?
        .into_iter()
        .map(|assigned| Assignment {
            name: assigned.name,
            version: assigned.version,
        })
        .collect();
    let mut versions: Vec<Version> = Vec::new();
    for assigned in &history {
        let known = |version: &Version| {
            version.name == assigned.name && version.version == assigned.version
        };
        if !versions.iter().any(known) {
            versions.extend(version(db, &assigned.name, &assigned.version)?);
        }
    }
    Ok(image::last_good(
        channel,
        &history,
        &versions,
        &revoked_keys(db)?,
        now_ms,
    ))
}

fn version(db: &Connection, name: &str, version: &str) -> rusqlite::Result<Option<Version>> {
    let held = db
        .prepare_cached("SELECT revoked_at_ms IS NOT NULL, expires_at_ms FROM versions WHERE name = ?1 AND version = ?2")?
        .query_row([name, version], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((revoked, expires_ms)) = held else {
        return Ok(None);
    };
    let mut statement = db.prepare_cached(
        "SELECT build, blake3, (SELECT json_group_array(key) FROM signers
            WHERE signers.name = builds.name AND signers.version = builds.version AND signers.build = builds.build)
         FROM builds WHERE name = ?1 AND version = ?2",
    )?;
    let builds: rusqlite::Result<BTreeMap<String, Build>> = statement
        .query_map([name, version], |row| {
            Ok((
                row.get(0)?,
                Build {
                    manifest: Blake3::from_bytes(row.get(1)?),
                    signers: strings(row, 2)?,
                },
            ))
        })?
        .collect();
    Ok(Some(Version {
        name: name.into(),
        version: version.into(),
        revoked,
        expires_ms,
        builds: builds?,
    }))
}

/// Registered builds, the newest first: all, or those of one name, version and build.
///
/// # Errors
/// Whatever the database gives.
pub fn builds(
    db: &Connection,
    name: Option<&str>,
    version: Option<&str>,
    build: Option<&str>,
) -> rusqlite::Result<Vec<ShownBuild>> {
    let revoked = revoked_keys(db)?;
    let channels = currently(db)?;
    db.prepare_cached(
        "SELECT b.name, b.version, b.build, b.blake3, b.sha256, b.entries, b.added_at_ms, b.added_by,
            v.revoked_at_ms, v.revoked_reason, v.expires_at_ms, b.statement,
            (SELECT json_group_array(key) FROM signers s
                WHERE s.name = b.name AND s.version = b.version AND s.build = b.build)
         FROM builds b JOIN versions v USING (name, version)
         WHERE (?1 IS NULL OR b.name = ?1) AND (?2 IS NULL OR b.version = ?2) AND (?3 IS NULL OR b.build = ?3)
         ORDER BY b.added_at_ms DESC, b.name, b.version, b.build LIMIT ?4",
    )?
    .query_map(params![name, version, build, MAX_LISTED], |row| {
        let signers = strings(row, 12)?;
        let (name, version, build): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(ShownBuild {
            channels: channels.get(&(name.clone(), version.clone())).cloned().unwrap_or_default(),
            artifacts: artifacts::of_build(db, &name, &version, &build)?,
            name,
            version,
            build,
            blake3: Blake3::from_bytes(row.get(3)?),
            sha256: Sha256::from_bytes(row.get(4)?),
            entries: row.get::<_, i64>(5)?.unsigned_abs(),
            revoked_signers: signers.iter().filter(|key| revoked.contains(*key)).cloned().collect(),
            signers,
            added_at_ms: row.get(6)?,
            added_by: row.get(7)?,
            revoked_at_ms: row.get(8)?,
            revoked_reason: row.get(9)?,
            expires_at_ms: row.get(10)?,
            statement: json(&row.get::<_, String>(11)?),
        })
    })?
    .collect()
}

/// Which channels give out which versions now.
fn currently(db: &Connection) -> rusqlite::Result<BTreeMap<(String, String), Vec<String>>> {
    let mut current: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut statement = db.prepare_cached(
        "SELECT channel, name, version FROM assignments
         WHERE number IN (SELECT max(number) FROM assignments GROUP BY channel) ORDER BY channel",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        current
            .entry((row.get(1)?, row.get(2)?))
            .or_default()
            .push(row.get(0)?);
    }
    Ok(current)
}

/// Adds a key that may sign images; `false` if it is known, revoked or not.
///
/// # Errors
/// Whatever the database gives.
pub fn add_key(
    tx: &Transaction<'_>,
    key: &TrustedKey,
    by: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let added = tx.execute(
        "INSERT INTO keys (id, spki, added_at_ms, added_by) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![key.id().to_string(), key.spki(), now_ms, by],
    )?;
    Ok(added > 0)
}

/// Revokes a key for good; `false` if it is not there or was revoked before.
///
/// # Errors
/// Whatever the database gives.
pub fn revoke_key(
    tx: &Transaction<'_>,
    id: &str,
    by: &str,
    reason: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = tx.execute(
        "UPDATE keys SET revoked_at_ms = ?2, revoked_by = ?3, revoked_reason = ?4
         WHERE id = ?1 AND revoked_at_ms IS NULL",
        params![id, now_ms, by, reason],
    )?;
    Ok(changed > 0)
}

/// The keys whose signatures count now.
///
/// # Errors
/// Whatever the database gives.
pub fn trusted_keys(db: &Connection) -> rusqlite::Result<Vec<TrustedKey>> {
    keys_of(db, "SELECT spki FROM keys WHERE revoked_at_ms IS NULL")
}

/// The keys whose signatures counted once: only to say so where one is met.
///
/// # Errors
/// Whatever the database gives.
pub fn former_keys(db: &Connection) -> rusqlite::Result<Vec<TrustedKey>> {
    keys_of(db, "SELECT spki FROM keys WHERE revoked_at_ms IS NOT NULL")
}

fn keys_of(db: &Connection, statement: &str) -> rusqlite::Result<Vec<TrustedKey>> {
    let keys: rusqlite::Result<Vec<Vec<u8>>> = db
        .prepare(statement)?
        .query_map([], |row| row.get(0))?
        .collect();
    Ok(keys?
        .iter()
        .filter_map(|spki| TrustedKey::from_spki(spki).ok())
        .collect())
}

/// All keys, oldest first.
///
/// # Errors
/// Whatever the database gives.
pub fn keys(db: &Connection) -> rusqlite::Result<Vec<ShownKey>> {
    db.prepare("SELECT id, spki, added_at_ms, added_by, revoked_at_ms, revoked_reason FROM keys ORDER BY added_at_ms, id")?
        .query_map([], |row| {
            let key = TrustedKey::from_spki(&row.get::<_, Vec<u8>>(1)?).ok();
            let algorithm = key.map_or("unknown", |key| match key.algorithm() {
                drift::key::Algorithm::Ed25519 => "ed25519",
                drift::key::Algorithm::EcdsaP256 => "ecdsa-p256",
            });
            Ok(ShownKey {
                id: row.get(0)?,
                algorithm: algorithm.into(),
                added_at_ms: row.get(2)?,
                added_by: row.get(3)?,
                revoked_at_ms: row.get(4)?,
                revoked_reason: row.get(5)?,
            })
        })?
        .collect()
}

fn revoked_keys(db: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    db.prepare_cached("SELECT id FROM keys WHERE revoked_at_ms IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn strings(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The most builds in one list.
const MAX_LISTED: u32 = 10_000;
