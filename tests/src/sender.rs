//! Receives a join token; hands on an instance that is nothing but its reports: it speaks the real protocol with a real
//! certificate, and what it reports is whatever the story wants.
//!
//! A report is made once and sent as the same bytes as often as it takes, as agents do.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use drift::TreePath;
use drift::class::{Class, Severity};
use drift::coverage::{Coverage, ScanRecord};
use drift::enrolment::{EnrolRequest, Identity, JoinToken};
use drift::finding::{Drift, DriftId, DriftKind, set_digest};
use drift::report::{
    AgentBuild, ImageRef, Moment, OpenDrift, Part, Phase, Report, RunId, StateUpdate, Verdict,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::collector::Collector;

/// A collector that is asked while it is killed and started again does not answer at once.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// An instance without a machine.
#[derive(Debug)]
pub struct Sender {
    /// The id that the collector issued.
    pub id: String,
    url: String,
    http: reqwest::Client,
    image: ImageRef,
    run: RunId,
    sequence: u64,
    moments: u64,
    open: BTreeMap<DriftId, Drift>,
}

/// A report that was made, and is sent until it is acknowledged.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its number.
    pub sequence: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Sender {
    /// Enrols with a token, as `cloud_id`, on `image`.
    ///
    /// # Errors
    /// The collector refuses it.
    pub async fn enrol(
        collector: &Collector,
        token: &str,
        cloud_id: &str,
        image: &ImageRef,
    ) -> Result<Self> {
        let token = JoinToken::parse(token).context("read the join token")?;
        let ca = fs::read(collector.data().join("ca.pem")).context("read the CA's certificate")?;
        let key = KeyPair::generate().context("make a key")?;
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|csr| csr.pem());
        let request = EnrolRequest {
            token: token.secret,
            csr: csr.context("make a certificate request")?,
            cloud_id: Some(cloud_id.to_owned()),
            fleet: None,
            image: Some(image.clone()),
            boot_id: String::new(),
        };
        let answer = client(&ca, None)?
            .post(format!("{}/v1/enroll", token.url))
            .json(&request)
            .send()
            .await;
        let answer = answer.context("ask for an identity")?;
        let (status, text) = (
            answer.status(),
            answer.text().await.context("read an identity")?,
        );
        let identity: Identity = serde_json::from_str(&text)
            .with_context(|| format!("enrolment was answered with {status}: {text}"))?;
        Ok(Self {
            id: identity.instance.clone(),
            http: client(&ca, Some((&identity, &key)))?,
            url: token.url,
            image: image.clone(),
            run: RunId(rand_run(&key)),
            sequence: 0,
            moments: 0,
            open: BTreeMap::new(),
        })
    }

    /// Makes the next report: one more drift is open, and one more thing happened.
    pub fn make(&mut self) -> Made {
        self.sequence += 1;
        self.moments += 1;
        let drift = added(&format!("srv/{}", self.sequence));
        let happened = added(&format!("srv/moment-{}", self.moments));
        let opened = OpenDrift {
            id: drift.id(),
            drift: drift.clone(),
            host_package: None,
        };
        self.open.insert(drift.id(), drift);
        let moment = Moment {
            number: self.moments,
            drift: happened,
            agent_clock_milliseconds: crate::cloud::now(),
        };
        let report = Report {
            opened: vec![opened],
            moments: vec![moment],
            ..self.heartbeat()
        };
        Made {
            sequence: self.sequence,
            body: serde_json::to_vec(&report).expect("a plain struct"),
        }
    }

    /// Sends a report once.
    ///
    /// # Errors
    /// The collector did not answer, or refused it.
    pub async fn send(&self, made: &Made) -> Result<Verdict> {
        let request = self
            .http
            .post(format!("{}/v1/reports", self.url))
            .body(made.body.clone());
        let answer = request
            .header("content-type", "application/json")
            .send()
            .await
            .context("send a report")?;
        let (status, text) = (
            answer.status(),
            answer.text().await.context("read a verdict")?,
        );
        if !status.is_success() {
            bail!(
                "report {} was answered with {status}: {text}",
                made.sequence
            );
        }
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    /// How many drifts it holds open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The digest of the drifts that it holds open.
    pub fn set_digest(&self) -> drift::Blake3 {
        set_digest(self.open.keys().copied())
    }

    fn heartbeat(&self) -> Report {
        Report {
            run: self.run,
            sequence: self.sequence,
            previous_run: None,
            part: Part::only(self.sequence),
            agent: AgentBuild {
                version: "0".into(),
                ..AgentBuild::default()
            },
            boot_id: String::new(),
            phase: Phase::Running,
            image: Some(self.image.clone()),
            unverifiable: None,
            states: StateUpdate::Change,
            opened: Vec::new(),
            closed: Vec::new(),
            open_count: self.open.len() as u64,
            set_digest: self.set_digest(),
            moments: Vec::new(),
            dropped_moments: 0,
            held_whole: false,
            held: Vec::new(),
            coverage: Coverage {
                seen: Some(ScanRecord::default()),
                ..Coverage::default()
            },
            agent_clock: crate::cloud::now() / 1000,
            uptime_seconds: 1,
        }
    }
}

/// A program that is not in the image.
fn added(path: &str) -> Drift {
    Drift {
        attribution: None,
        path: TreePath::new(path.as_bytes()).expect("a path below the root"),
        kind: DriftKind::Added,
        changed: Default::default(),
        found: None,
        detail: None,
        class: Class::Other,
        severity: Severity::Low,
        technique: Vec::new(),
    }
}

/// 128 bits that no other run has: of a key that was just made.
fn rand_run(key: &KeyPair) -> [u8; 16] {
    let digest = blake3::hash(key.public_key_raw());
    let mut run = [0; 16];
    run.copy_from_slice(&digest.as_bytes()[..16]);
    run
}

fn client(ca: &[u8], identity: Option<(&Identity, &KeyPair)>) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots
            .add(certificate.context("read the CA's certificate")?)
            .context("trust the CA")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => tls.with_no_client_auth(),
        Some((identity, key)) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            tls.with_client_auth_cert(chain.context("read the certificate")?, key)
                .context("use the certificate")?
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(REQUEST_LIMIT);
    client.build().context("set up HTTP")
}
