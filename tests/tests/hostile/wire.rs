//! Receives an address and whatever credentials; hands on what the other end answers, also to what no client sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, Version};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::Value;

/// Longer than every time limit of the collector.
const PATIENCE: Duration = Duration::from_secs(45);

/// A certificate chain and its key, DER.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// One end of connections to a port of the collector, by HTTP/2, or as agents speak it.
#[derive(Debug)]
pub(crate) struct Wire {
    url: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    /// Speaks HTTP/2 to `address`.
    pub(crate) fn to(address: &str, credentials: Option<&Credentials>) -> Result<Self> {
        Self::with(address, credentials, &[b"h2"])
    }

    /// Speaks HTTP/1.1 to `address`, as agents do.
    pub(crate) fn old(address: &str, credentials: Option<&Credentials>) -> Result<Self> {
        Self::with(address, credentials, &[b"http/1.1"])
    }

    fn with(address: &str, credentials: Option<&Credentials>, protocols: &[&[u8]]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(credentials, protocols)?)
            .no_proxy()
            .timeout(PATIENCE);
        let http = if protocols == [b"h2"] {
            builder.http2_prior_knowledge()
        } else {
            builder.http1_only()
        };
        let http = http.build().context("make a client")?;
        Ok(Self {
            url: format!("https://{address}"),
            http,
            runtime,
        })
    }

    /// Sends a body as it is.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer> {
        let method = Method::from_bytes(method.as_bytes()).context("a method")?;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let response = request
                .send()
                .await
                .with_context(|| format!("ask {path}"))?;
            let (status, version) = (response.status().as_u16(), response.version());
            let headers = response.headers().clone();
            let body = response.bytes().await.context("read the answer")?.to_vec();
            Ok(Answer {
                status,
                version,
                headers,
                body,
            })
        })
    }

    /// `POST` of JSON.
    pub(crate) fn post<T: serde::Serialize + ?Sized>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<Answer> {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            serde_json::to_vec(body)?,
        )
    }
}

impl Answer {
    /// Its body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("understand {self:?}"))
    }

    /// Its body, if it is a success.
    pub(crate) fn granted<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        ensure!(
            self.status == 200,
            "refused with {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        serde_json::from_slice(&self.body).with_context(|| format!("understand {self:?}"))
    }

    /// Is satisfied by a refusal that says what is wrong: this status, this word, and a sentence.
    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, code: &str) {
        let shown = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "wanted {code}: {shown}");
        let refusal: drift::enrolment::Refusal = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{status} without a reason ({error}): {shown}"));
        assert_eq!(refusal.code, code, "{shown}");
        assert!(
            refusal.message.len() >= 10 && refusal.message.len() < 1000,
            "no sentence: {shown}"
        );
        assert!(
            !refusal.message.chars().any(char::is_control),
            "control characters: {shown}"
        );
    }
}

/// A TLS connection without anything that speaks HTTP over it.
pub(crate) type Raw = StreamOwned<ClientConnection, TcpStream>;

/// Connects and finishes the handshake. With TLS 1.3 the other end may still refuse the certificate: reading says so.
pub(crate) fn raw(address: &str, credentials: Option<&Credentials>) -> Result<Raw> {
    let socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").context("a name")?;
    let tls = ClientConnection::new(Arc::new(tls(credentials, &[b"http/1.1"])?), name)
        .context("begin TLS")?;
    let mut stream = StreamOwned::new(tls, socket);
    while stream.conn.is_handshaking() {
        stream
            .conn
            .complete_io(&mut stream.sock)
            .context("shake hands")?;
    }
    Ok(stream)
}

/// Writes bytes, and reads until the other end has nothing more to say.
pub(crate) fn say(stream: &mut Raw, bytes: &[u8]) -> std::io::Result<String> {
    // The other end may refuse before it has read everything: what it says is read all the same.
    let written = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if answer.is_empty() => return Err(written.err().unwrap_or(error)),
        Err(_) => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What TLS makes of these credentials: nothing if they are taken, else the alert.
pub(crate) fn handshake_refusal(
    address: &str,
    credentials: &Credentials,
) -> Result<Option<String>> {
    let mut stream = match raw(address, Some(credentials)) {
        Ok(stream) => stream,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let request = "POST /v1/reports HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    match say(&mut stream, request.as_bytes()) {
        Ok(answer) if answer.starts_with("HTTP/1.1 ") => Ok(None),
        Ok(answer) => Ok(Some(format!("no answer: {answer:?}"))),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn tls(credentials: Option<&Credentials>, protocols: &[&[u8]]) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(Credentials { chain, key }) => {
            let key = rustls::crypto::ring::sign::any_supported_type(key).context("use a key")?;
            let certified = rustls::sign::CertifiedKey::new(chain.clone(), key);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                certified,
            )))
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// An attacker does not care whom they talk to.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
