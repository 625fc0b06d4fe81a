//! The agent as it ships, with keys, and a place for its files.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use drift::Blake3;
use drift::finding::{Drift, set_digest};
use serde_json::Value;
use tempfile::TempDir;

use crate::turns::Run;

/// The agent, its keys and one manifest.
pub struct Agent {
    program: PathBuf,
    root: PathBuf,
    rules: PathBuf,
    work: TempDir,
}

/// How to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Every file is read.
    Full,
    /// What was verified is trusted.
    Quick,
}

impl Agent {
    /// Builds the agent with its own profile and makes keys; it will look at the tree at `root`.
    ///
    /// # Errors
    /// It does not build.
    pub fn new(root: &Path) -> Result<Self> {
        let work = tempfile::tempdir().context("make a directory")?;
        let agent = Agent {
            program: build()?,
            root: root.to_owned(),
            rules: "none".into(),
            work,
        };
        let made = Command::new(&agent.program)
            .arg("keygen")
            .arg("--output")
            .arg(agent.at("keys"))
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "keygen: {made}");
        Ok(agent)
    }

    /// From now on manifests have these rules, as they are written in a file of rules.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rule(&mut self, rules: &str) -> Result<()> {
        self.rules = self.at("rules.toml");
        std::fs::write(&self.rules, rules).context("write the rules")
    }

    /// A place among its files.
    pub fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The tree that it looks at.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bakes the tree's manifest.
    ///
    /// # Errors
    /// It does not end with 0.
    pub fn bake(&self) -> Result<Run> {
        let (root, key, output) = (
            self.root.clone(),
            self.at("keys/driftmark.key"),
            self.at("out"),
        );
        self.run(&[
            "bake".into(),
            "--json".into(),
            "--name=bench".into(),
            "--version=1".into(),
            "--rules".into(),
            self.rules.clone().into(),
            "--filesystem=none".into(),
            "--root".into(),
            root.into(),
            "--key".into(),
            key.into(),
            "--output".into(),
            output.into(),
        ])
    }

    /// Checks the tree, which must be as it was baked.
    ///
    /// # Errors
    /// It does not end with 0.
    pub fn check(&self, pass: Pass) -> Result<Run> {
        let mut arguments: Vec<OsString> = vec![
            "check".into(),
            "--json".into(),
            "--root".into(),
            self.root.clone().into(),
            "--manifest".into(),
            self.manifest().into(),
            "--trust".into(),
            self.trust().into(),
            "--state".into(),
            self.at("state").into(),
        ];
        if pass == Pass::Quick {
            arguments.push("--quick".into());
        }
        self.run(&arguments)
    }

    /// The digest of all that a full check finds in the tree now, whatever that is.
    ///
    /// # Errors
    /// It could not look everywhere.
    pub fn drifts(&self) -> Result<Blake3> {
        let mut ids: Vec<_> = self.find(&[])?.iter().map(Drift::id).collect();
        ids.sort();
        Ok(set_digest(ids))
    }

    /// Where a check with these arguments besides finds drift.
    ///
    /// # Errors
    /// It could not look everywhere.
    pub fn paths(&self, arguments: &[&str]) -> Result<BTreeSet<String>> {
        let drifts = self.find(arguments)?.into_iter();
        Ok(drifts.map(|drift| drift.path.to_string()).collect())
    }

    fn find(&self, arguments: &[&str]) -> Result<Vec<Drift>> {
        let mut check = Command::new(&self.program);
        check.args(["check", "--json", "--root"]).arg(&self.root);
        check.arg("--manifest").arg(self.manifest());
        check.arg("--trust").arg(self.trust());
        check.arg("--state").arg(self.at("checked"));
        let output = check.args(arguments).output();
        let output = output.context("start the agent")?;
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "check: {}\n{}",
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr))
        );
        let text = String::from_utf8(output.stdout).context("read what check says")?;
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("{\"summary\""));
        lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("read {line}")))
            .collect()
    }

    /// Starts it and does nothing with it: the program and its libraries are in the page cache then.
    ///
    /// # Errors
    /// It does not start.
    pub fn touch(&self) -> Result<()> {
        let output = Command::new(&self.program).arg("--version").output();
        output.context("start the agent").map(drop)
    }

    /// The manifest that a bake makes.
    pub fn manifest(&self) -> PathBuf {
        self.at("out/image.manifest")
    }

    /// The key that it is verified with.
    pub fn trust(&self) -> PathBuf {
        self.at("keys/driftmark.pub")
    }

    fn run(&self, arguments: &[OsString]) -> Result<Run> {
        let started = Instant::now();
        let output = Command::new(&self.program).args(arguments).output();
        let output = output.context("start the agent")?;
        let wall = started.elapsed();
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{arguments:?}: {:?}\n{}{}",
            output.status,
            tail(&text),
            tail(&String::from_utf8_lossy(&output.stderr))
        );
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .context("read the last line")?;
        let summary = last.get("summary").unwrap_or(&last);
        let number = |key: &str| summary[key].as_u64();
        Ok(Run {
            wall,
            cpu: None,
            entries: number("entries").unwrap_or_default(),
            bytes: number("bytes").unwrap_or_default(),
            peak_kib: number("peak_resident_kib"),
        })
    }
}

/// The last lines, which say why.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn build() -> Result<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--quiet",
            "--profile",
            "agent",
            "-p",
            "driftmark-agent",
        ])
        .current_dir(&top)
        .status()
        .context("build the agent")?;
    ensure!(status.success(), "the agent does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    target
        .join("agent/driftmark-agent")
        .canonicalize()
        .context("find the agent")
}
