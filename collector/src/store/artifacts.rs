//! Receives statements of what builds are called where they run, and hands them on: by build, and builds by id.

use std::collections::BTreeMap;

use drift::Sha256;
use drift::statement::{Predicate, Statement};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::image::artifact::{Said, Subject};

/// The most statements of one build: far more than there are platforms and accounts.
pub const MAX_OF_A_BUILD: i64 = 64;

/// What a build is called on one platform, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownArtifact {
    /// Where it runs: `aws`, `azure`, `gcp`, `qemu`, `docker`, `mkosi`, or what an operator says.
    pub platform: String,
    /// What it is called there, by kind or region.
    pub ids: BTreeMap<String, String>,
    /// Root hash of its dm-verity tree.
    pub verity_root_hash: Option<String>,
    /// Whose output it was read from: `packer`, `azure-image-builder`, `ec2-image-builder`, `mkosi`, `docker`,
    /// `driftmark` or `driftmark-signed`.
    pub format: String,
    /// The keys that signed it. Without one it is an operator's word.
    pub signers: Vec<String>,
    /// Those of them that are revoked.
    pub revoked_signers: Vec<String>,
    /// When it was added, in milliseconds since 1970.
    pub added_at_ms: i64,
    /// By whom.
    pub added_by: String,
}

/// Why a statement is not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// An id of another build.
    #[error(
        "artifact {id} belongs to {name} {version} ({build}) already, and an artifact is of one build: \
         nothing was added"
    )]
    Taken {
        /// The id.
        id: String,
        /// The other build.
        name: String,
        /// See `name`.
        version: String,
        /// See `name`.
        build: String,
    },
    /// More than [`MAX_OF_A_BUILD`].
    #[error("a build has at most {MAX_OF_A_BUILD} artifacts: nothing was added")]
    TooMany,
    /// The database.
    #[error("keep an artifact")]
    Statement(#[from] rusqlite::Error),
}

/// Whether all ids of a statement are free, or this build's.
///
/// # Errors
/// [`NotKept::Taken`], and the database's.
pub fn check(db: &Connection, of: &Subject, said: &Said) -> Result<(), NotKept> {
    for id in said.statements.iter().flat_map(ids) {
        if let Some((name, version, build)) = owner(db, &id)?
            && (&name, &version, &build) != (&of.name, &of.version, &of.build)
        {
            return Err(NotKept::Taken {
                id,
                name,
                version,
                build,
            });
        }
    }
    Ok(())
}

/// Keeps what a file says of a build; how many of its statements or signatures are new.
///
/// # Errors
/// See [`NotKept`]; the caller undoes the transaction.
pub fn add(
    tx: &Transaction<'_>,
    of: &Subject,
    said: &Said,
    by: &str,
    now_ms: i64,
) -> Result<usize, NotKept> {
    check(tx, of, said)?;
    let mut news = 0;
    for statement in &said.statements {
        let Predicate::Artifact(artifact) = &statement.predicate else {
            continue;
        };
        let text = String::from_utf8_lossy(&statement.to_json()).into_owned();
        news += tx.execute(
            "INSERT INTO artifacts
                (name, version, build, platform, format, statement, envelope, added_at_ms, added_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET envelope = excluded.envelope, format = excluded.format
                WHERE envelope IS NULL AND excluded.envelope IS NOT NULL",
            params![
                of.name,
                of.version,
                of.build,
                artifact.platform.as_str(),
                said.format.word(),
                text,
                said.envelope,
                now_ms,
                by
            ],
        )?;
        let number: i64 = tx.query_row(
            "SELECT number FROM artifacts WHERE name = ?1 AND version = ?2 AND build = ?3 AND statement = ?4",
            [&of.name, &of.version, &of.build, &text],
            |row| row.get(0),
        )?;
        for key in &said.signers {
            news += tx.execute(
                "INSERT INTO artifact_signers (artifact, key) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![number, key],
            )?;
        }
        for id in ids(statement) {
            tx.execute(
                "INSERT INTO artifact_ids (folded, name, version, build) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
                [&folded(&id), &of.name, &of.version, &of.build],
            )?;
        }
    }
    let count: i64 = tx.query_row(
        "SELECT count(*) FROM artifacts WHERE name = ?1 AND version = ?2 AND build = ?3",
        [&of.name, &of.version, &of.build],
        |row| row.get(0),
    )?;
    if count > MAX_OF_A_BUILD {
        return Err(NotKept::TooMany);
    }
    Ok(news)
}

/// The build that an artifact is of: name, version and build.
///
/// # Errors
/// The database's.
pub fn owner(db: &Connection, id: &str) -> rusqlite::Result<Option<(String, String, String)>> {
    db.prepare_cached("SELECT name, version, build FROM artifact_ids WHERE folded = ?1")?
        .query_row([folded(id)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()
}

/// What a build is called, the latest first.
///
/// # Errors
/// The database's.
pub fn of_build(
    db: &Connection,
    name: &str,
    version: &str,
    build: &str,
) -> rusqlite::Result<Vec<ShownArtifact>> {
    db.prepare_cached(
        "SELECT statement, format, added_at_ms, added_by,
            (SELECT json_group_array(key) FROM artifact_signers WHERE artifact = number),
            (SELECT json_group_array(key) FROM artifact_signers JOIN keys ON keys.id = key
                WHERE artifact = number AND revoked_at_ms IS NOT NULL)
         FROM artifacts WHERE name = ?1 AND version = ?2 AND build = ?3 ORDER BY number DESC",
    )?
    .query_map([name, version, build], shown)?
    .filter_map(Result::transpose)
    .collect()
}

/// The dm-verity root hashes that a build was sealed with, each once: one for every platform that says one. What only
/// revoked keys signed says nothing.
///
/// # Errors
/// The database's.
pub fn root_hashes(
    db: &Connection,
    name: &str,
    version: &str,
    build: &str,
) -> rusqlite::Result<Vec<Sha256>> {
    let texts: Vec<String> = db
        .prepare_cached(
            "SELECT DISTINCT json_extract(statement, '$.predicate.verityRootHash') AS hash FROM artifacts
             WHERE name = ?1 AND version = ?2 AND build = ?3 AND hash IS NOT NULL
                 AND (envelope IS NULL OR EXISTS (SELECT 1 FROM artifact_signers JOIN keys ON keys.id = key
                     WHERE artifact = number AND revoked_at_ms IS NULL))
             ORDER BY hash",
        )?
        .query_map([name, version, build], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// None where the database was altered by hand: what is read is checked as it was when it came.
fn shown(row: &Row<'_>) -> rusqlite::Result<Option<ShownArtifact>> {
    let statement: String = row.get(0)?;
    let Ok(Statement {
        predicate: Predicate::Artifact(artifact),
        ..
    }) = Statement::from_json(statement.as_bytes())
    else {
        return Ok(None);
    };
    let keys = |column| -> rusqlite::Result<Vec<String>> {
        Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
    };
    Ok(Some(ShownArtifact {
        platform: artifact.platform.as_str().to_owned(),
        ids: artifact
            .ids
            .iter()
            .map(|(kind, id)| (kind.as_str().to_owned(), id.as_str().to_owned()))
            .collect(),
        verity_root_hash: artifact.verity_root_hash.map(|hash| hash.to_string()),
        format: row.get(1)?,
        added_at_ms: row.get(2)?,
        added_by: row.get(3)?,
        signers: keys(4)?,
        revoked_signers: keys(5)?,
    }))
}

fn ids(statement: &Statement) -> Vec<String> {
    match &statement.predicate {
        Predicate::Artifact(artifact) => artifact
            .ids
            .values()
            .map(|id| id.as_str().to_owned())
            .collect(),
        Predicate::Manifest(_) => Vec::new(),
    }
}

fn folded(id: &str) -> String {
    id.to_ascii_lowercase()
}
