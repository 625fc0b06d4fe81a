//! Instances: listed, shown with what drifted and what was expected there, held, released, retired.

mod packages;
mod shown;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::instance::{Hold, Instance, Standing};
use crate::ledger;
use crate::serve::App;
use crate::store::{StoreError, artifacts, drifts, images, instances};

use packages::Transactions;

pub use packages::ShownTransaction;
pub use shown::{
    ListedInstance, ShownDrift, ShownHostPackage, ShownInstance, ShownMoment, ShownPackage,
};

/// The most instances of one page, drifts and moments of one instance: an answer is held in memory whole.
const MAX_PAGE: u32 = 1_000;
/// The longest reason.
const MAX_REASON_BYTES: usize = 1_000;
/// How long an operator's leave to renew an expired certificate holds.
const RENEWAL_MS: i64 = 3_600_000;

/// These routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(hold))
        .routes(routes!(release))
        .routes(routes!(retire))
}

/// Which instances to list.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Of one fleet.
    pub fleet: Option<String>,
    /// In one state.
    pub state: Option<String>,
    /// After this place: `next` of the page before.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// A page of instances.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Instances {
    /// In the order in which they enrolled.
    pub instances: Vec<ListedInstance>,
    /// Where the next page begins; none if this is the last.
    pub next: Option<i64>,
}

/// How much to show of an instance.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct HowMuch {
    /// At most so many drifts and moments (100 unless said).
    pub limit: Option<u32>,
    /// Leaves out of `drifts` what is in `transactions` (no unless said).
    #[serde(default)]
    pub grouped: bool,
}

/// Why an operator does something to an instance.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// In a sentence.
    pub reason: String,
}

/// Lifting a hold.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// In a sentence.
    pub reason: String,
    /// Also lets a certificate that expired more than 30 days ago be renewed within the hour.
    #[serde(default)]
    pub renewal: bool,
}

/// Lists instances.
#[utoipa::path(get, path = "/v1/instances", params(Which), tag = "instances", responses((status = 200, body = Instances)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(which): Query<Which>,
) -> Result<Json<Instances>, ApiError> {
    operator.require_role(Role::Viewer)?;
    if let Some(fleet) = &which.fleet {
        operator.require(Role::Viewer, fleet)?;
    }
    let limit = which.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let (heartbeat, now_ms) = (app.config.heartbeat, now_ms());
    app.store
        .read(move |connection| {
            let mut after = which.after.unwrap_or(0);
            let mut page = Vec::new();
            loop {
                let found = instances::page(connection, which.fleet.as_deref(), after, MAX_PAGE)?;
                let last = found.len() < MAX_PAGE as usize;
                for instance in found {
                    after = instance.row;
                    let listed = ListedInstance::of(&instance, heartbeat, now_ms);
                    if operator.sees(&instance.fleet)
                        && which.state.as_ref().is_none_or(|it| *it == listed.state)
                    {
                        page.push(listed);
                    }
                    if page.len() == limit as usize {
                        return Ok(Json(Instances {
                            instances: page,
                            next: Some(after),
                        }));
                    }
                }
                if last {
                    return Ok(Json(Instances {
                        instances: page,
                        next: None,
                    }));
                }
            }
        })
        .await
}

/// Shows one instance: what drifted, what the image has there, what happened, and what is not verified.
#[utoipa::path(
    get, path = "/v1/instances/{id}", params(("id" = String, Path, description = "Its id"), HowMuch),
    tag = "instances", responses((status = 200, body = ShownInstance), (status = 404, description = "There is none"))
)]
async fn show(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Query(how_much): Query<HowMuch>,
) -> Result<Json<ShownInstance>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let limit = how_much.limit.unwrap_or(100).clamp(1, MAX_PAGE);
    let found: Result<_, ApiError> = app
        .store
        .read(move |connection| {
            let instance = visible(connection, &id, &operator)?;
            // Whole transactions are counted, not those of a page.
            let rows = if drifts::is_labelled(connection, instance.row)? {
                u32::try_from(drifts::ROWS).unwrap_or(u32::MAX)
            } else {
                limit
            };
            let open = drifts::list(connection, instance.row, rows.max(limit))?;
            let moments = drifts::moments(connection, instance.row, limit)?;
            let coverage = instances::coverage(connection, instance.row)?;
            let registered = match &instance.image {
                Some(image) => {
                    images::lookup(connection, &image.name, &image.version, &image.build)?
                }
                None => None,
            };
            let sealed = match &instance.image {
                Some(image) => {
                    artifacts::root_hashes(connection, &image.name, &image.version, &image.build)?
                }
                None => Vec::new(),
            };
            Ok((
                instance,
                open,
                moments,
                (coverage, sealed),
                registered.map(|build| build.digest),
            ))
        })
        .await;
    let (instance, open, moments, (coverage, sealed), registered) = found?;
    let reader = Arc::clone(&app);
    let joined = tokio::task::spawn_blocking(move || {
        let image = registered
            .map(|digest| shown::image(&reader, digest, &open))
            .unwrap_or_default();
        let transactions = Transactions::of(&open, &image);
        let page: Vec<_> = open
            .into_iter()
            .filter(|open| !how_much.grouped || !transactions.hold(open))
            .take(limit as usize)
            .collect();
        let listed = ListedInstance::of(&instance, reader.config.heartbeat, now_ms());
        let shown = ShownInstance::of(
            &instance,
            listed,
            page,
            transactions.lines,
            &image,
            moments,
            coverage.as_deref(),
        );
        ShownInstance {
            sealed_root_hashes: sealed.iter().map(ToString::to_string).collect(),
            ..shown
        }
    });
    joined
        .await
        .map(Json)
        .map_err(|error| ApiError::internal(&error))
}

/// Holds an instance: no order touches it.
#[utoipa::path(
    post, path = "/v1/instances/{id}/hold", params(("id" = String, Path, description = "Its id")),
    request_body = Because, tag = "instances",
    responses((status = 200, body = ListedInstance), (status = 404, description = "There is none"))
)]
async fn hold(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(because): Json<Because>,
) -> Result<Json<ListedInstance>, ApiError> {
    change(
        &app,
        operator,
        Role::Operator,
        id,
        because.reason,
        "instance-held",
        |tx, instance, hold| instances::set_hold(tx, instance.row, Some(hold)),
    )
    .await
}

/// Lifts the hold on an instance.
#[utoipa::path(
    post, path = "/v1/instances/{id}/release", params(("id" = String, Path, description = "Its id")),
    request_body = Release, tag = "instances",
    responses((status = 200, body = ListedInstance), (status = 404, description = "There is none"))
)]
async fn release(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(release): Json<Release>,
) -> Result<Json<ListedInstance>, ApiError> {
    let role = if release.renewal {
        Role::Approver
    } else {
        Role::Operator
    };
    change(
        &app,
        operator,
        role,
        id,
        release.reason,
        "instance-released",
        move |tx, instance, hold| {
            if release.renewal {
                instances::allow_renewal(tx, instance.row, hold.at_ms + RENEWAL_MS)?;
            }
            // Whoever releases an instance also takes back that no order is wanted for it.
            crate::store::orders::decline(tx, &instance.id, None)?;
            instances::set_hold(tx, instance.row, None)
        },
    )
    .await
}

/// Takes an instance out for good: its certificate is worth nothing from now on.
#[utoipa::path(
    post, path = "/v1/instances/{id}/retire", params(("id" = String, Path, description = "Its id")),
    request_body = Because, tag = "instances",
    responses((status = 200, body = ListedInstance), (status = 404, description = "There is none"))
)]
async fn retire(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(id): Path<String>,
    Json(because): Json<Because>,
) -> Result<Json<ListedInstance>, ApiError> {
    change(
        &app,
        operator,
        Role::Approver,
        id,
        because.reason,
        "instance-retired",
        |tx, instance, hold| {
            instances::set_standing(
                tx,
                &instance.id,
                Standing::Retired,
                &hold.reason,
                hold.at_ms,
            )
            .map(drop)
        },
    )
    .await
}

async fn change(
    app: &App,
    operator: Operator,
    role: Role,
    id: String,
    reason: String,
    kind: &'static str,
    act: impl FnOnce(&rusqlite::Transaction<'_>, &Instance, &Hold) -> rusqlite::Result<()>
    + Send
    + 'static,
) -> Result<Json<ListedInstance>, ApiError> {
    operator.require_role(role)?;
    if reason.trim().is_empty() || reason.len() > MAX_REASON_BYTES {
        let message = format!("say why, in 1 to {MAX_REASON_BYTES} bytes");
        return Err(ApiError::bad_request("bad-reason", message));
    }
    let (heartbeat, now_ms) = (app.config.heartbeat, now_ms());
    let changed = app
        .store
        .write(move |tx| {
            let instance = visible(tx, &id, &operator)?;
            if instance.standing != Standing::Active {
                return Err(ApiError::conflict(
                    "gone",
                    "this instance takes no part any more",
                ));
            }
            let hold = Hold {
                reason,
                by: operator.name,
                at_ms: now_ms,
            };
            act(tx, &instance, &hold)?;
            let entry = ledger::Entry {
                kind,
                fleet: Some(instance.fleet),
                subject: Some(instance.id),
                reason: hold.reason,
                detail: json!({"cloud_id": instance.cloud_id}),
                actor: hold.by,
            };
            ledger::append(tx, now_ms, &entry)?;
            let instance =
                instances::by_id(tx, &id)?.ok_or_else(|| ApiError::not_found("such instance"))?;
            Ok(Json(ListedInstance::of(&instance, heartbeat, now_ms)))
        })
        .await;
    app.wake.notify_one();
    changed
}

/// The instance, if this operator may see it.
fn visible(
    connection: &rusqlite::Connection,
    id: &str,
    operator: &Operator,
) -> Result<Instance, ApiError> {
    let found = instances::by_id(connection, id).map_err(StoreError::from)?;
    let found = found.filter(|instance| operator.sees(&instance.fleet));
    found.ok_or_else(|| ApiError::not_found(format!("instance {}", drift::escape(id.as_bytes()))))
}
