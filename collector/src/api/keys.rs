//! Keys that may sign images, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use drift::key::TrustedKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::image::ShownKey;
use crate::image::change::{self, ChangeError, Decided, Moved};
use crate::ledger::{self, Entry};
use crate::serve::App;
use crate::store::{StoreError, images};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(revoke))
}

/// Public keys to trust.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeys {
    /// SPKI in PEM, one or several.
    pub pem: String,
}

/// Why something is revoked.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// A sentence, for the ledger.
    pub reason: String,
}

/// What moved as a consequence.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Consequences {
    /// Channels that give out another version now, or none.
    pub moved: Vec<Moved>,
}

/// The longest reason: it is in the ledger for ever.
pub(super) const MAX_REASON_BYTES: usize = 1024;

impl Reason {
    /// The reason, if it is one.
    pub(super) fn checked(self) -> Result<String, ApiError> {
        let reason = self.reason.trim();
        if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
            return Err(ApiError::bad_request(
                "bad-reason",
                format!("a reason has 1 to {MAX_REASON_BYTES} bytes"),
            ));
        }
        Ok(reason.to_owned())
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown(what) => ApiError::not_found(what),
            ChangeError::Already(message) => ApiError::conflict("already", message),
            ChangeError::Refused(message) => ApiError::conflict("refused", message),
            ChangeError::Statement(error) => error.into(),
            ChangeError::Store(error) => error.into(),
        }
    }
}

/// All keys, those that are revoked too.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, body = Vec<ShownKey>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ShownKey>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    Ok(Json(
        app.store
            .read(|db| Ok::<_, StoreError>(images::keys(db)?))
            .await?,
    ))
}

/// Trusts keys to sign images. A key that was revoked stays revoked.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = NewKeys,
    responses((status = 200, body = Vec<ShownKey>), (status = 400, description = "not keys"),
        (status = 409, description = "a key is known already, or revoked")))]
async fn add(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(new): Json<NewKeys>,
) -> Result<Json<Vec<ShownKey>>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let keys = TrustedKey::all_from_pem(new.pem.as_bytes())
        .map_err(|error| ApiError::bad_request("bad-key", super::error_chain(&error)))?;
    let added = app.store.write(move |tx| {
        let mut added = Vec::new();
        for key in &keys {
            let id = key.id().to_string();
            if !images::add_key(tx, key, &operator.name, now_ms())? {
                return Err(ChangeError::Already(format!("key {id} is known already")));
            }
            let entry = Entry {
                kind: "key-added",
                fleet: None,
                subject: Some(id.clone()),
                reason: "an operator trusts it to sign images".into(),
                detail: json!({"pem": key.to_pem()}),
                actor: operator.name.clone(),
            };
            ledger::append(tx, now_ms(), &entry)?;
            added.push(id);
        }
        Ok(images::keys(tx)?
            .into_iter()
            .filter(|key| added.contains(&key.id))
            .collect::<Vec<_>>())
    });
    Ok(Json(added.await?))
}

/// Revokes a key for good: an image signed only by revoked keys is never last good.
#[utoipa::path(post, path = "/v1/keys/{id}/revoke", tag = "keys", request_body = Reason,
    params(("id" = String, Path, description = "SHA-256 of the key's SPKI")),
    responses((status = 200, body = Consequences), (status = 404), (status = 409, description = "revoked already")))]
async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(reason): Json<Reason>,
) -> Result<Json<Consequences>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let decided = Decided {
        by: operator.name,
        reason: reason.checked()?,
        now_ms: now_ms(),
    };
    let moved = app
        .store
        .write(move |tx| change::revoke_key(tx, &id, &decided))
        .await?;
    app.wake.notify_one();
    Ok(Json(Consequences { moved }))
}
