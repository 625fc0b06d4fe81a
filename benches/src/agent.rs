//! The agent as it ships, with keys, and a place for its files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::turns::Run;

/// The agent, its keys and one manifest.
pub struct Agent {
    program: PathBuf,
    root: PathBuf,
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
            "--rules=none".into(),
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
