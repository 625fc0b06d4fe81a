//! Receives a policy; hands on a collector with a signed image, the machines that belong there, and a witness of what
//! an attack changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drift::coverage::{Coverage, ScanRecord};
use drift::enrolment::{EnrolRequest, Identity, JoinToken, RenewRequest};
use drift::finding::{Drift, set_digest};
use drift::report::{
    AgentBuild, ImageRef, OpenDrift, Part, Phase, Report, RunId, StateUpdate, Verdict,
};
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::{Collector, CollectorOptions, Program};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::forge;
use crate::wire::{Answer, Credentials, Wire};

/// The fleet of most stories.
pub(crate) const FLEET: &str = "web";
/// A policy that only looks on.
pub(crate) const OBSERVED: &str =
    "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"observe\"\n";

/// A collector, a signed image, and where its files are.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) collector: Collector,
    /// The image that is registered and last good.
    pub(crate) image: ImageRef,
    home: tempfile::TempDir,
}

impl World {
    /// A collector of one observed fleet.
    pub(crate) fn new() -> Result<Self> {
        Self::with(OBSERVED, "")
    }

    /// A collector with these fleets and these lines of configuration.
    pub(crate) fn with(fleets: &str, configuration: &str) -> Result<Self> {
        let home = tempfile::tempdir().context("make a directory")?;
        let options = CollectorOptions {
            fleets: fleets.to_owned(),
            configuration: configuration.to_owned(),
            ..CollectorOptions::default()
        };
        let collector = Collector::here(options)?;
        let image = ImageRef {
            name: FLEET.to_owned(),
            version: String::new(),
            build: String::new(),
            manifest: drift::Blake3::of(b""),
        };
        let mut world = Self {
            collector,
            image,
            home,
        };
        world.agent(["keygen", "--output", &world.text("keys")])?;
        world
            .collector
            .cli(["key", "add", &world.text("keys/driftmark.pub")])?;
        world.bake("1", "the first")?;
        world.image = world.register("1", Some("stable"))?;
        Ok(world)
    }

    /// A path of this story's own.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.home.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the agent's program to its good end.
    pub(crate) fn agent<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run(Program::Agent.command()?.args(arguments))
    }

    /// Bakes a small tree with this content as this version, signed by the image's key, into a directory of its name.
    pub(crate) fn bake(&self, version: &str, content: &str) -> Result<PathBuf> {
        self.bake_as(version, version, content, "keys")
    }

    /// Bakes a small tree into `directory`, signed by a key of `keys`.
    pub(crate) fn bake_as(
        &self,
        directory: &str,
        version: &str,
        content: &str,
        keys: &str,
    ) -> Result<PathBuf> {
        let root = self.path(format!("{directory}-root"));
        fs::create_dir_all(root.join("etc")).context("make a tree")?;
        fs::create_dir_all(root.join("usr/bin")).context("make a tree")?;
        fs::write(root.join("etc/motd"), content).context("write a file")?;
        fs::write(root.join("usr/bin/tool"), "#!/bin/sh\necho hello\n").context("write a file")?;
        let (root, output) = (root.display().to_string(), self.text(directory));
        let key = self.text(&format!("{keys}/driftmark.key"));
        let bake = [
            "bake",
            "--root",
            &root,
            "--name",
            FLEET,
            "--version",
            version,
            "--build",
            "test",
        ];
        self.agent(
            bake.into_iter()
                .chain(["--output", &output, "--key", &key, "--rules", "none"]),
        )?;
        Ok(self.path(directory).join("image.manifest"))
    }

    /// Registers what was baked into `directory`; gives what agents would call it.
    pub(crate) fn register(&self, directory: &str, channel: Option<&str>) -> Result<ImageRef> {
        let manifest = self.text(&format!("{directory}/image.manifest"));
        let mut arguments = vec!["image", "add", &manifest];
        arguments.extend(
            channel
                .into_iter()
                .flat_map(|channel| ["--channel", channel]),
        );
        let added = self.collector.json(arguments)?;
        let text = |key: &str| {
            added[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{key} in {added}"))
        };
        Ok(ImageRef {
            name: text("name")?,
            version: text("version")?,
            build: text("build")?,
            manifest: text("blake3")?.parse().context("a digest")?,
        })
    }

    /// Nobody's end of the agents' port.
    pub(crate) fn stranger(&self) -> Result<Wire> {
        Wire::to(self.collector.agents(), None)
    }

    /// The first operator's token.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let text = fs::read_to_string(self.collector.data().join("operator.token"))
            .context("read the token")?;
        Ok(text.trim().to_owned())
    }

    /// Asks the operators' port as the first operator.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.ask_as(&self.admin_token()?, method, path, body)
    }

    /// Asks the operators' port with this token.
    pub(crate) fn ask_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Answer> {
        let wire = Wire::to(self.collector.operators(), None)?;
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = if body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(body)?
        };
        wire.send(method, path, &headers, body)
    }

    /// A join token's secret.
    pub(crate) fn secret(&self, fleet: &str, cloud_id: Option<&str>, uses: u32) -> Result<String> {
        let new = json!({"fleet": fleet, "cloud_id": cloud_id, "ttl_seconds": 600, "uses": uses});
        let made: Value = self.ask("POST", "/v1/tokens", &new)?.granted()?;
        Ok(JoinToken::parse(made["text"].as_str().context("a token")?)?.secret)
    }

    /// Enrols a machine of the first image; with a cloud id, with proof of it.
    pub(crate) fn enrol(&self, cloud_id: Option<&str>) -> Result<Machine> {
        self.enrol_in(FLEET, cloud_id, Some(self.image.clone()))
    }

    /// Enrols a machine of a fleet and an image.
    pub(crate) fn enrol_in(
        &self,
        fleet: &str,
        cloud_id: Option<&str>,
        image: Option<ImageRef>,
    ) -> Result<Machine> {
        let secret = self.secret(fleet, cloud_id, 1)?;
        Machine::enrol(self, &secret, cloud_id, image)
    }

    /// Enrols a machine with proof that has reported itself clean.
    pub(crate) fn clean(&self, cloud_id: &str) -> Result<Machine> {
        let mut machine = self.enrol(Some(cloud_id))?;
        machine.report_clean()?;
        ensure!(
            self.instance(&machine.id)?["state"] == "clean",
            "{cloud_id} is not clean"
        );
        Ok(machine)
    }

    /// An instance as operators see it.
    pub(crate) fn instance(&self, id: &str) -> Result<Value> {
        self.ask("GET", &format!("/v1/instances/{id}"), &Value::Null)?
            .granted()
    }

    /// What is known of everybody, by id, without when they were last heard of.
    pub(crate) fn everybody(&self) -> Result<BTreeMap<String, Value>> {
        let listed: Value = self.ask("GET", "/v1/instances", &Value::Null)?.granted()?;
        let listed = listed["instances"].as_array().context("a list")?;
        let id = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
        listed
            .iter()
            .map(|row| {
                let mut whole = self.instance(&id(row))?;
                whole["heard_at_ms"] = Value::Null;
                Ok((id(row), whole))
            })
            .collect()
    }

    /// Every entry of the ledger, the oldest first.
    pub(crate) fn ledger(&self) -> Result<Vec<Value>> {
        let mut entries: Vec<Value> = self
            .ask("GET", "/v1/ledger?limit=1000", &Value::Null)?
            .granted()?;
        entries.reverse();
        Ok(entries)
    }

    /// The entries of one kind that the ledger has beyond the first `after`.
    pub(crate) fn recorded(&self, after: usize, kind: &str) -> Result<Vec<Value>> {
        let entries = self.ledger()?;
        Ok(entries
            .into_iter()
            .skip(after)
            .filter(|entry| entry["kind"] == kind)
            .collect())
    }

    /// Waits until something of the collector is so.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        question: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        until(what, Duration::from_secs(20), question)
            .with_context(|| format!("the collector wrote:\n{}", self.collector.output()))
    }
}

/// A machine with an identity: an agent's side of the wire, without the agent.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) key: KeyPair,
    pub(crate) identity: Identity,
    pub(crate) wire: Wire,
    pub(crate) run: RunId,
    pub(crate) sequence: u64,
    pub(crate) generation: u64,
    pub(crate) image: Option<ImageRef>,
}

impl Machine {
    /// Enrols with a token's secret, claiming to be `cloud_id`.
    pub(crate) fn enrol(
        world: &World,
        secret: &str,
        cloud_id: Option<&str>,
        image: Option<ImageRef>,
    ) -> Result<Self> {
        let key = forge::p256()?;
        let answer = world.stranger()?.post(
            "/v1/enroll",
            &enrolment(secret, &key, cloud_id, image.clone())?,
        )?;
        Self::of(world, answer.granted()?, key, image)
    }

    /// A machine that got this identity.
    pub(crate) fn of(
        world: &World,
        identity: Identity,
        key: KeyPair,
        image: Option<ImageRef>,
    ) -> Result<Self> {
        let credentials = Credentials {
            chain: forge::certificates(&identity.certificate)?,
            key: forge::private(&key),
        };
        Ok(Self {
            id: identity.instance.clone(),
            wire: Wire::to(world.collector.agents(), Some(&credentials))?,
            run: fresh_run(),
            sequence: 0,
            generation: 0,
            key,
            identity,
            image,
        })
    }

    /// Its certificate and key.
    pub(crate) fn credentials(&self) -> Result<Credentials> {
        Ok(Credentials {
            chain: forge::certificates(&self.identity.certificate)?,
            key: forge::private(&self.key),
        })
    }

    /// Its next report: it runs, has scanned everything, and this is open.
    pub(crate) fn next(&mut self, open: &[Drift]) -> Report {
        self.sequence += 1;
        self.generation += 1;
        let mut opened: Vec<OpenDrift> = open
            .iter()
            .map(|drift| OpenDrift {
                id: drift.id(),
                drift: drift.clone(),
            })
            .collect();
        opened.sort_by_key(|open| open.id);
        let scan = ScanRecord {
            entries: 5,
            bytes: 40,
            took_milliseconds: 1,
            ..ScanRecord::default()
        };
        Report {
            run: self.run,
            sequence: self.sequence,
            previous_run: None,
            part: Part::only(self.generation),
            agent: AgentBuild {
                version: "0.1.0".to_owned(),
                minor: 1,
                features: Vec::new(),
            },
            boot_id: "a-boot".to_owned(),
            phase: Phase::Running,
            image: self.image.clone(),
            unverifiable: None,
            states: StateUpdate::Whole,
            open_count: opened.len() as u64,
            set_digest: set_digest(opened.iter().map(|open| open.id)),
            opened,
            closed: Vec::new(),
            moments: Vec::new(),
            dropped_moments: 0,
            held_whole: false,
            held: Vec::new(),
            coverage: Coverage {
                verified_entries: 5,
                expected_entries: 5,
                seen: Some(scan),
                ..Coverage::default()
            },
            agent_clock: 0,
            uptime_seconds: 1,
        }
    }

    /// Sends a report.
    pub(crate) fn send(&self, report: &Report) -> Result<Answer> {
        self.wire.post("/v1/reports", report)
    }

    /// Sends bytes as if they were a report.
    pub(crate) fn send_bytes(&self, body: impl Into<Vec<u8>>) -> Result<Answer> {
        self.wire.send(
            "POST",
            "/v1/reports",
            &[("content-type", "application/json")],
            body,
        )
    }

    /// Reports that nothing is open.
    pub(crate) fn report_clean(&mut self) -> Result<Verdict> {
        let report = self.next(&[]);
        self.send(&report)?.granted()
    }

    /// Reports that this is open.
    pub(crate) fn report_drift(&mut self, open: &[Drift]) -> Result<Verdict> {
        let report = self.next(open);
        self.send(&report)?.granted()
    }

    /// Asks for another certificate over `wire`, with a request by `key`.
    pub(crate) fn renew_over(
        wire: &Wire,
        key: &KeyPair,
        expired: Option<String>,
    ) -> Result<Answer> {
        wire.post(
            "/v1/renew",
            &RenewRequest {
                csr: forge::request(key)?,
                expired,
            },
        )
    }
}

/// What an agent sends to enrol.
pub(crate) fn enrolment(
    secret: &str,
    key: &KeyPair,
    cloud_id: Option<&str>,
    image: Option<ImageRef>,
) -> Result<EnrolRequest> {
    Ok(EnrolRequest {
        token: secret.to_owned(),
        csr: forge::request(key)?,
        cloud_id: cloud_id.map(str::to_owned),
        image,
        boot_id: "a-boot".to_owned(),
    })
}

/// A run that was not heard of.
pub(crate) fn fresh_run() -> RunId {
    use ring::rand::SecureRandom as _;
    let mut run = [0; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut run)
        .expect("the system gives random numbers");
    RunId(run)
}

/// A drift that is worth a replacement, told apart by its number.
pub(crate) fn intrusion(number: usize) -> Drift {
    let drift = json!({
        "path": format!("/usr/bin/added-{number}"), "kind": "added", "class": "program", "severity": "critical",
    });
    serde_json::from_value(drift).expect("a drift")
}
