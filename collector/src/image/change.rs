//! Receives operators' decisions about images and keys, carries them out together with their ledger entries, and moves
//! channels back to their last good version.
//!
//! Each function is one transaction's work: decision, consequences and ledger are durable together or not at all.

use rusqlite::{Connection, Transaction};
use serde_json::json;

use crate::ledger::{Entry, append};
use crate::policy::checked::is_name;
use crate::store::images;

/// Who decides what, why and when.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The operator.
    pub by: String,
    /// Why, in a sentence.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub now_ms: i64,
}

/// Why a decision changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nothing of that name.
    #[error("there is no {0}")]
    Unknown(String),
    /// It is so already.
    #[error("{0}")]
    Already(String),
    /// It cannot be.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error("change what is registered")]
    Statement(#[from] rusqlite::Error),
    /// The database, before or after.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// A channel that was pointed elsewhere as a consequence, or that has nothing good left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Moved {
    /// The channel.
    pub channel: String,
    /// The version that it gives out now; none if nothing good is left.
    pub version: Option<String>,
    /// Why there is none, or why it moved.
    pub reason: String,
}

/// Points a channel to a version, which must be good: promoting what is revoked or expired is refused.
///
/// # Errors
/// See [`ChangeError`].
pub fn promote(
    tx: &Transaction<'_>,
    channel: &str,
    name: &str,
    version: &str,
    decided: &Decided,
) -> Result<(), ChangeError> {
    if !is_name(channel) {
        return Err(ChangeError::Refused(format!(
            "`{}` is not a name for a channel",
            drift::escape(channel.as_bytes())
        )));
    }
    if !images::has_version(tx, name, version)? {
        return Err(ChangeError::Unknown(format!("image {name} {version}")));
    }
    let history = images::history(tx, channel)?;
    if let Some(current) = history.last() {
        if current.name != name {
            let own = &current.name;
            return Err(ChangeError::Refused(format!(
                "channel {channel} is of image {own}, not of {name}"
            )));
        }
        if current.version == version {
            return Err(ChangeError::Already(format!(
                "channel {channel} gives out {name} {version} already"
            )));
        }
    }
    images::assign(
        tx,
        channel,
        name,
        version,
        &decided.by,
        &decided.reason,
        decided.now_ms,
    )?;
    let good = images::last_good(tx, channel, decided.now_ms)?;
    if good.as_ref().map(|good| good.version.as_str()) != Ok(version) {
        let why = good
            .err()
            .unwrap_or_else(|| "it is revoked, expired, or signed by revoked keys only".into());
        return Err(ChangeError::Refused(format!(
            "{name} {version} is not good: {why}"
        )));
    }
    let detail = json!({"name": name, "version": version, "before": history.last()});
    note(tx, "channel-promoted", channel, detail, decided)
}

/// Revokes a version, and moves every channel that gives it out back to its last good one.
///
/// # Errors
/// See [`ChangeError`].
pub fn revoke(
    tx: &Transaction<'_>,
    name: &str,
    version: &str,
    decided: &Decided,
) -> Result<Vec<Moved>, ChangeError> {
    if !images::has_version(tx, name, version)? {
        return Err(ChangeError::Unknown(format!("image {name} {version}")));
    }
    let revoked = Some((decided.by.as_str(), decided.reason.as_str()));
    if !images::set_revoked(tx, name, version, revoked, decided.now_ms)? {
        return Err(ChangeError::Already(format!(
            "{name} {version} is revoked already"
        )));
    }
    note(
        tx,
        "image-revoked",
        &format!("{name} {version}"),
        json!({}),
        decided,
    )?;
    move_back(tx, &format!("{name} {version} was revoked"), decided)
}

/// Takes the revocation of a version back. No channel moves: whoever wants it out again promotes it.
///
/// # Errors
/// See [`ChangeError`].
pub fn restore(
    tx: &Transaction<'_>,
    name: &str,
    version: &str,
    decided: &Decided,
) -> Result<(), ChangeError> {
    if !images::has_version(tx, name, version)? {
        return Err(ChangeError::Unknown(format!("image {name} {version}")));
    }
    if !images::set_revoked(tx, name, version, None, decided.now_ms)? {
        return Err(ChangeError::Already(format!(
            "{name} {version} is not revoked"
        )));
    }
    note(
        tx,
        "image-restored",
        &format!("{name} {version}"),
        json!({}),
        decided,
    )
}

/// Revokes a key for good, and moves every channel whose version only revoked keys signed back to its last good one.
///
/// # Errors
/// See [`ChangeError`].
pub fn revoke_key(
    tx: &Transaction<'_>,
    id: &str,
    decided: &Decided,
) -> Result<Vec<Moved>, ChangeError> {
    if !images::revoke_key(tx, id, &decided.by, &decided.reason, decided.now_ms)? {
        let known = images::keys(tx)?.iter().any(|key| key.id == id);
        let what = format!("key {}", drift::escape(id.as_bytes()));
        return Err(if known {
            ChangeError::Already(format!("{what} is revoked already"))
        } else {
            ChangeError::Unknown(what)
        });
    }
    note(tx, "key-revoked", id, json!({}), decided)?;
    move_back(tx, &format!("key {id} was revoked"), decided)
}

/// Points every channel that does not give out its last good version to it.
fn move_back(
    tx: &Transaction<'_>,
    why: &str,
    decided: &Decided,
) -> Result<Vec<Moved>, ChangeError> {
    let mut moved = Vec::new();
    for channel in images::channels(tx)? {
        let Some(current) = images::history(tx, &channel)?.pop() else {
            continue;
        };
        let (version, reason) = match images::last_good(tx, &channel, decided.now_ms)? {
            Ok(good) if good.name == current.name && good.version == current.version => continue,
            Ok(good) => {
                images::assign(
                    tx,
                    &channel,
                    &good.name,
                    &good.version,
                    &decided.by,
                    why,
                    decided.now_ms,
                )?;
                (Some(good.version), why.to_owned())
            }
            Err(none) => (None, none),
        };
        let kind = if version.is_some() {
            "channel-moved-back"
        } else {
            "channel-without-last-good"
        };
        let detail = json!({"from": current.version, "to": version});
        note(
            tx,
            kind,
            &channel,
            detail,
            &Decided {
                reason: reason.clone(),
                ..decided.clone()
            },
        )?;
        moved.push(Moved {
            channel,
            version,
            reason,
        });
    }
    Ok(moved)
}

fn note(
    tx: &Transaction<'_>,
    kind: &'static str,
    subject: &str,
    detail: serde_json::Value,
    decided: &Decided,
) -> Result<(), ChangeError> {
    let entry = Entry {
        kind,
        fleet: None,
        subject: Some(subject.to_owned()),
        reason: decided.reason.clone(),
        detail,
        actor: decided.by.clone(),
    };
    append(tx, decided.now_ms, &entry)?;
    Ok(())
}

/// All channels as the API shows them.
///
/// # Errors
/// Whatever the database gives.
pub fn shown_channels(db: &Connection, now_ms: i64) -> rusqlite::Result<Vec<super::ShownChannel>> {
    let shown = |channel: String| {
        let good = images::last_good(db, &channel, now_ms)?;
        let mut history = images::history(db, &channel)?;
        history.reverse();
        let none_because = good.as_ref().err().cloned();
        let last_good = good.ok().map(|good| super::ShownVersion {
            name: good.name,
            version: good.version,
        });
        Ok(super::ShownChannel {
            channel,
            last_good,
            none_because,
            history,
        })
    };
    images::channels(db)?.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drift::report::ImageRef;
    use drift::{Blake3, Sha256};
    use ring::rand::SystemRandom;

    fn decided(now_ms: i64) -> Decided {
        Decided {
            by: "alice".into(),
            reason: "because".into(),
            now_ms,
        }
    }

    /// Versions 1, 2 and 3, the last signed by a key of its own, promoted one after the other to `stable`.
    fn registry() -> (Connection, Vec<String>) {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../store/migrations/V2__images.sql"))
            .unwrap();
        db.execute_batch(include_str!("../store/migrations/V4__ledger.sql"))
            .unwrap();
        let tx = db.transaction().unwrap();
        let keys: Vec<String> = (0..2)
            .map(|_| {
                let (key, _) = drift::key::SigningKey::generate(&SystemRandom::new()).unwrap();
                assert!(images::add_key(&tx, key.public(), "alice", 1).unwrap());
                key.public().id().to_string()
            })
            .collect();
        for (version, key) in [("1", &keys[0]), ("2", &keys[0]), ("3", &keys[1])] {
            let manifest = Blake3::of(version.as_bytes());
            let image = ImageRef {
                name: "web".into(),
                version: version.into(),
                build: "amd64".into(),
                manifest,
            };
            let new = images::NewBuild {
                image,
                sha256: Sha256::of(version.as_bytes()),
                entries: 1,
                envelope: "{}".into(),
                statement: "{}".into(),
                signers: vec![key.clone()],
                expires_at_ms: None,
            };
            images::register(&tx, &new, "alice", 1).unwrap();
            promote(&tx, "stable", "web", version, &decided(1)).unwrap();
        }
        tx.commit().unwrap();
        (db, keys)
    }

    fn gives(db: &Connection) -> Result<String, String> {
        images::last_good(db, "stable", 10)
            .unwrap()
            .map(|good| good.version)
    }

    #[test]
    fn revoking_a_version_moves_its_channels_back_and_restoring_does_not_move_them_forward() {
        let (mut db, _) = registry();
        let tx = db.transaction().unwrap();
        let moved = revoke(&tx, "web", "3", &decided(5)).unwrap();
        assert_eq!(moved[0].version.as_deref(), Some("2"));
        restore(&tx, "web", "3", &decided(6)).unwrap();
        assert_eq!(gives(&tx), Ok("2".into()));
        assert!(matches!(
            restore(&tx, "web", "3", &decided(7)),
            Err(ChangeError::Already(_))
        ));
    }

    #[test]
    fn revoking_a_key_moves_what_only_it_signed_back() {
        let (mut db, keys) = registry();
        let tx = db.transaction().unwrap();
        revoke_key(&tx, &keys[1], &decided(5)).unwrap();
        assert_eq!(gives(&tx), Ok("2".into()));
        let moved = revoke_key(&tx, &keys[0], &decided(6)).unwrap();
        assert_eq!(moved[0].version, None);
        assert!(gives(&tx).is_err());
        assert!(images::trusted_keys(&tx).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_good_cannot_be_promoted() {
        let (mut db, _) = registry();
        let tx = db.transaction().unwrap();
        revoke(&tx, "web", "2", &decided(5)).unwrap();
        assert!(matches!(
            promote(&tx, "stable", "web", "2", &decided(6)),
            Err(ChangeError::Refused(_))
        ));
        assert!(matches!(
            promote(&tx, "stable", "web", "9", &decided(6)),
            Err(ChangeError::Unknown(_))
        ));
        assert!(matches!(
            promote(&tx, "a b", "web", "1", &decided(6)),
            Err(ChangeError::Refused(_))
        ));
    }

    #[test]
    fn a_build_keeps_its_digest_for_ever() {
        let (db, _) = registry();
        assert!(
            db.execute("UPDATE builds SET blake3 = zeroblob(32)", [])
                .is_err()
        );
    }

    #[test]
    fn every_change_is_in_the_ledger() {
        let (mut db, _) = registry();
        let tx = db.transaction().unwrap();
        revoke(&tx, "web", "3", &decided(5)).unwrap();
        let page = crate::store::ledger::Page {
            limit: 2,
            ..Default::default()
        };
        let kinds: Vec<_> = crate::store::ledger::list(&tx, &page)
            .unwrap()
            .into_iter()
            .map(|(recorded, _)| recorded.kind)
            .collect();
        assert_eq!(kinds, ["channel-moved-back", "image-revoked"]);
    }
}
