//! Join tokens: a digest of each, and how often it was used.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

/// A join token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name: not a secret.
    pub id: String,
    /// The fleet that its instances belong to.
    pub fleet: String,
    /// The one cloud id that it was made for; whoever enrols with it has that id, proven.
    pub cloud_id: Option<String>,
    /// When it was made.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires_at_ms: i64,
    /// How many instances may enrol with it.
    pub uses_allowed: u32,
    /// How many have.
    pub uses: u32,
}

/// Expired tokens are forgotten after this long: until then a late agent learns what is wrong with its token.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// Adds one, and forgets those that expired long ago.
///
/// # Errors
/// The database's.
pub fn insert(tx: &Transaction<'_>, token: &Token, digest: &blake3::Hash) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM tokens WHERE expires_at_ms < ?1")?
        .execute([token.created_at_ms - KEPT_MS])?;
    tx.prepare_cached(
        "INSERT INTO tokens (id, digest, fleet, cloud_id, created_at_ms, created_by, expires_at_ms, uses_allowed, uses)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        &token.id,
        digest.as_bytes(),
        &token.fleet,
        &token.cloud_id,
        token.created_at_ms,
        &token.created_by,
        token.expires_at_ms,
        token.uses_allowed,
        token.uses,
    ))?;
    Ok(())
}

/// The token with this digest. Digests are compared in constant time.
///
/// # Errors
/// The database's.
pub fn by_digest(
    connection: &Connection,
    digest: &blake3::Hash,
) -> rusqlite::Result<Option<Token>> {
    let found = connection
        .prepare_cached("SELECT * FROM tokens WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| {
            Ok((row.get::<_, [u8; 32]>("digest")?, read(row)?))
        })
        .optional()?;
    Ok(found
        .filter(|(stored, _)| blake3::Hash::from_bytes(*stored) == *digest)
        .map(|(_, token)| token))
}

/// Counts one more use.
///
/// # Errors
/// The database's.
pub fn count_use(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE tokens SET uses = uses + 1 WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// All that are kept, the newest first.
///
/// # Errors
/// The database's.
pub fn list(connection: &Connection) -> rusqlite::Result<Vec<Token>> {
    connection
        .prepare_cached("SELECT * FROM tokens ORDER BY created_at_ms DESC, id LIMIT 1000")?
        .query_map([], read)?
        .collect()
}

/// Ends a token now; the token that was ended, if there was one.
///
/// # Errors
/// The database's.
pub fn revoke(tx: &Transaction<'_>, id: &str, now_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE tokens SET expires_at_ms = min(expires_at_ms, ?2) WHERE id = ?1")?
        .execute((id, now_ms))?;
    Ok(())
}

/// The token with this id.
///
/// # Errors
/// The database's.
pub fn by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<Token>> {
    connection
        .prepare_cached("SELECT * FROM tokens WHERE id = ?1")?
        .query_row([id], read)
        .optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get("id")?,
        fleet: row.get("fleet")?,
        cloud_id: row.get("cloud_id")?,
        created_at_ms: row.get("created_at_ms")?,
        created_by: row.get("created_by")?,
        expires_at_ms: row.get("expires_at_ms")?,
        uses_allowed: row.get("uses_allowed")?,
        uses: row.get("uses")?,
    })
}
