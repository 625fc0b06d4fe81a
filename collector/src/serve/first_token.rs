//! Receives a store without operators, hands on the file with the first one's token.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::ServeError;
use crate::api::{Operator, Role};
use crate::authority::{self, AuthorityError, files};
use crate::ledger;
use crate::store::{Store, StoreError, operators};

/// Makes the first operator token where there is none; the file, if it is there.
pub(super) async fn ensure(
    store: &Store,
    data: &Path,
    now_ms: i64,
) -> Result<Option<PathBuf>, ServeError> {
    let path = data.join("operator.token");
    let none: Result<bool, StoreError> = store
        .read(|connection| Ok(operators::list(connection)?.is_empty()))
        .await;
    if none? {
        let secret = draw_secret()?;
        files::write_whole(&path, format!("{secret}\n").as_bytes(), 0o600).map_err(|source| {
            ServeError::Data {
                path: data.to_owned(),
                source,
            }
        })?;
        let made: Result<(), StoreError> = store
            .write(move |tx| {
                let operator = Operator {
                    name: "first".to_owned(),
                    role: Role::Admin,
                    fleets: None,
                };
                operators::insert(
                    tx,
                    &operator,
                    &blake3::hash(secret.as_bytes()),
                    "collector",
                    now_ms,
                )?;
                let entry = ledger::Entry {
                    kind: "operator-created",
                    fleet: None,
                    subject: Some("first".to_owned()),
                    reason: "the collector started without any".to_owned(),
                    detail: json!({"role": "admin"}),
                    actor: "collector".to_owned(),
                };
                ledger::append(tx, now_ms, &entry)?;
                Ok(())
            })
            .await;
        made?;
    }
    Ok(path.exists().then_some(path))
}

/// An operator token: 256 random bits.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn draw_secret() -> Result<String, AuthorityError> {
    let random = authority::random::<32>().map_err(|_| AuthorityError::Random)?;
    Ok(format!("dmop1.{}", crate::api::base64url(&random)))
}
