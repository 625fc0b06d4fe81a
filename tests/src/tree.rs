//! Receives a name; hands on a small tree, baked and signed, and an agent that watches it as a plain process.
//!
//! What needs no machine of its own is told here: many agents on one loopback, an agent with an enormous tree, an agent
//! whose collector is away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::collector::Collector;
use crate::image::{Keys, Workshop};
use crate::patience::until;
use crate::process::{Program, Running, run};

/// Where trees lie if it is there: memory, so that a hundred thousand files are made in a second.
const MEMORY: &str = "/dev/shm";

/// A tree and its agent; dropping it kills the agent and removes the tree.
#[derive(Debug)]
pub struct Tree {
    agent: Option<Running>,
    directory: tempfile::TempDir,
    keys: Keys,
}

impl Tree {
    /// Makes a tree with a few files, and bakes and signs it as image `name` `version`.
    ///
    /// # Errors
    /// A step did not work.
    pub fn new(name: &str, version: &str) -> Result<Self> {
        let program = Program::Agent.path()?;
        let keys = Workshop::open()?.keys(&program)?;
        let parent = if Path::new(MEMORY).is_dir() {
            PathBuf::from(MEMORY)
        } else {
            std::env::temp_dir()
        };
        let directory = tempfile::Builder::new()
            .prefix("driftmark-tree-")
            .tempdir_in(parent)
            .context("make a directory")?;
        let tree = Self {
            agent: None,
            directory,
            keys,
        };
        for (path, content) in [
            ("etc/motd", "welcome\n"),
            ("usr/bin/tool", "#!/bin/sh\n"),
            ("var/lib/kept/empty", ""),
        ] {
            tree.write(path, content)?;
        }
        let mut bake = Command::new(&program);
        bake.arg("bake").arg("--root").arg(tree.root()).args([
            "--name",
            name,
            "--version",
            version,
            "--rules",
            "none",
        ]);
        bake.arg("--key")
            .arg(&tree.keys.private)
            .arg("--output")
            .arg(tree.directory.path());
        run(&mut bake).context("bake a tree")?;
        Ok(tree)
    }

    /// The tree's root.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The agent's own files.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The signed manifest; its signature is beside it.
    pub fn manifest(&self) -> PathBuf {
        self.directory.path().join("image.manifest")
    }

    /// The key that the signature is verified with.
    pub fn public_key(&self) -> &Path {
        &self.keys.public
    }

    /// Writes a file below the root.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let target = self.root().join(path);
        let parent = target.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&target, content))
            .with_context(|| format!("write {path}"))
    }

    /// Has a collector trust the key and give the tree's image out on channel `stable`.
    ///
    /// # Errors
    /// The collector refuses it.
    pub fn register(&self, collector: &Collector) -> Result<()> {
        collector.cli([Path::new("key"), Path::new("add"), &self.keys.public])?;
        let add = [
            Path::new("image"),
            Path::new("add"),
            &self.manifest(),
            Path::new("--channel"),
            Path::new("stable"),
        ];
        collector.cli(add).map(drop)
    }

    /// Gives the agent a join token to enrol with.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn give_token(&self, token: &str) -> Result<()> {
        fs::write(self.directory.path().join("token"), token).context("write the join token")
    }

    /// Starts the agent, with these lines of configuration besides its paths.
    ///
    /// # Errors
    /// It does not come up; the message has its output.
    pub fn start(&mut self, configuration: &str) -> Result<()> {
        self.start_by(Program::Agent.command()?, configuration)
    }

    /// The same by a command that runs the agent's program, in a sandbox say.
    ///
    /// # Errors
    /// See [`Tree::start`].
    pub fn start_by(&mut self, mut command: Command, configuration: &str) -> Result<()> {
        self.agent = None;
        let here = self.directory.path();
        let config = here.join("agent.toml");
        let text = format!(
            "root = {:?}\nstate-directory = {:?}\nstatus-socket = {:?}\n{configuration}\n\
             [image]\nmanifest = {:?}\ntrust = [{:?}]\n[enroll]\ntoken-file = {:?}\n[probe]\nlisten = \"off\"\n",
            self.root(),
            self.state(),
            self.socket(),
            self.manifest(),
            self.keys.public,
            here.join("token"),
        );
        fs::write(&config, text).context("write the agent's configuration")?;
        command.arg("run").arg("--config").arg(&config);
        let mut agent = Running::start("agent", command)?;
        agent.wait_for("the agent runs", Duration::from_secs(20))?;
        self.agent = Some(agent);
        Ok(())
    }

    /// The running agent.
    ///
    /// # Errors
    /// It was not started.
    pub fn agent(&mut self) -> Result<&mut Running> {
        self.agent.as_mut().context("the agent was not started")
    }

    /// What the agent says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value> {
        let mut command = Program::Agent.command()?;
        let text = run(command
            .args(["status", "--json", "--socket"])
            .arg(self.socket()))?;
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    /// Waits until what the agent says of itself is so.
    ///
    /// # Errors
    /// The time is over; the message has the last status and the agent's output.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until(&format!("an agent of which {what}"), limit, || {
            // An agent with much to do at once answers later.
            let Ok(status) = self.status() else {
                return Ok(None);
            };
            last = status;
            Ok(is_so(&last).then(|| last.clone()))
        });
        let output = || self.agent.as_ref().map(Running::output).unwrap_or_default();
        waited.with_context(|| format!("the last status: {last:#}\nthe agent:\n{}", output()))
    }

    /// The most memory that the agent had at once, in KiB.
    ///
    /// # Errors
    /// It does not run.
    pub fn peak_memory_kib(&self) -> Result<u64> {
        let id = self
            .agent
            .as_ref()
            .context("the agent was not started")?
            .id();
        let text =
            fs::read_to_string(format!("/proc/{id}/status")).context("read the agent's status")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("a process has a peak")?;
        let number = line
            .split_whitespace()
            .next()
            .context("a peak is a number")?;
        ensure!(line.ends_with("kB"), "{line:?} is not in kB");
        number.parse().with_context(|| format!("read {number:?}"))
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }
}
