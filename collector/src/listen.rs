//! Receives TCP connections, hands on requests together with who sent them.
//!
//! A handshake runs in a task of its own and has ten seconds, so that a slow or silent peer holds nobody up. Client
//! certificates are optional in the handshake and required by the routes that need one: an instance that has none yet
//! must be able to enrol. The certificate says which instance it is; whether that instance may still speak is asked of
//! the store on every request.

mod clients;
mod idle;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::authority::Presented;

pub use clients::Clients;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// What its client certificate says; TLS has verified it. None where it has none.
    pub presented: Option<Arc<Presented>>,
}

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections of agents: the hundred thousand that one collector is made for, and some.
const AGENTS: usize = 120_000;
/// Connections of operators: people, and a few programs.
const OPERATORS: usize = 1_024;
/// Connections at the agents' port without a certificate: whoever enrols. Anybody can open these, and each may make us
/// hold a megabyte, so that they must neither fill the memory nor keep enrolled agents out.
const STRANGERS: usize = 1_024;
/// How long such a connection lasts: enough for a request that takes its full time, and then the next may enrol.
const STRANGER_STAYS: Duration = Duration::from_secs(60);
/// Requests at once on one connection: operators send a few, agents speak HTTP/1.1.
const STREAMS: u32 = 16;
/// A connection that does not answer a ping this often is closed.
const PING_EVERY: Duration = Duration::from_secs(300);
/// How long it has for the answer.
const PING_ANSWER: Duration = Duration::from_secs(20);
/// Longest wait for the head of an HTTP/1 request, and so for the next request, of whoever shows no certificate.
const HEAD: Duration = Duration::from_secs(10);
/// The same of agents: longer than they keep a connection for the next heartbeat, so that it is they who close it.
const AGENT_HEAD: Duration = Duration::from_secs(320);
/// Whoever shows no certificate and asks nothing for this long is let go: enrolling takes a second, operators come back,
/// and nobody is to hold a place for nothing.
const STRANGER_IDLE: Duration = Duration::from_secs(20);
/// Longest wait for open requests when stopping.
const STOPPING: Duration = Duration::from_secs(10);
/// A listener that cannot accept (no file descriptors) tries again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Whose port it is, and thereby how many have room at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Agents show a certificate, but for those that enrol.
    Agents,
    /// Operators show a token, never a certificate.
    Operators,
}

impl Port {
    fn connections(self) -> usize {
        match self {
            Port::Agents => AGENTS,
            Port::Operators => OPERATORS,
        }
    }

    /// How many may be there without a certificate.
    fn strangers(self) -> usize {
        match self {
            Port::Agents => STRANGERS,
            Port::Operators => OPERATORS,
        }
    }

    /// How long somebody without a certificate may stay.
    fn stranger_stays(self) -> Duration {
        match self {
            Port::Agents => STRANGER_STAYS,
            Port::Operators => Duration::MAX,
        }
    }
}

/// Makes ring the process's one crypto library; later calls do nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The server's certificate, which is replaced while it serves.
#[derive(Debug)]
pub struct ServerCertificate(std::sync::RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// The first one.
    pub fn new(first: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(ServerCertificate(std::sync::RwLock::new(first)))
    }

    /// The next one, for connections from now on.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        *self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = next;
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self
                .0
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        ))
    }
}

/// TLS for agents: a client certificate of our authority, or none.
///
/// # Errors
/// The crypto library lacks a protocol version.
pub fn agents_tls(
    server: Arc<ServerCertificate>,
    clients: &Clients,
) -> Result<ServerConfig, rustls::Error> {
    let builder = versions()?.with_client_cert_verifier(clients.verifier());
    Ok(with_protocols(builder.with_cert_resolver(server)))
}

/// TLS for operators: they show a token, not a certificate.
///
/// # Errors
/// The crypto library lacks a protocol version.
pub fn operators_tls(server: Arc<ServerCertificate>) -> Result<ServerConfig, rustls::Error> {
    Ok(with_protocols(
        versions()?.with_no_client_auth().with_cert_resolver(server),
    ))
}

fn versions() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
}

fn with_protocols(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Serves `router` at `listener` until `stop` is true, then lets open requests end.
pub async fn serve(
    port: Port,
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(port.connections()));
    let door = Door {
        port,
        strangers: Arc::new(Semaphore::new(port.strangers())),
    };
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let (acceptor, router, watcher, door) = (
                    acceptor.clone(),
                    router.clone(),
                    graceful.watcher(),
                    door.clone(),
                );
                tokio::spawn(async move {
                    connection(acceptor, stream, address, router, watcher, door).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOPPING, graceful.shutdown()).await;
}

/// What decides who may stay.
#[derive(Debug, Clone)]
struct Door {
    port: Port,
    strangers: Arc<Semaphore>,
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    watcher: Watcher,
    door: Door,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        tracing::debug!(%address, "a handshake was not finished");
        return;
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let presented = certificate
        .and_then(|certificate| Presented::read(certificate).ok())
        .map(Arc::new);
    let (stays, _place) = if presented.is_some() {
        (Duration::MAX, None)
    } else {
        let place = tokio::time::timeout(HANDSHAKE, door.strangers.acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            tracing::debug!(%address, "there are too many connections without a certificate");
            return;
        };
        (door.port.stranger_stays(), Some(place))
    };
    let peer = Peer { address, presented };
    let is_stranger = peer.presented.is_none();
    let activity = Arc::new(idle::Activity::default());
    let requests = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let open = requests.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        let answer = router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(open);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_stranger { HEAD } else { AGENT_HEAD });
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    tokio::select! {
        served = watcher.watch(served) => {
            if let Err(error) = served {
                tracing::debug!(%address, error = %error, "a connection broke off");
            }
        }
        () = tokio::time::sleep(stays) => {
            tracing::debug!(%address, "a connection without a certificate has had its time");
        }
        () = activity.until_idle(STRANGER_IDLE), if is_stranger => {
            tracing::debug!(%address, "a stranger asked nothing for too long");
        }
    }
}
