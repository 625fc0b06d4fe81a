//! Receives requests for one collector; hands on its answers, over one HTTP/2 connection that requests share.
//!
//! A connection lasts until it breaks, was idle for long, or left a request without an answer. One that broke while it
//! was idle took nothing with it: the request that finds out is sent once more, over a new one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{Method, Request, StatusCode, Version, header};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::proxy::{Proxy, ProxyError};
use super::target::Target;
use crate::clock::Now;

/// A machine in the same region answers a connection in milliseconds; one that needs longer than this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A part of a megabyte over a slow line, and a collector that waits for its disk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the default heartbeat, so that heartbeats share a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// A machine that is gone takes in nothing: the kernel gives a connection up that sent for so long in vain.
const UNHEARD_MILLISECONDS: u32 = 30_000;
/// How long each address of a name is tried alone (RFC 8305 §5): one that does not answer delays by no more.
const STAGGER: Duration = Duration::from_millis(250);
/// More addresses than a collector has.
const MAX_ADDRESSES: usize = 16;
/// An identity carries two PEM bundles; nothing else is nearly as long.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// A collector's headers have a few hundred bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The way to one collector. Connects when there is something to send.
pub(super) struct Connection {
    tls: TlsConnector,
    current: Mutex<Option<Open>>,
}

struct Open {
    requests: SendRequest<Bytes>,
    /// When it was last used, by time since boot.
    used: Duration,
}

/// How old the connection is that a request goes over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// Made for it.
    New,
    /// It may have broken since it was last used.
    Kept,
}

impl Connection {
    pub(super) fn new(tls: ClientConfig) -> Self {
        Connection {
            tls: TlsConnector::from(Arc::new(tls)),
            current: Mutex::new(None),
        }
    }

    /// `POST` of JSON. Status and body of the answer, whatever they are.
    ///
    /// # Errors
    /// There is no whole answer of at most [`MAX_ANSWER_BYTES`].
    pub(super) async fn post(
        &self,
        target: &Target,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Vec<u8>), Broken> {
        let body = Bytes::from(body);
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, self.ask(target, path, body)).await;
        let answer = asked.unwrap_or(Err(Broken::Silent));
        if answer.is_err() {
            *self.current.lock().await = None;
        }
        answer
    }

    async fn ask(
        &self,
        target: &Target,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), Broken> {
        let (requests, age) = self.connected(target).await?;
        match exchange(requests, request(target, path), body.clone()).await {
            Err(Broken::Http(error)) if age == Age::Kept && was_not_taken(&error) => {
                *self.current.lock().await = None;
                let (requests, _) = self.connected(target).await?;
                exchange(requests, request(target, path), body).await
            }
            outcome => outcome,
        }
    }

    /// The connection, made if there is none: others wait for it meanwhile and then share it.
    async fn connected(&self, target: &Target) -> Result<(SendRequest<Bytes>, Age), Broken> {
        let mut current = self.current.lock().await;
        let now = Now::read().uptime;
        if let Some(open) = current
            .as_mut()
            .filter(|open| now.saturating_sub(open.used) < IDLE_TIMEOUT)
        {
            open.used = now;
            return Ok((open.requests.clone(), Age::Kept));
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(target, &self.tls));
        let requests = connecting.await.unwrap_or(Err(Broken::Slow))?;
        *current = Some(Open {
            requests: requests.clone(),
            used: now,
        });
        Ok((requests, Age::New))
    }
}

fn request(target: &Target, path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = target.route(path);
    let headers = request.headers_mut();
    let words = [
        (header::CONTENT_TYPE, "application/json"),
        (
            header::USER_AGENT,
            concat!("driftmark-agent/", env!("CARGO_PKG_VERSION")),
        ),
    ];
    for (name, value) in words {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    request
}

/// Sends one request and reads its answer.
async fn exchange(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
) -> Result<(StatusCode, Vec<u8>), Broken> {
    let mut requests = requests.ready().await?;
    let (answer, mut sending): (ResponseFuture, _) = requests.send_request(request, false)?;
    // What the other end has no room for yet waits in the connection, and is this body alone.
    sending.send_data(body, true)?;
    let (head, mut body) = answer.await?.into_parts();
    Ok((head.status, read(&mut body).await?))
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Broken> {
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if text.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Broken::TooLong);
        }
        body.flow_control().release_capacity(chunk.len())?;
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// Whether the connection was over before the request was looked at, as far as this end can tell.
fn was_not_taken(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)
}

/// From a name to a connection that takes requests.
async fn connect(target: &Target, tls: &TlsConnector) -> Result<SendRequest<Bytes>, Broken> {
    let stream = match Proxy::for_host(&target.host)? {
        None => reach(&target.host, target.port).await?,
        Some(proxy) => {
            let stream = reach(&proxy.host, proxy.port).await?;
            proxy.tunnel(stream, &target.place()).await?
        }
    };
    let name = ServerName::try_from(target.host.clone()).map_err(|_| Broken::Name {
        host: target.host.clone(),
    })?;
    let stream = tls.connect(name, stream).await.map_err(Broken::Tls)?;
    if stream.get_ref().1.alpn_protocol() != Some(&b"h2"[..]) {
        return Err(Broken::OtherProtocol);
    }
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEADER_BYTES)
        .handshake(stream)
        .await?;
    // It ends with the last who can send over it; why it broke, its requests hear.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(requests)
}

/// Connects to the first address of `host` that answers.
async fn reach(host: &str, port: u16) -> Result<TcpStream, Broken> {
    let unknown = |source| Broken::Unknown {
        host: host.to_owned(),
        source,
    };
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(unknown)?;
    let mut attempts = JoinSet::new();
    let mut wait = Duration::ZERO;
    for address in addresses.take(MAX_ADDRESSES) {
        attempts.spawn(async move {
            tokio::time::sleep(wait).await;
            let stream = TcpStream::connect(address).await;
            stream.map_err(|source| Broken::Unreachable { address, source })
        });
        wait += STAGGER;
    }
    let mut failed = unknown(std::io::ErrorKind::AddrNotAvailable.into());
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => {
                // Without either it is a slower connection, and still one.
                let _ = stream.set_nodelay(true);
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNHEARD_MILLISECONDS);
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The name has no address.
    #[error("look up {host}")]
    Unknown {
        /// The name.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// An address that does not answer.
    #[error("connect to {address}")]
    Unreachable {
        /// Which, the last that was tried.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody has such a name.
    #[error("`{host}` is no name of a host")]
    Name {
        /// Which.
        host: String,
    },
    /// The way there.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The other end is not who it should be, or does not speak TLS 1.3.
    #[error("begin TLS")]
    Tls(#[source] std::io::Error),
    /// The other end speaks TLS, and then not HTTP/2.
    #[error("the other end does not speak HTTP/2")]
    OtherProtocol,
    /// A connection that broke, or words that are not HTTP/2.
    #[error("exchange messages")]
    Http(#[from] h2::Error),
    /// It takes too long to connect.
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Slow,
    /// It takes too long to answer.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Silent,
    /// No answer of a collector is as long.
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
}
