//! Join tokens: made, listed, revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use drift::enrolment::{EnrolRequest, JoinToken};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Operator, Role};
use crate::authority;
use crate::clock::now_ms;
use crate::ledger;
use crate::policy::{MAX_NAME_BYTES, is_name};
use crate::serve::App;
use crate::store::{StoreError, tokens};

/// A token that lives longer is a password.
const MAX_TTL_SECONDS: u64 = 7 * 24 * 3600;
/// A fleet that starts at once.
const MAX_USES: u32 = 100_000;

/// These routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
}

/// A join token to make.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The fleet that its instances belong to.
    pub fleet: String,
    /// The one cloud id that it is for: whoever enrols with it has that id, proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_id: Option<String>,
    /// How long it may be used.
    pub ttl_seconds: u64,
    /// How many instances may enrol with it.
    pub uses: u32,
}

/// A join token that was made. Its text is told once.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MadeToken {
    /// What is listed of it.
    #[serde(flatten)]
    pub token: ListedToken,
    /// What the instance's `--token-file` holds.
    pub text: String,
}

/// A join token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ListedToken {
    /// Its name: not a secret.
    pub id: String,
    /// The fleet that its instances belong to.
    pub fleet: String,
    /// The one cloud id that it is for.
    pub cloud_id: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_at_ms: i64,
    /// How many instances may enrol with it.
    pub uses_allowed: u32,
    /// How many have.
    pub uses: u32,
}

impl From<tokens::Token> for ListedToken {
    fn from(token: tokens::Token) -> Self {
        ListedToken {
            id: token.id,
            fleet: token.fleet,
            cloud_id: token.cloud_id,
            created_at_ms: token.created_at_ms,
            created_by: token.created_by,
            expires_at_ms: token.expires_at_ms,
            uses_allowed: token.uses_allowed,
            uses: token.uses,
        }
    }
}

/// Makes a join token.
#[utoipa::path(
    post, path = "/v1/tokens", request_body = NewToken, tag = "tokens",
    responses((status = 200, body = MadeToken), (status = 400, description = "Refused"),
              (status = 403, description = "Not for this operator"))
)]
async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(new): Json<NewToken>,
) -> Result<Json<MadeToken>, ApiError> {
    operator.require(Role::Operator, &new.fleet)?;
    check(&new)?;
    let secret = random::<32>()?;
    let secret = super::base64url(&secret);
    let now_ms = now_ms();
    let token = tokens::Token {
        id: format!("t-{:016x}", u64::from_be_bytes(random::<8>()?)),
        fleet: new.fleet,
        cloud_id: new.cloud_id,
        created_at_ms: now_ms,
        created_by: operator.name,
        expires_at_ms: now_ms.saturating_add_unsigned(new.ttl_seconds * 1000),
        uses_allowed: new.uses,
        uses: 0,
    };
    let digest = blake3::hash(secret.as_bytes());
    let text = JoinToken {
        url: app.agents_url(),
        ca: app.authority.pin(),
        secret,
    }
    .to_text();
    let stored = token.clone();
    let made: Result<(), StoreError> = app
        .store
        .write(move |tx| {
            tokens::insert(tx, &stored, &digest)?;
            let mut reason = format!("for {} instance(s) of the fleet", stored.uses_allowed);
            if let Some(cloud_id) = &stored.cloud_id {
                reason = format!("for cloud id {cloud_id}");
            }
            record(tx, "token-created", &stored, reason, now_ms)?;
            Ok(())
        })
        .await;
    made?;
    Ok(Json(MadeToken {
        token: token.into(),
        text,
    }))
}

/// Lists join tokens, the newest first.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = Vec<ListedToken>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ListedToken>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let all: Result<_, StoreError> = app
        .store
        .read(|connection| Ok(tokens::list(connection)?))
        .await;
    let seen = all?.into_iter().filter(|token| operator.sees(&token.fleet));
    Ok(Json(seen.map(ListedToken::from).collect()))
}

/// Ends a join token.
#[utoipa::path(
    post, path = "/v1/tokens/{id}/revoke", params(("id" = String, Path, description = "Its name")), tag = "tokens",
    responses((status = 200, body = ListedToken), (status = 404, description = "There is none"))
)]
async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Json<ListedToken>, ApiError> {
    operator.require_role(Role::Operator)?;
    let now_ms = now_ms();
    app.store
        .write(move |tx| {
            let unknown =
                || ApiError::not_found(format!("join token {}", drift::escape(id.as_bytes())));
            let mut token = tokens::by_id(tx, &id)?
                .filter(|it| operator.sees(&it.fleet))
                .ok_or_else(unknown)?;
            tokens::revoke(tx, &id, now_ms)?;
            token.expires_at_ms = token.expires_at_ms.min(now_ms);
            token.created_by = operator.name;
            record(
                tx,
                "token-revoked",
                &token,
                "an operator revoked it".to_owned(),
                now_ms,
            )?;
            let token = tokens::by_id(tx, &id)?.ok_or_else(unknown)?;
            Ok(Json(token.into()))
        })
        .await
}

fn record(
    tx: &rusqlite::Transaction<'_>,
    kind: &'static str,
    token: &tokens::Token,
    reason: String,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let entry = ledger::Entry {
        kind,
        fleet: Some(token.fleet.clone()),
        subject: Some(token.id.clone()),
        reason,
        detail: json!({"cloud_id": token.cloud_id, "uses": token.uses_allowed, "expires_at_ms": token.expires_at_ms}),
        actor: token.created_by.clone(),
    };
    ledger::append(tx, now_ms, &entry).map(drop)
}

fn check(new: &NewToken) -> Result<(), ApiError> {
    let bad = |message: String| Err(ApiError::bad_request("bad-token", message));
    if !is_name(&new.fleet) {
        return bad(format!(
            "a fleet's name is letters, digits, `.`, `_` and `-`, begins with a letter or digit, and has at most \
             {MAX_NAME_BYTES}"
        ));
    }
    if new.ttl_seconds == 0 || new.ttl_seconds > MAX_TTL_SECONDS {
        return bad(format!(
            "a join token lives for 1 to {MAX_TTL_SECONDS} seconds"
        ));
    }
    if new.uses == 0 || new.uses > MAX_USES {
        return bad(format!("a join token is for 1 to {MAX_USES} instances"));
    }
    let Some(cloud_id) = &new.cloud_id else {
        return Ok(());
    };
    if cloud_id.is_empty() || cloud_id.len() > EnrolRequest::MAX_CLOUD_ID_BYTES {
        return bad(format!(
            "a cloud id has 1 to {} bytes",
            EnrolRequest::MAX_CLOUD_ID_BYTES
        ));
    }
    if new.uses != 1 {
        return bad("a join token for one cloud id is for one instance".to_owned());
    }
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    authority::random::<N>().map_err(|_| ApiError::internal(&authority::AuthorityError::Random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_a_cloud_id_is_for_one_instance() {
        let new = |fleet: &str, cloud_id: Option<&str>, ttl_seconds, uses| NewToken {
            fleet: fleet.into(),
            cloud_id: cloud_id.map(Into::into),
            ttl_seconds,
            uses,
        };
        assert!(check(&new("web", None, 600, 3)).is_ok());
        assert!(check(&new("web", Some("vm-1"), 600, 1)).is_ok());
        for bad in [
            new("web", Some("vm-1"), 600, 2),
            new("web", Some(""), 600, 1),
            new("web", None, 0, 1),
            new("web", None, MAX_TTL_SECONDS + 1, 1),
            new("web", None, 600, 0),
            new("", None, 600, 1),
            new("we b", None, 600, 1),
            new(".web", None, 600, 1),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
