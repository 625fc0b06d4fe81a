//! Images and channels for operators: registered, promoted, revoked, restored.

mod register;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::keys::{Consequences, Reason};
use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::image::change::{self, ChangeError, Decided};
use crate::image::{ShelfError, ShownBuild, ShownChannel};
use crate::serve::App;
use crate::store::{StoreError, artifacts, images};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, register::add))
        .routes(routes!(show))
        .routes(routes!(revoke))
        .routes(routes!(restore))
        .routes(routes!(register::add_artifact))
        .routes(routes!(channels))
        .routes(routes!(promote))
}

/// Which builds to list.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Only the build that this artifact is of: `ami-…`, the resource id of a gallery image version, `sha256:…`.
    pub artifact: Option<String>,
}

/// Which version a channel is to give out.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A sentence, for the ledger.
    pub reason: String,
}

/// All registered builds, newest first; or the one that an artifact is of, which may be none.
#[utoipa::path(get, path = "/v1/images", tag = "images", params(Which), responses((status = 200, body = Vec<ShownBuild>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(which): Query<Which>,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let listed = app.store.read(move |db| {
        let Some(artifact) = &which.artifact else {
            return Ok::<_, StoreError>(images::builds(db, None, None, None)?);
        };
        match artifacts::owner(db, artifact)? {
            Some((name, version, build)) => Ok(images::builds(
                db,
                Some(&name),
                Some(&version),
                Some(&build),
            )?),
            None => Ok(Vec::new()),
        }
    });
    Ok(Json(listed.await?))
}

/// The builds of one version.
#[utoipa::path(get, path = "/v1/images/{name}/{version}", tag = "images",
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Vec<ShownBuild>), (status = 404)))]
async fn show(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let read = app.store.read(move |db| {
        Ok::<_, StoreError>(images::builds(db, Some(&name), Some(&version), None)?)
    });
    let builds = read.await?;
    if builds.is_empty() {
        Err(ApiError::not_found("image of that name and version"))
    } else {
        Ok(Json(builds))
    }
}

impl From<ShelfError> for ApiError {
    fn from(error: ShelfError) -> Self {
        match &error {
            ShelfError::Io { .. } => {
                tracing::error!(
                    error = super::error_chain(&error),
                    "a manifest cannot be kept"
                );
                ApiError::unavailable(
                    "the collector's disk does not take or give manifests now; try again later",
                )
            }
            ShelfError::Random | ShelfError::Manifest { .. } | ShelfError::Swapped { .. } => {
                ApiError::internal(&error)
            }
        }
    }
}

/// Revokes a version now: no build of it is last good, and every channel that gives it out moves back.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/revoke", tag = "images", request_body = Reason,
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Consequences), (status = 404), (status = 409, description = "revoked already")))]
async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
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
        .write(move |tx| change::revoke(tx, &name, &version, &decided))
        .await?;
    app.wake.notify_one();
    Ok(Json(Consequences { moved }))
}

/// Takes a revocation back. Channels stay where they are.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/restore", tag = "images", request_body = Reason,
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Vec<ShownBuild>), (status = 404), (status = 409, description = "not revoked")))]
async fn restore(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
    Json(reason): Json<Reason>,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let decided = Decided {
        by: operator.name,
        reason: reason.checked()?,
        now_ms: now_ms(),
    };
    let restored = app.store.write(move |tx| {
        change::restore(tx, &name, &version, &decided)?;
        Ok::<_, ChangeError>(images::builds(tx, Some(&name), Some(&version), None)?)
    });
    let restored = restored.await?;
    app.wake.notify_one();
    Ok(Json(restored))
}

/// All channels with what they give out and gave out.
#[utoipa::path(get, path = "/v1/channels", tag = "images", responses((status = 200, body = Vec<ShownChannel>)))]
async fn channels(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ShownChannel>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    Ok(Json(
        app.store
            .read(|db| Ok::<_, StoreError>(change::shown_channels(db, now_ms())?))
            .await?,
    ))
}

/// Points a channel to a version; the first promotion makes the channel.
#[utoipa::path(post, path = "/v1/channels/{channel}", tag = "images", request_body = Promotion,
    params(("channel" = String, Path, description = "its name")),
    responses((status = 200, body = ShownChannel), (status = 404), (status = 409, description = "that version is not good")))]
async fn promote(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(channel): Path<String>,
    Json(promotion): Json<Promotion>,
) -> Result<Json<ShownChannel>, ApiError> {
    operator.require_everywhere(Role::Operator)?;
    let Promotion {
        name,
        version,
        reason,
    } = promotion;
    let decided = Decided {
        by: operator.name,
        reason: Reason { reason }.checked()?,
        now_ms: now_ms(),
    };
    let promoted = app.store.write(move |tx| {
        change::promote(tx, &channel, &name, &version, &decided)?;
        let shown = change::shown_channels(tx, decided.now_ms)?
            .into_iter()
            .find(|shown| shown.channel == channel);
        shown.ok_or_else(|| ChangeError::Unknown("channel".into()))
    });
    let promoted = promoted.await?;
    app.wake.notify_one();
    Ok(Json(promoted))
}
