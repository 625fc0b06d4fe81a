//! A collector on the loopback for the agent's tests: real TLS, real certificates, real HTTP/1.1; the judgement is the
//! test's. (The real collector takes its place in the stories of `tests/`.)

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drift::Sha256;
use drift::enrolment::{EnrolRequest, Identity, JoinToken, Refusal, RenewRequest};
use drift::report::{ExecutingOrder, InstanceState, Report, Settings, Verdict};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// How the collector behaves, and what it saw.
pub(crate) struct World {
    pub(crate) enrol_requests: Vec<EnrolRequest>,
    pub(crate) renew_requests: Vec<(RenewRequest, Option<Vec<u8>>)>,
    /// Reports that it took, with the client certificate they came with.
    pub(crate) reports: Vec<(Report, Vec<u8>)>,
    /// Answers to drop after taking the request.
    pub(crate) lose_answers: u32,
    /// What is asked of the next requests: a refusal instead of an answer.
    pub(crate) refuse: Option<(StatusCode, Refusal)>,
    pub(crate) order: Option<ExecutingOrder>,
    /// How long certificates live, from now.
    pub(crate) life: Duration,
    pub(crate) renew_after_seconds: u64,
    pub(crate) protocols: Vec<hyper::Version>,
    ca: Ca,
}

struct Ca {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The running collector.
pub(crate) struct Loopback {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) address: SocketAddr,
    pub(crate) ca: Sha256,
}

/// What a test does wrong with the server's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Right,
    OtherName,
    Expired,
    /// Shows the right CA certificate, with a certificate that another CA signed.
    OfAnotherCa,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Ca {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }
}

impl Loopback {
    pub(crate) fn start() -> Self {
        Self::start_as(Server::Right)
    }

    pub(crate) fn start_as(server: Server) -> Self {
        let ca = Ca::new("loopback CA");
        let digest = driftmark_agent::client::trust::key_digest(&ca.certificate).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_tls(&ca, server);
        let world = Arc::new(Mutex::new(World {
            enrol_requests: Vec::new(),
            renew_requests: Vec::new(),
            reports: Vec::new(),
            lose_answers: 0,
            refuse: None,
            order: None,
            life: Duration::from_secs(86_400),
            renew_after_seconds: 57_600,
            protocols: Vec::new(),
            ca,
        }));
        let shared = world.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, tls, shared));
        });
        Loopback {
            world,
            address,
            ca: digest,
        }
    }

    pub(crate) fn token(&self) -> String {
        let url = format!("https://{}", self.address);
        JoinToken {
            url,
            ca: self.ca,
            secret: "a secret".into(),
        }
        .to_text()
    }

    /// Waits until `found` finds something.
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&World) -> Option<T>) -> T {
        eventually(what, || found(&self.world.lock().unwrap()))
    }
}

/// What `found` finds, once it does.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, with a limit"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn server_tls(ca: &Ca, server: Server) -> Arc<rustls::ServerConfig> {
    let name = if server == Server::OtherName {
        "127.0.0.2"
    } else {
        "127.0.0.1"
    };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if server == Server::Expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let other = Ca::new("loopback CA");
    let issuer = if server == Server::OfAnotherCa {
        &other.issuer
    } else {
        &ca.issuer
    };
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate.clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let clients = clients.allow_unauthenticated().build().unwrap();
    let chain = vec![certificate.der().clone(), ca.certificate.clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

async fn serve(
    listener: std::net::TcpListener,
    tls: Arc<rustls::ServerConfig>,
    world: Arc<Mutex<World>>,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let acceptor = TlsAcceptor::from(tls);
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, world) = (acceptor.clone(), world.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let peer = stream
                .get_ref()
                .1
                .peer_certificates()
                .map(|chain| chain[0].to_vec());
            let service = service_fn(move |request: Request<Incoming>| {
                let (world, peer) = (world.clone(), peer.clone());
                async move { answer(request, &world, peer).await }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    world: &Mutex<World>,
    peer: Option<Vec<u8>>,
) -> Result<Response<String>, LostAnswer> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend_from_slice(frame.map_err(|_| LostAnswer)?.data_ref().unwrap());
    }
    let mut world = world.lock().unwrap();
    world.protocols.push(head.version);
    if let Some((status, refusal)) = world.refuse.clone() {
        return Ok(json(status, &refusal));
    }
    let response = match head.uri.path() {
        "/v1/enroll" => {
            let request: EnrolRequest = serde_json::from_slice(&bytes).unwrap();
            let identity = world.issue(&request.csr);
            world.enrol_requests.push(request);
            json(StatusCode::OK, &identity)
        }
        "/v1/renew" => {
            let request: RenewRequest = serde_json::from_slice(&bytes).unwrap();
            let identity = world.issue(&request.csr);
            world.renew_requests.push((request, peer));
            json(StatusCode::OK, &identity)
        }
        "/v1/reports" => match peer {
            None => json(
                StatusCode::UNAUTHORIZED,
                &Refusal {
                    code: "no-certificate".into(),
                    message: "show one".into(),
                },
            ),
            Some(peer) => {
                let report: Report = serde_json::from_slice(&bytes).unwrap();
                report.check_limits().unwrap();
                let verdict = Verdict {
                    acknowledged: report.sequence,
                    state: InstanceState::Clean,
                    order: world.order.clone(),
                    resend_all: false,
                    settings: Settings {
                        heartbeat_seconds: 1,
                    },
                };
                world.reports.push((report, peer));
                json(StatusCode::OK, &verdict)
            }
        },
        _ => json(
            StatusCode::NOT_FOUND,
            &Refusal {
                code: "no-route".into(),
                message: "no".into(),
            },
        ),
    };
    if world.lose_answers > 0 {
        world.lose_answers -= 1;
        return Err(LostAnswer);
    }
    Ok(response)
}

impl World {
    pub(crate) fn issue(&self, csr: &str) -> Identity {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let now = std::time::SystemTime::now();
        request.params.distinguished_name = rcgen::DistinguishedName::new();
        request
            .params
            .distinguished_name
            .push(DnType::CommonName, "i-00000000000000000000000000000001");
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params.not_before = (now - Duration::from_secs(3600)).into();
        request.params.not_after = (now + self.life).into();
        let certificate = request.signed_by(&self.ca.issuer).unwrap();
        Identity {
            instance: "i-00000000000000000000000000000001".into(),
            fleet: "web".into(),
            certificate: format!("{}{}", certificate.pem(), self.ca.pem),
            trust: self.ca.pem.clone(),
            renew_after_seconds: self.renew_after_seconds,
        }
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<String> {
    Response::builder()
        .status(status)
        .body(serde_json::to_string(value).unwrap())
        .unwrap()
}

#[derive(Debug, thiserror::Error)]
#[error("the answer is lost")]
pub(crate) struct LostAnswer;

impl From<Infallible> for LostAnswer {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
