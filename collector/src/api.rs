//! The two HTTP interfaces: receives requests, hands on answers or refusals.
//!
//! Agents and operators have different ports and different credentials. Every room of the operators' interface is a
//! module with `pub fn routes() -> OpenApiRouter<Arc<App>>`; its handlers carry `#[utoipa::path]`, take
//! `State<Arc<App>>` and an [`Operator`], ask it for the role and fleet they need, and answer
//! `Result<Json<T>, ApiError>`. 4xx is the caller's fault, 503 means come back later, 500 is a bug of ours.

pub mod agents;
pub mod health;
pub mod images;
pub mod instances;
pub mod keys;
pub mod ledger;
pub mod operators;
pub mod orders;
pub mod tokens;

mod description;
mod operator;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

pub use operator::{Operator, Role};
pub use refusal::{ApiError, chain as error_chain};

use crate::serve::App;

/// A request that takes longer than this is refused; the client tries again.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// The largest body of an operator's request, save where a route says otherwise (manifests).
const MAX_BODY_BYTES: usize = 1024 * 1024;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Driftmark collector", description = "The operators' interface.", license(name = "Apache-2.0")),
    security(("token" = [])),
    modifiers(&Bearer),
    components(schemas(description::Refused))
)]
struct Description;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}

/// The operators' interface and the document that describes it.
pub fn operators_router(app: Arc<App>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(health::routes())
        .merge(tokens::routes())
        .merge(operators::routes())
        .merge(instances::routes())
        .merge(images::routes())
        .merge(keys::routes())
        .merge(orders::routes())
        .merge(ledger::routes())
        .split_for_parts();
    let document = Arc::new(description::complete(document));
    let agents = Arc::new(agents::document());
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(move || async move { axum::Json(document.as_ref().clone()) }),
        )
        .route(
            "/v1/openapi-agents.json",
            axum::routing::get(move || async move { axum::Json(agents.as_ref().clone()) }),
        )
        .fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            TIMEOUT,
        ))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app),
            refusal::record,
        ))
        .with_state(app)
}

async fn no_such_route() -> impl IntoResponse {
    ApiError::refused(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "see /v1/openapi.json for the routes there are",
    )
}

/// Bytes as text that needs no quoting anywhere: base64url without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
