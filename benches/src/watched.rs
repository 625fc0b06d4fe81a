//! A tree in; its daemon out, that has seen all of it once and watches it from then on, and a collector that it tells.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use driftmark_tests::{Collector, CollectorOptions};
use serde_json::Value;

use crate::agent::Agent;
use crate::felt::now;
use crate::idle::{Daemon, TOKEN};
use crate::machine;

/// Whatever is waited for and has not come by then never comes.
pub const NEVER: Duration = Duration::from_secs(300);
/// The pass that makes up for what happened before the watch began has ended by then.
const SETTLED: Duration = Duration::from_secs(10);

/// A directory with an empty tree in it, on the disk: not in memory, where images never lie.
#[derive(Debug)]
pub struct Home(tempfile::TempDir);

impl Home {
    /// Makes it.
    ///
    /// # Errors
    /// The disk is full.
    pub fn new() -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("driftmark-watched-")
            .tempdir_in("/var/tmp")
            .context("make a directory")?;
        fs::create_dir(home.path().join("root")).context("make a tree")?;
        Ok(Home(home))
    }

    /// The tree.
    pub fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    /// A place beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A daemon that watches, and what it says.
#[derive(Debug)]
pub struct Watched {
    daemon: Daemon,
    said: Receiver<Said>,
    probe: String,
}

/// A line of its log.
#[derive(Debug, Clone)]
pub struct Said {
    /// When it was read, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// What it is.
    pub line: String,
}

impl Watched {
    /// Bakes the agent's tree and starts the daemon over it; it has looked at all of it and watches when this is done.
    ///
    /// # Errors
    /// It does not come up, or does not watch.
    pub fn start(agent: &Agent, scan: &str) -> Result<Self> {
        let (log, out) = std::io::pipe().context("make a pipe")?;
        let probe = format!("127.0.0.1:{}", free_port()?);
        let daemon = Daemon::start_telling(
            agent,
            "watched",
            &format!("listen = {probe:?}\nmode = \"local\"\n"),
            &format!("quick-interval = \"1h\"\n{scan}"),
            out,
        )?;
        let (lines, said) = channel();
        std::thread::spawn(move || {
            let read = BufReader::new(log).lines().map_while(Result::ok);
            let timed = read.map(|line| Said { at: now(), line });
            // Nobody listens once all is measured.
            timed.map(|said| lines.send(said)).find(Result::is_err)
        });
        let mut watched = Watched {
            daemon,
            said,
            probe,
        };
        watched.daemon.end_first_scan(agent)?;
        machine::let_pass(SETTLED);
        let started = watched.all_said();
        ensure!(
            started
                .iter()
                .any(|said| said.line.contains("the watch begins")),
            "it does not watch: {started:#?}"
        );
        Ok(watched)
    }

    /// The daemon.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Where its probe listens.
    pub fn probe(&self) -> &str {
        &self.probe
    }

    /// Waits for a line that has all these words.
    ///
    /// # Errors
    /// It does not come.
    pub fn says(&self, words: &[&str]) -> Result<Said> {
        loop {
            let said = self.said.recv_timeout(NEVER);
            let said = said.with_context(|| format!("wait for {words:?}"))?;
            if words.iter().all(|word| said.line.contains(word)) {
                return Ok(said);
            }
        }
    }

    /// All that it said since it was last asked.
    pub fn all_said(&self) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            match self.said.try_recv() {
                Ok(said) => all.push(said),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return all,
            }
        }
    }

    /// Waits until it has so many open drifts.
    ///
    /// # Errors
    /// It never has.
    pub fn has_open(&self, agent: &Agent, count: u64) -> Result<()> {
        until(&format!("{count} open drifts"), || {
            let status = self.daemon.status(agent)?;
            Ok((status["open_drifts"] == count && status["scanning"] == false).then_some(()))
        })
    }
}

/// Starts a collector, as it ships, on this machine's loopback, and has the agent's tree be an image that it knows; the
/// daemon that is started next enrols with it.
///
/// # Errors
/// It does not come up, or refuses the image.
pub fn collector(agent: &Agent) -> Result<Collector> {
    build_collector()?;
    let fleets = "[[fleet]]\nname = \"bench\"\nchannel = \"stable\"\nmode = \"observe\"\n";
    let collector = Collector::here(CollectorOptions {
        fleets: fleets.to_owned(),
        ..CollectorOptions::default()
    })?;
    collector.cli([Path::new("key"), Path::new("add"), &agent.trust()])?;
    let (manifest, channel) = (agent.manifest(), Path::new("--channel"));
    let add = [Path::new("image"), Path::new("add"), &manifest, channel];
    collector.cli(add.into_iter().chain([Path::new("stable")]))?;
    let token = collector.join_token("bench", None)?;
    fs::write(agent.at(TOKEN), token).context("write the join token")?;
    Ok(collector)
}

/// The row of the one instance that a collector knows, once it is so.
///
/// # Errors
/// It never is.
pub fn instance(collector: &Collector, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    until("what the collector knows", || {
        let row = collector.json(["instance", "list"])?[0].clone();
        Ok(is_so(&row).then_some(row))
    })
}

/// Waits until the open set that the collector has is exactly what a full check of the tree finds now.
///
/// # Errors
/// It never is, or the check fails.
pub fn is_exact(agent: &Agent, collector: &Collector) -> Result<()> {
    let expected = agent.drifts()?.to_string();
    let row = collector.json(["instance", "list"])?[0].clone();
    let id = row["id"].as_str().context("an instance has an id")?;
    let mut last = Value::Null;
    let waited = until("the exact state", || {
        last = collector.json(["instance", "show", id, "--limit", "1"])?;
        Ok((last["set_digest"] == expected.as_str()).then_some(()))
    });
    waited.with_context(|| format!("a check says {expected}, the collector {last:#}"))
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// What is asked fails, or never has an answer.
pub fn until<T>(what: &str, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if began.elapsed() > NEVER {
            bail!("waited {NEVER:?} for {what}");
        }
        machine::let_pass(Duration::from_millis(100));
    }
}

/// Beside this program, where the tests' world looks for it.
fn build_collector() -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--quiet", "--release"]);
    build.args(["-p", "driftmark-collector"]);
    let status = build
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("build the collector")?;
    ensure!(status.success(), "the collector does not build");
    Ok(())
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}
