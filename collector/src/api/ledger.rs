//! The ledger for operators: a page of it, and the walk that proves it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Operator, Role};
use crate::ledger::{BrokenLink, Hash, MAX_PAGE, Recorded};
use crate::serve::App;
use crate::store::StoreError;
use crate::store::ledger::{self, Page, Verified};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(verify))
}

/// Which entries to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only entries before this one.
    before: Option<u64>,
    /// How many, at most 1,000; 100 where it is not said.
    limit: Option<u32>,
    /// Only entries of this fleet.
    fleet: Option<String>,
    /// Only entries about this instance, order, image, key or token.
    subject: Option<String>,
}

/// An entry with its hash.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LedgerEntry {
    /// The entry.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// The hash of the chain up to and with it: note it elsewhere, and it is a head to verify with.
    #[schema(value_type = String)]
    pub hash: Hash,
}

/// Entries, newest first. A token for some fleets sees the entries of these fleets only.
#[utoipa::path(get, path = "/v1/ledger", tag = "ledger", params(ListQuery),
    responses((status = 200, body = Vec<LedgerEntry>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<LedgerEntry>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    if let Some(fleet) = &query.fleet {
        operator.require(Role::Viewer, fleet)?;
    }
    let page = Page {
        before: query.before,
        limit: query.limit.unwrap_or(100).min(MAX_PAGE),
        fleets: query.fleet.map(|fleet| vec![fleet]).or(operator.fleets),
        subject: query.subject,
    };
    let entries: Vec<_> = app
        .store
        .read(move |db| Ok::<_, StoreError>(ledger::list(db, &page)?))
        .await?;
    Ok(Json(
        entries
            .into_iter()
            .map(|(recorded, hash)| LedgerEntry { recorded, hash })
            .collect(),
    ))
}

/// What head to look for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VerifyQuery {
    /// A hash that was noted earlier.
    head: Option<String>,
}

/// What the walk along the whole chain found.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verification {
    /// Whether every link holds, and the head that was asked for is among them.
    pub holds: bool,
    /// How many entries there are; with a broken link, how many hold before it.
    pub entries: u64,
    /// The hash of the last entry that holds.
    #[schema(value_type = String)]
    pub head: Hash,
    /// The place of the head that was asked for; none if it is not in the chain.
    pub found_at: Option<u64>,
    /// The first link that does not hold.
    pub broken: Option<BrokenLink>,
}

/// Walks the whole chain. `found_at` proves that a head noted earlier is in it: without it, an end that was cut off
/// would not show.
#[utoipa::path(get, path = "/v1/ledger/verify", tag = "ledger", params(VerifyQuery),
    responses((status = 200, body = Verification)))]
async fn verify(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<Verification>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let sought: Option<Hash> =
        match &query.head {
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request("bad-head", "a head is 64 hexadecimal digits")
            })?),
            None => None,
        };
    let verified = app
        .store
        .read(move |db| Ok::<_, StoreError>(ledger::verify(db, sought)?))
        .await?;
    Ok(Json(match verified {
        Verified::Holds(walked) => Verification {
            holds: sought.is_none() || walked.found_at.is_some(),
            entries: walked.entries,
            head: walked.head,
            found_at: walked.found_at,
            broken: None,
        },
        Verified::Broken(link, walked) => Verification {
            holds: false,
            entries: walked.entries,
            head: walked.head,
            found_at: walked.found_at,
            broken: Some(link),
        },
    }))
}
