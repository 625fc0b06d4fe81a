//! A real collector on loopback, and agents that speak to it over real mutual TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use drift::coverage::{Coverage, ScanRecord};
use drift::enrolment::{EnrolRequest, Identity, JoinToken, Refusal, RenewRequest};
use drift::finding::{Drift, DriftId, DriftKind, set_digest};
use drift::report::{
    AgentBuild, ImageRef, OpenDrift, Part, Phase, Report, RunId, StateUpdate, Verdict,
};
use drift::{Blake3, Sha256, TreePath};
use driftmark_collector::config::Config;
use driftmark_collector::replace::Launcher;
use driftmark_collector::serve::Collector;
use driftmark_collector::store::{StoreError, images};
use rcgen::{CertificateParams, KeyPair};
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct World {
    pub(crate) collector: Collector,
    pub(crate) directory: TempDir,
    remote: Remote,
}

/// What agents and operators know of a collector.
pub(crate) struct Remote {
    ca: reqwest::Certificate,
    agents: SocketAddr,
    operators: SocketAddr,
    first_token: String,
}

pub(crate) type Answer<T> = Result<T, (StatusCode, String)>;

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn restart(self) -> Self {
        self.collector.stop().await;
        Self::of(self.directory, |_| {}).await
    }

    async fn of(directory: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let config = config(&directory, change);
        let launcher = Launcher::start().unwrap();
        let collector = Collector::start(config, launcher).await.unwrap();
        let config = &collector.app.config;
        let remote = Remote::at(&config.data, config.agents, config.operators);
        World {
            collector,
            directory,
            remote,
        }
    }

    pub(crate) async fn register_image(&self) {
        let new = images::NewBuild {
            image: image(),
            sha256: Sha256::of(b"manifest"),
            entries: 1,
            envelope: "{}".into(),
            statement: "{}".into(),
            signers: Vec::new(),
            expires_at_ms: None,
        };
        let registered: Result<(), StoreError> = self
            .collector
            .app
            .store
            .write(move |tx| Ok(images::register(tx, &new, "test", 0)?))
            .await;
        registered.unwrap();
    }
}

impl std::ops::Deref for World {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Remote {
    pub(crate) fn at(data: &Path, agents: SocketAddr, operators: SocketAddr) -> Self {
        let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
        let ca = reqwest::Certificate::from_pem(read("ca.pem").as_bytes()).unwrap();
        Remote {
            ca,
            agents,
            operators,
            first_token: read("operator.token").trim().to_owned(),
        }
    }

    pub(crate) fn agents(&self, path: &str) -> String {
        format!("https://{}{path}", self.agents)
    }

    pub(crate) fn operators(&self, path: &str) -> String {
        format!("https://{}{path}", self.operators)
    }

    pub(crate) fn anonymous(&self) -> reqwest::Client {
        client(&self.ca).build().unwrap()
    }

    pub(crate) async fn operate<T: DeserializeOwned>(
        &self,
        token: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer<T> {
        let http = self.anonymous();
        let request = match &body {
            Some(body) => http.post(self.operators(path)).json(body),
            None => http.get(self.operators(path)),
        };
        answer(request.bearer_auth(token).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.operate(&self.first_token, path, None).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.operate(&self.first_token, path, Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn token(&self, cloud_id: Option<&str>) -> JoinToken {
        let new = json!({"fleet": "web", "cloud_id": cloud_id, "ttl_seconds": 60, "uses": 1});
        let made = self.post("/v1/tokens", new).await;
        JoinToken::parse(made["text"].as_str().unwrap()).unwrap()
    }

    pub(crate) async fn enrol(
        &self,
        token: &JoinToken,
        key: &KeyPair,
        cloud_id: Option<&str>,
    ) -> Answer<Identity> {
        let request = EnrolRequest {
            token: token.secret.clone(),
            csr: csr(key),
            cloud_id: cloud_id.map(ToOwned::to_owned),
            fleet: None,
            image: Some(image()),
            boot_id: "boot".into(),
        };
        answer(
            self.anonymous()
                .post(self.agents("/v1/enroll"))
                .json(&request)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn agent(&self, cloud_id: &str) -> Agent {
        let key = KeyPair::generate().unwrap();
        let token = self.token(Some(cloud_id)).await;
        let identity = self.enrol(&token, &key, Some(cloud_id)).await.unwrap();
        Agent::new(self, key, identity)
    }

    pub(crate) async fn ledger_kinds(&self) -> Vec<String> {
        let ledger = self.get("/v1/ledger").await;
        let entries = ledger.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| entry["kind"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

fn config(directory: &TempDir, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::of(directory.path().join("data"));
    config.agents.set_port(0);
    config.operators.set_port(0);
    change(&mut config);
    config
}

fn client(ca: &reqwest::Certificate) -> reqwest::ClientBuilder {
    driftmark_collector::listen::install_crypto();
    reqwest::Client::builder()
        .tls_certs_only([ca.clone()])
        .no_proxy()
        .timeout(Duration::from_secs(30))
}

pub(crate) async fn answer<T: DeserializeOwned>(response: reqwest::Response) -> Answer<T> {
    let status = response.status();
    let body = response.bytes().await.unwrap();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).unwrap());
    }
    let refusal: Refusal = serde_json::from_slice(&body)
        .unwrap_or_else(|_| panic!("{status}: {}", String::from_utf8_lossy(&body)));
    Err((status, refusal.code))
}

pub(crate) fn image() -> ImageRef {
    ImageRef {
        name: "web".into(),
        version: "1".into(),
        build: "amd64".into(),
        manifest: Blake3::of(b"manifest"),
    }
}

pub(crate) fn csr(key: &KeyPair) -> String {
    CertificateParams::default()
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap()
}

pub(crate) struct Agent {
    pub(crate) key: KeyPair,
    pub(crate) identity: Identity,
    pub(crate) http: reqwest::Client,
    pub(crate) run: RunId,
    pub(crate) sequence: u64,
    pub(crate) open: Vec<DriftId>,
    url: String,
}

impl Agent {
    pub(crate) fn new(world: &Remote, key: KeyPair, identity: Identity) -> Self {
        let pem = format!("{}{}", identity.certificate, key.serialize_pem());
        let proof = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        let http = client(&world.ca).identity(proof).build().unwrap();
        Agent {
            key,
            identity,
            http,
            run: RunId([1; 16]),
            sequence: 0,
            open: Vec::new(),
            url: world.agents(""),
        }
    }

    /// A report with nothing in it, numbered next.
    pub(crate) fn heartbeat(&mut self) -> Report {
        self.sequence += 1;
        let mut open = self.open.clone();
        open.sort_unstable();
        Report {
            run: self.run,
            sequence: self.sequence,
            previous_run: None,
            part: Part::only(self.sequence),
            agent: AgentBuild {
                version: "0.1.0".into(),
                minor: 0,
                features: Vec::new(),
            },
            boot_id: "boot".into(),
            phase: Phase::Running,
            image: Some(image()),
            unverifiable: None,
            states: StateUpdate::Change,
            opened: Vec::new(),
            closed: Vec::new(),
            open_count: self.open.len() as u64,
            set_digest: set_digest(open),
            moments: Vec::new(),
            dropped_moments: 0,
            held_whole: false,
            held: Vec::new(),
            coverage: Coverage {
                seen: Some(ScanRecord::default()),
                ..Coverage::default()
            },
            agent_clock: 0,
            uptime_seconds: 1,
        }
    }

    /// A report that opens these.
    pub(crate) fn opening(&mut self, drifts: Vec<OpenDrift>) -> Report {
        self.open.extend(drifts.iter().map(|open| open.id));
        Report {
            opened: drifts,
            ..self.heartbeat()
        }
    }

    pub(crate) fn reports_url(&self) -> String {
        format!("{}/v1/reports", self.url)
    }

    pub(crate) async fn send(&self, report: &Report) -> Answer<Verdict> {
        answer(
            self.http
                .post(self.reports_url())
                .json(report)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn renew(&self, key: &KeyPair) -> Answer<Identity> {
        self.post(
            "/v1/renew",
            &RenewRequest {
                csr: csr(key),
                expired: None,
            },
        )
        .await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Answer<T> {
        answer(
            self.http
                .post(format!("{}{path}", self.url))
                .json(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }
}

pub(crate) fn drift(number: usize) -> OpenDrift {
    let path = TreePath::new(format!("usr/bin/tool-{number}").as_bytes()).unwrap();
    let meaning = drift::class::classify(&path, &DriftKind::Added, Default::default(), None);
    let drift = Drift {
        attribution: None,
        path,
        kind: DriftKind::Added,
        changed: Default::default(),
        found: None,
        detail: None,
        class: meaning.class,
        severity: meaning.severity,
        technique: Vec::new(),
    };
    OpenDrift {
        id: drift.id(),
        drift,
        host_package: None,
    }
}
