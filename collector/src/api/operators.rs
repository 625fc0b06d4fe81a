//! Operator tokens: made, listed, revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::ledger;
use crate::serve::App;
use crate::serve::first_token::draw_secret;
use crate::store::{StoreError, operators};

/// The longest name.
const MAX_NAME_BYTES: usize = 64;
/// More fleets than one token should name.
const MAX_FLEETS: usize = 256;

/// These routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
}

/// An operator token to make.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// To which fleets; left out, to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleets: Option<Vec<String>>,
}

/// An operator token that was made. Its secret is told once.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MadeOperator {
    /// Whose it is.
    pub name: String,
    /// The token.
    pub token: String,
}

/// An operator token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ListedOperator {
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// To which fleets; none for all.
    pub fleets: Option<Vec<String>>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked, in milliseconds since 1970.
    pub revoked_at_ms: Option<i64>,
}

/// An operator token that is worth nothing any more.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RevokedOperator {
    /// Whose it was.
    pub revoked: String,
}

/// Makes an operator token.
#[utoipa::path(
    post, path = "/v1/operators", request_body = NewOperator, tag = "operators",
    responses((status = 200, body = MadeOperator), (status = 409, description = "The name is taken"))
)]
async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(new): Json<NewOperator>,
) -> Result<Json<MadeOperator>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let fleets = new.fleets.as_ref().map_or(0, Vec::len);
    if new.name.is_empty()
        || new.name.len() > MAX_NAME_BYTES
        || fleets > MAX_FLEETS
        || new.fleets == Some(Vec::new())
    {
        let message = format!(
            "a name has 1 to {MAX_NAME_BYTES} bytes, and fleets, if given, are 1 to {MAX_FLEETS}"
        );
        return Err(ApiError::bad_request("bad-operator", message));
    }
    let token = draw_secret().map_err(|error| ApiError::internal(&error))?;
    let digest = blake3::hash(token.as_bytes());
    let name = new.name.clone();
    let now_ms = now_ms();
    let made: Result<bool, StoreError> = app
        .store
        .write(move |tx| {
            let detail = json!({"role": new.role, "fleets": new.fleets});
            let made = Operator {
                name: new.name,
                role: new.role,
                fleets: new.fleets,
            };
            let added = operators::insert(tx, &made, &digest, &operator.name, now_ms)?;
            if added {
                let entry = ledger::Entry {
                    kind: "operator-created",
                    fleet: None,
                    subject: Some(made.name),
                    reason: format!("with the role {}", made.role.word()),
                    detail,
                    actor: operator.name,
                };
                ledger::append(tx, now_ms, &entry)?;
            }
            Ok(added)
        })
        .await;
    if made? {
        Ok(Json(MadeOperator { name, token }))
    } else {
        Err(ApiError::conflict(
            "name-taken",
            "there is, or was, an operator of that name: choose another",
        ))
    }
}

/// Lists operator tokens.
#[utoipa::path(get, path = "/v1/operators", tag = "operators", responses((status = 200, body = Vec<ListedOperator>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ListedOperator>>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let all: Result<_, StoreError> = app
        .store
        .read(|connection| Ok(operators::list(connection)?))
        .await;
    let shown = |listed: operators::Listed| ListedOperator {
        name: listed.operator.name,
        role: listed.operator.role,
        fleets: listed.operator.fleets,
        created_at_ms: listed.created_at_ms,
        created_by: listed.created_by,
        revoked_at_ms: listed.revoked_at_ms,
    };
    Ok(Json(all?.into_iter().map(shown).collect()))
}

/// Revokes an operator token.
#[utoipa::path(
    post, path = "/v1/operators/{name}/revoke", params(("name" = String, Path, description = "Whose")),
    tag = "operators", responses((status = 200, body = RevokedOperator), (status = 404, description = "There is none"))
)]
async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<Json<RevokedOperator>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let now_ms = now_ms();
    let shown = name.clone();
    let revoked: Result<bool, StoreError> = app
        .store
        .write(move |tx| {
            let revoked = operators::revoke(tx, &name, now_ms)?;
            if revoked {
                let entry = ledger::Entry {
                    kind: "operator-revoked",
                    fleet: None,
                    subject: Some(name),
                    reason: "an admin revoked it".to_owned(),
                    detail: json!({}),
                    actor: operator.name,
                };
                ledger::append(tx, now_ms, &entry)?;
            }
            Ok(revoked)
        })
        .await;
    match revoked? {
        true => Ok(Json(RevokedOperator { revoked: shown })),
        false => Err(ApiError::not_found(format!(
            "operator {} that is not revoked",
            drift::escape(shown.as_bytes())
        ))),
    }
}
