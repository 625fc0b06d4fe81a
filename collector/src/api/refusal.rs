//! Receives what went wrong, hands on a status and a sentence, and puts refused operators into the ledger.

use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use drift::enrolment::Refusal;
use serde_json::json;

use crate::ledger;
use crate::serve::App;
use crate::store::StoreError;

/// An answer that is not what was asked for.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What it says.
    pub refusal: Refusal,
}

impl ApiError {
    /// Any refusal: a stable word and a sentence that says what to do.
    pub fn refused(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            refusal: Refusal {
                code: code.to_owned(),
                message: message.into(),
            },
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: nobody we know.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    /// 403: not this caller.
    pub fn forbidden(code: &str, message: impl Into<String>) -> Self {
        Self::refused(StatusCode::FORBIDDEN, code, message)
    }

    /// 404: `what` is not there, or not for this caller to see.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::refused(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no {what}"),
        )
    }

    /// 409: it is there, and in a state that does not allow this.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::refused(StatusCode::CONFLICT, code, message)
    }

    /// 503: come back later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500: a bug of ours. The log has the whole chain, the caller only learns that.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(
            error = chain(error),
            "a request was not answered: this is a bug"
        );
        Self::refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the collector's log says what went wrong",
        )
    }
}

/// An error with everything below it, on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        line.push_str(": ");
        line.push_str(&error.to_string());
        next = error.source();
    }
    line
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Commit(_) | StoreError::Stopped | StoreError::Open { .. } => {
                tracing::error!(error = chain(&error), "the database cannot be used");
                ApiError::unavailable("the database cannot be used now; try again later")
            }
            StoreError::Statement(statement) if is_for_later(statement) => {
                tracing::error!(error = chain(&error), "the database cannot be used");
                ApiError::unavailable("the database cannot be used now; try again later")
            }
            StoreError::Statement(_) | StoreError::Migrate { .. } => ApiError::internal(&error),
        }
    }
}

/// Whether the system refused a statement, and not SQLite its text: a full or failing disk is no bug of ours.
fn is_for_later(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
                | ErrorCode::CannotOpen
        )
    )
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Statement(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.refusal.clone())).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Who asked, for the record: the extractor leaves it where the middleware finds it.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker(pub(super) Arc<std::sync::OnceLock<String>>);

/// Writes refused operators (401, 403) into the ledger, within [`App::refusals`]' rate.
pub(super) async fn record(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let asker = Asker::default();
    request.extensions_mut().insert(asker.clone());
    let asked = format!("{} {}", request.method(), request.uri().path());
    let response = worded(next.run(request).await).await;
    let refused = matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    );
    let Some(error) = response
        .extensions()
        .get::<ApiError>()
        .filter(|_| refused)
        .cloned()
    else {
        return response;
    };
    let fits = match asker.0.get() {
        Some(_) => app.refusals.take(),
        None => app.refusals.take_sparingly(),
    };
    if fits {
        let actor = asker
            .0
            .get()
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned());
        let entry = ledger::Entry {
            kind: "request-refused",
            fleet: None,
            subject: None,
            reason: error.refusal.message,
            detail: json!({"request": shorten(&asked), "code": error.refusal.code}),
            actor,
        };
        let at_ms = crate::clock::now_ms();
        let recorded: Result<_, StoreError> = app
            .store
            .write(move |tx| Ok(ledger::append(tx, at_ms, &entry)?))
            .await;
        if let Err(error) = recorded {
            tracing::error!(error = chain(&error), "a refusal could not be recorded");
        }
    }
    response
}

/// Gives a refusal of the framework (no JSON, too long, no such method, too late) the form of ours.
pub(super) async fn worded(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
    if !refused || response.extensions().get::<ApiError>().is_some() {
        return response;
    }
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too-long",
        StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "bad-request",
    };
    let said = axum::body::to_bytes(response.into_body(), MAX_SAID_BYTES).await;
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    let message = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this route does not take that method".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "it took too long: try again later".to_owned(),
        _ if said.is_empty() => status.to_string(),
        _ => drift::escape(said.as_bytes()),
    };
    ApiError::refused(status, code, message).into_response()
}

/// The longest message of the framework that is handed on.
const MAX_SAID_BYTES: usize = 4096;

/// A request line as the ledger keeps it: callers do not decide how long our entries are.
fn shorten(text: &str) -> String {
    drift::escape(text.as_bytes()).chars().take(200).collect()
}
