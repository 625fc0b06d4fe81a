//! Operator tokens: a digest of each, what it may do, and for which fleets.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::api::{Operator, Role};

/// An operator token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whose it is.
    pub operator: Operator,
    /// When it was made.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// Adds one; false if the name is taken.
///
/// # Errors
/// The database's.
pub fn insert(
    tx: &Transaction<'_>,
    operator: &Operator,
    digest: &blake3::Hash,
    by: &str,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let fleets = operator
        .fleets
        .as_ref()
        .map(|fleets| serde_json::to_string(fleets).expect("a list of strings"));
    let added = tx
        .prepare_cached(
            "INSERT INTO operators (name, digest, role, fleets, created_at_ms, created_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &operator.name,
            digest.as_bytes(),
            operator.role.word(),
            fleets,
            now_ms,
            by,
        ))?;
    Ok(added > 0)
}

/// The operator whose token has this digest, unless it was revoked. Digests are compared in constant time.
///
/// # Errors
/// The database's.
pub fn by_digest(
    connection: &Connection,
    digest: &blake3::Hash,
) -> rusqlite::Result<Option<Operator>> {
    let found = connection
        .prepare_cached("SELECT * FROM operators WHERE digest = ?1 AND revoked_at_ms IS NULL")?
        .query_row([digest.as_bytes()], |row| {
            Ok((row.get::<_, [u8; 32]>("digest")?, read(row)?))
        })
        .optional()?;
    Ok(found
        .filter(|(stored, _)| blake3::Hash::from_bytes(*stored) == *digest)
        .map(|(_, listed)| listed.operator))
}

/// All of them, by name.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> rusqlite::Result<Vec<Listed>> {
    connection
        .prepare_cached("SELECT * FROM operators ORDER BY name")?
        .query_map([], read)?
        .collect()
}

/// Revokes the token with this name; false if there is none that is not.
///
/// # Errors
/// The database's.
pub fn revoke(tx: &Transaction<'_>, name: &str, now_ms: i64) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE operators SET revoked_at_ms = ?2 WHERE name = ?1 AND revoked_at_ms IS NULL",
        )?
        .execute((name, now_ms))?;
    Ok(changed > 0)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let role: String = row.get("role")?;
    let fleets: Option<String> = row.get("fleets")?;
    // What cannot be understood here may do as little as possible.
    let role = Role::from_word(&role).unwrap_or(Role::Viewer);
    let fleets = fleets.map(|fleets| serde_json::from_str(&fleets).unwrap_or_default());
    Ok(Listed {
        operator: Operator {
            name: row.get("name")?,
            role,
            fleets,
        },
        created_at_ms: row.get("created_at_ms")?,
        created_by: row.get("created_by")?,
        revoked_at_ms: row.get("revoked_at_ms")?,
    })
}
