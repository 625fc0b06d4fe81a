//! Receives a policy; hands on a collector with a signed image, the machines that belong there, and a witness of what
//! an attack changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drift::enrolment::JoinToken;
use drift::report::ImageRef;
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::{Collector, CollectorOptions, Program};
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::wire::{Answer, Wire};

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
