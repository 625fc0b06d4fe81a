//! The agents' interface: enrolment, renewal and reports. The sender is who the client certificate says.

mod described;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Json, Router};
use drift::Blake3;
use drift::enrolment::{EnrolRequest, Identity, RenewRequest};
use drift::report::{Report, Verdict};
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ApiError, TIMEOUT, refusal};
use crate::authority::{self, AuthorityError, Presented, PublicKey};
use crate::clock::now_ms;
use crate::enrol::{self, Asked, Granted, Renewal};
use crate::ingest::{self, Circumstances, Incoming};
use crate::listen::Peer;
use crate::serve::App;
use crate::store::StoreError;

/// The agents' interface.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = documented();
    let document = Arc::new(document);
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(move || async move { Json(document.as_ref().clone()) }),
        )
        .fallback(no_such_route)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            TIMEOUT,
        ))
        .layer(axum::middleware::map_response(refusal::worded))
        .with_state(app)
}

/// The document that describes this interface.
pub fn document() -> OpenApi {
    documented().1
}

fn documented() -> (Router<Arc<App>>, OpenApi) {
    let (router, document) = OpenApiRouter::with_openapi(described::Description::openapi())
        .routes(routes!(enroll))
        .routes(routes!(renew))
        .routes(routes!(report))
        .split_for_parts();
    (router, super::description::complete(document))
}

async fn no_such_route() -> impl IntoResponse {
    ApiError::refused(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "agents speak /v1/enroll, /v1/renew and /v1/reports: see /v1/openapi.json",
    )
}

/// Enrols an instance: a join token and a key become an id and a certificate.
#[utoipa::path(post, path = "/v1/enroll", tag = "agents", request_body = described::EnrolRequest,
    responses((status = 200, body = described::Identity), (status = 400, description = "Not a request"),
        (status = 403, description = "The token does not admit, or is for another fleet"), (status = 409, description = "Somebody else is this instance")))]
async fn enroll(State(app): State<Arc<App>>, body: Body) -> Result<Json<Identity>, ApiError> {
    let (request, _) = read::<EnrolRequest>(body, EnrolRequest::MAX_BYTES).await?;
    enrol::check_limits(&request)?;
    let key = proven_key(&request.csr)?;
    let now_ms = now_ms();
    let asked = Asked {
        token: blake3::hash(request.token.as_bytes()),
        key: *key.digest().as_bytes(),
        cloud_id: request.cloud_id,
        fleet: request.fleet,
        image: request.image,
        boot_id: request.boot_id,
        id: new_id()?,
        until_ms: app.certificate_until_ms(now_ms),
        refusals: Arc::clone(&app.refusals),
        now_ms,
    };
    let granted: Result<_, StoreError> = app
        .store
        .write(move |tx| Ok(enrol::enrol(tx, &asked)?))
        .await;
    let identity = identity(&app, granted??, &key, now_ms)?;
    app.wake.notify_one();
    Ok(Json(identity))
}

/// Renews a certificate, for the same key.
#[utoipa::path(post, path = "/v1/renew", tag = "agents", request_body = described::RenewRequest,
    responses((status = 200, body = described::Identity), (status = 400, description = "Not a request"),
        (status = 401, description = "No certificate"), (status = 403, description = "Not this instance, or no longer")))]
async fn renew(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Identity>, ApiError> {
    let (request, _) = read::<RenewRequest>(body, EnrolRequest::MAX_BYTES).await?;
    let key = proven_key(&request.csr)?;
    let presented = match (&peer.presented, &request.expired) {
        (Some(presented), _) => presented.as_ref().clone(),
        (None, Some(expired)) => vouched(&app, expired)?,
        (None, None) => return Err(no_certificate()),
    };
    let Some(id) = presented.instance else {
        return Err(no_certificate());
    };
    let now_ms = now_ms();
    let renewal = Renewal {
        id,
        key: *key.digest().as_bytes(),
        ended_ms: presented.until_ms,
        until_ms: app.certificate_until_ms(now_ms),
        refusals: Arc::clone(&app.refusals),
        now_ms,
    };
    let granted: Result<_, StoreError> = app
        .store
        .write(move |tx| Ok(enrol::renew(tx, &renewal)?))
        .await;
    Ok(Json(identity(&app, granted??, &key, now_ms)?))
}

/// Takes a report in. It is about the sender of the certificate alone, and durable once it is answered.
#[utoipa::path(post, path = "/v1/reports", tag = "agents", request_body = described::Report,
    responses((status = 200, body = described::Verdict), (status = 400, description = "Not a report"),
        (status = 401, description = "No certificate"), (status = 403, description = "The instance is out"),
        (status = 409, description = "The number was used"), (status = 413, description = "Too long")))]
async fn report(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Verdict>, ApiError> {
    let presented = peer.presented.as_ref().ok_or_else(no_certificate)?;
    let instance = presented.instance.clone().ok_or_else(no_certificate)?;
    let now_ms = now_ms();
    // TLS looked at the certificate when the connection began; that may be days ago.
    if now_ms > presented.until_ms {
        let message = "the certificate of this connection has expired: renew it";
        return Err(ApiError::refused(
            StatusCode::UNAUTHORIZED,
            "certificate-expired",
            message,
        ));
    }
    let key = *presented.key.digest().as_bytes();
    let circumstances = Circumstances {
        heartbeat: app.config.heartbeat,
        refusals: Arc::clone(&app.refusals),
        now_ms,
    };
    let (report, bytes) = match understand(body).await {
        Ok(understood) => understood,
        Err(refused) => {
            let noted = refused.clone();
            let written: Result<(), StoreError> = app
                .store
                .write(move |tx| Ok(ingest::refuse(tx, &instance, &noted, &circumstances)?))
                .await;
            written?;
            return Err(refused);
        }
    };
    let incoming = Incoming {
        instance,
        key,
        body: Blake3::of(&bytes),
        bytes: bytes.len(),
        report,
    };
    let accepted: Result<_, StoreError> = app
        .store
        .write_report(move |tx| Ok(ingest::accept(tx, &incoming, &circumstances)?))
        .await;
    let accepted = accepted??;
    if accepted.changed {
        app.wake.notify_one();
    }
    Ok(Json(accepted.verdict))
}

/// A report within its limits, and the bytes that it came as.
async fn understand(body: Body) -> Result<(Report, axum::body::Bytes), ApiError> {
    let (report, bytes) = read::<Report>(body, Report::MAX_BYTES).await?;
    report
        .check_limits()
        .map_err(|error| ApiError::bad_request("bad-report", error.to_string()))?;
    let countable = |number: u64| i64::try_from(number).is_ok();
    if report.sequence == 0 || !countable(report.sequence) || !countable(report.part.generation) {
        let message = "`sequence` counts from 1, and no number is above 2^63 - 1";
        return Err(ApiError::bad_request("bad-report", message));
    }
    Ok((report, bytes))
}

async fn read<T: DeserializeOwned>(
    body: Body,
    limit: usize,
) -> Result<(T, axum::body::Bytes), ApiError> {
    let bytes = to_bytes(body, limit).await.map_err(|_| {
        let message = format!("the request is longer than {limit} bytes, or broke off");
        ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "too-long", message)
    })?;
    match serde_json::from_slice(&bytes) {
        Ok(request) => Ok((request, bytes)),
        Err(error) => Err(ApiError::bad_request(
            "bad-request",
            format!("the request is not understood: {}", quoted(&error)),
        )),
    }
}

/// What the parser says. It quotes what it met: callers decide neither how long our answers are nor what they draw.
fn quoted(error: &serde_json::Error) -> String {
    drift::escape(error.to_string().as_bytes())
        .chars()
        .take(MAX_QUOTED_CHARS)
        .collect()
}

/// Enough for a parser's sentence with a name in it.
const MAX_QUOTED_CHARS: usize = 300;

fn proven_key(csr: &str) -> Result<PublicKey, ApiError> {
    authority::read_request(csr).map_err(|error| {
        ApiError::bad_request(
            "bad-csr",
            format!("the certificate request is refused: {error}"),
        )
    })
}

/// An expired certificate that our authority issued.
fn vouched(app: &App, expired: &str) -> Result<Presented, ApiError> {
    let refused = || {
        ApiError::forbidden(
            "not-ours",
            "the old certificate is not one that this collector issued",
        )
    };
    let certificate = authority::read_certificate(expired).map_err(|_| refused())?;
    let presented = Presented::read(&certificate).map_err(|_| refused())?;
    if app.clients.vouches_for(&certificate, &presented) {
        Ok(presented)
    } else {
        Err(refused())
    }
}

fn no_certificate() -> ApiError {
    ApiError::refused(
        StatusCode::UNAUTHORIZED,
        "no-certificate",
        "this needs the client certificate of an enrolled instance",
    )
}

fn identity(
    app: &App,
    granted: Granted,
    key: &PublicKey,
    now_ms: i64,
) -> Result<Identity, ApiError> {
    let life = app.config.certificate_life;
    let certificate = app
        .authority
        .instance(&granted.id, key, now_ms, life)
        .map_err(|error| ApiError::internal(&error))?;
    Ok(Identity {
        instance: granted.id,
        fleet: granted.fleet,
        certificate,
        trust: app.authority.pem().to_owned(),
        renew_after_seconds: life.as_secs() * 2 / 3,
    })
}

fn new_id() -> Result<String, ApiError> {
    let random =
        authority::random::<16>().map_err(|_| ApiError::internal(&AuthorityError::Random))?;
    Ok(format!("i-{:032x}", u128::from_be_bytes(random)))
}
