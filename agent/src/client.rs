//! Receives requests of the wire; hands back the collector's answers, bounded and understood.
//!
//! HTTP/1.1 over TLS by rustls with ring, one request at a time on a connection that is kept. Whom to trust is decided in
//! [`trust`], who we are in [`credentials`]; both can be replaced while the client lives.

pub mod credentials;
mod cryptography;
pub mod trust;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use drift::enrolment::{EnrolRequest, Identity, Refusal, RenewRequest};
use drift::report::Verdict;
use reqwest::{Method, StatusCode, header};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;

use crate::clock::TlsClock;
use crate::log::peer_words;
use credentials::Credentials;
use cryptography::cryptography;
use trust::Trust;

/// Speaks to one collector.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    tls: ClientConfig,
    http: reqwest::Client,
}

/// A machine in the same region answers a connection in milliseconds; one that needs longer than this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A part of a megabyte over a slow line, and a collector that waits for its disk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the default heartbeat, so that heartbeats share a connection; the collector keeps it a little longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// A connection whose other end is gone is noticed in this time.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// An identity carries two PEM bundles; nothing else is nearly as long.
const MAX_ANSWER_BYTES: usize = 512 * 1024;

impl Client {
    /// Makes a client of the collector at `url`, `https://HOST:PORT`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(
        url: &str,
        trust: Arc<Trust>,
        credentials: Arc<Credentials>,
        clock: &TlsClock,
    ) -> Result<Self, ClientError> {
        let provider = cryptography();
        let mut tls = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()
            .map_err(ClientError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(trust)
            .with_client_cert_resolver(credentials);
        // With a configuration of our own, reqwest offers no protocols by itself.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = connections(tls.clone())?;
        Ok(Client {
            url: url.trim_end_matches('/').to_owned(),
            tls,
            http,
        })
    }

    /// The collector's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes what is connected once it is idle, so that the next request shows the certificate that is current.
    pub fn reconnect(&mut self) {
        // Sessions are forgotten with their connections: a resumed one would still speak for the old certificate.
        self.tls.resumption = rustls::client::Resumption::default();
        if let Ok(http) = connections(self.tls.clone()) {
            self.http = http;
        }
    }

    /// `POST /v1/enroll`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<Identity, ClientError> {
        self.post(
            "/v1/enroll",
            serde_json::to_vec(request).expect("a plain struct"),
        )
        .await
    }

    /// `POST /v1/renew`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renew(&self, request: &RenewRequest) -> Result<Identity, ClientError> {
        self.post(
            "/v1/renew",
            serde_json::to_vec(request).expect("a plain struct"),
        )
        .await
    }

    /// `POST /v1/reports`, with a report that was already written as JSON: the same bytes every time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn report(&self, body: Vec<u8>) -> Result<Verdict, ClientError> {
        self.post("/v1/reports", body).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let unreachable = |source: reqwest::Error| {
            let url = self.url.clone();
            match rustls_error(&source) {
                Some(rustls::Error::InvalidCertificate(refused)) if is_about_time(refused) => {
                    let clock = wall_clock();
                    ClientError::Clock { url, clock, source }
                }
                _ => ClientError::Unreachable { url, path, source },
            }
        };
        let request = self
            .http
            .request(Method::POST, format!("{}{path}", self.url));
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if text.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::Answer {
                    path,
                    problem: "it is too long".into(),
                });
            }
            text.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK {
            return serde_json::from_slice(&text).map_err(|error| ClientError::Answer {
                path,
                problem: peer_words(&error.to_string()),
            });
        }
        Err(refused(path, status, &text))
    }
}

fn connections(tls: ClientConfig) -> Result<reqwest::Client, ClientError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(1)
        .tcp_keepalive(KEEP_ALIVE_INTERVAL)
        .user_agent(concat!("driftmark-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(ClientError::Http)
}

fn refused(path: &'static str, status: StatusCode, text: &[u8]) -> ClientError {
    let refusal = serde_json::from_slice::<Refusal>(text)
        .ok()
        .filter(|_| status.is_client_error());
    match refusal {
        Some(refusal) => ClientError::Refused {
            path,
            status: status.as_u16(),
            code: peer_words(&refusal.code),
            message: peer_words(&refusal.message),
        },
        None => ClientError::Answer {
            path,
            problem: format!("status {status}"),
        },
    }
}

/// Why a request has no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TLS.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// No HTTP.
    #[error("set up HTTP")]
    Http(#[source] reqwest::Error),
    /// The collector is away, or it is not the collector.
    #[error("reach {url}{path}")]
    Unreachable {
        /// The collector's address.
        url: String,
        /// The route.
        path: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// The collector's certificate is not valid now, by this machine's clock.
    #[error(
        "the certificate of {url} is not valid at {clock}, by this machine's clock: set the clock if it is wrong; this is tried again then"
    )]
    Clock {
        /// The collector's address.
        url: String,
        /// What the clock says.
        clock: String,
        /// What TLS says.
        source: reqwest::Error,
    },
    /// The collector understood and said no.
    #[error("{path} was refused with {status} `{code}`: {message}")]
    Refused {
        /// The route.
        path: &'static str,
        /// HTTP status.
        status: u16,
        /// Its stable word.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// Something that is not an answer of a collector, or a collector in trouble.
    #[error("{path} was answered by something that helps nobody: {problem}")]
    Answer {
        /// The route.
        path: &'static str,
        /// What was wrong.
        problem: String,
    },
}

/// What to do about a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same again, later: the collector is away, in trouble, or does not welcome us at the moment.
    Later,
    /// Never this one again: the collector understood it and will not have it.
    Drop,
}

impl ClientError {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            // 401 and 403 are about us, 408, 425 and 429 about now; none of them is about this request.
            ClientError::Refused {
                status: 400 | 409 | 413 | 415 | 422,
                ..
            } => Remedy::Drop,
            _ => Remedy::Later,
        }
    }

    /// Whether TLS refused the other side's certificate: it is there, and it is not who it should be.
    pub fn is_mistrust(&self) -> bool {
        matches!(
            self.source().and_then(rustls_error),
            Some(rustls::Error::InvalidCertificate(_))
        )
    }

    /// Whether all that was wrong with it was the time.
    pub fn is_about_time(&self) -> bool {
        matches!(self, ClientError::Clock { .. })
    }
}

/// TLS's own word in a chain of causes, and in what `io::Error` wraps without naming it as its cause.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let within = || error.downcast_ref::<std::io::Error>()?.get_ref();
    error
        .downcast_ref()
        .or_else(|| within().and_then(|inner| rustls_error(inner)))
        .or_else(|| error.source().and_then(rustls_error))
}

fn is_about_time(refused: &rustls::CertificateError) -> bool {
    use rustls::CertificateError as Refused;
    matches!(
        refused,
        Refused::Expired
            | Refused::ExpiredContext { .. }
            | Refused::NotValidYet
            | Refused::NotValidYetContext { .. }
    )
}

fn wall_clock() -> String {
    let seconds = crate::clock::Now::read().clock_seconds();
    drift::statement::Timestamp::from_unix_seconds(seconds)
        .map_or_else(|| seconds.to_string(), |time| time.to_string())
}
