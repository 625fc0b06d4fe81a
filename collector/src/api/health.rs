//! Whether the collector is there, and whether it can do its work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiError;
use crate::serve::App;
use crate::store::StoreError;

/// These routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

/// All is well.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Well {
    /// Always `ok`: anything else is a refusal.
    status: &'static str,
    /// The collector's version.
    version: &'static str,
}

const WELL: Well = Well {
    status: "ok",
    version: env!("CARGO_PKG_VERSION"),
};

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Well)), security(()), tag = "health")]
async fn healthz() -> Json<Well> {
    Json(WELL)
}

/// Whether it can read and write its database.
#[utoipa::path(
    get, path = "/readyz", security(()), tag = "health",
    responses((status = 200, body = Well), (status = 503, description = "It cannot now"))
)]
async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Well>, ApiError> {
    let ready: Result<i64, StoreError> = app
        .store
        .write(|tx| Ok(tx.query_row("SELECT 1", [], |row| row.get(0))?))
        .await;
    ready.map_err(|_| ApiError::unavailable("the database cannot be used"))?;
    Ok(Json(WELL))
}
