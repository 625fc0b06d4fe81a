//! The agent's daemon after its first scan, with nothing to do: what it still costs.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::Agent;
use crate::machine;

/// As long as the idle time is looked at.
pub const WATCHED: Duration = Duration::from_secs(60);
/// A first scan of this machine takes seconds; it is paced or not.
const FIRST_SCAN_LIMIT: Duration = Duration::from_secs(300);

/// Where a daemon looks for the join token that it enrols with: there is none unless somebody puts it there.
pub const TOKEN: &str = "token";

/// What an idle daemon costs.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Resident memory at the end, in KiB.
    pub resident_kib: u64,
    /// Of that, its own and not of a file.
    pub anonymous_kib: u64,
    /// The most that it ever had, its first scan included.
    pub peak_kib: u64,
    /// Percent of one core.
    pub core_percent: f64,
}

/// A daemon that is killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Runs the daemon over the agent's tree, `scan` being its section of that name. Its files are named after it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(agent: &Agent, name: &str, scan: &str) -> Result<Self> {
        let log = agent.at(&format!("{name}.log"));
        let out = fs::File::create(&log).context("create the daemon's log")?;
        Self::start_telling(agent, name, "listen = \"off\"\n", scan, out)
    }

    /// The same, with its log going there, and `probe` being the section of that name.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_telling(
        agent: &Agent,
        name: &str,
        probe: &str,
        scan: &str,
        out: impl Into<Stdio>,
    ) -> Result<Self> {
        let at = |what: &str| agent.at(&format!("{name}{what}"));
        let (config, socket, log) = (at(".toml"), at(".sock"), at(".log"));
        let text = format!(
            "root = {:?}\nstate-directory = {:?}\nstatus-socket = {socket:?}\n[image]\nmanifest = {:?}\ntrust = [{:?}]\n\
             [enroll]\ntoken-file = {:?}\n[probe]\n{probe}[scan]\n{scan}",
            agent.root(),
            at(""),
            agent.manifest(),
            agent.trust(),
            agent.at(TOKEN),
        );
        fs::write(&config, text).context("write the daemon's configuration")?;
        let mut daemon = Command::new(agent.program());
        daemon.arg("run").arg("--config").arg(&config);
        daemon
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out);
        let child = daemon.spawn().context("start the daemon")?;
        Ok(Daemon { child, socket, log })
    }

    /// Waits for the end of its first scan.
    ///
    /// # Errors
    /// It does not come up, or does not end its first scan.
    pub fn end_first_scan(&mut self, agent: &Agent) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the daemon ended with {status}:\n{log}");
            }
            let told = self.status(agent)?;
            if told["coverage"]["seen"].is_object() {
                return Ok(());
            }
            ensure!(
                started.elapsed() < FIRST_SCAN_LIMIT,
                "no first scan yet: {told:#}"
            );
            machine::let_pass(Duration::from_millis(200));
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn status(&self, agent: &Agent) -> Result<Value> {
        let mut status = Command::new(agent.program());
        let status = status
            .args(["status", "--json", "--socket"])
            .arg(&self.socket)
            .output()
            .context("ask the daemon")?;
        // One that is not there yet answers nothing.
        Ok(serde_json::from_slice(&status.stdout).unwrap_or_default())
    }

    /// The most memory that it ever had, in KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_kib(&self) -> Result<u64> {
        machine::field_of(self.id(), "VmHWM:")
    }

    /// Stops it where it is, or lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signal the daemon")
    }

    /// Bytes that it asked the kernel for with reads, cached or not.
    ///
    /// # Errors
    /// It is gone.
    pub fn bytes_read(&self) -> Result<u64> {
        let path = format!("/proc/{}/io", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.and_then(|number| number.parse().ok())
            .context("find rchar")
    }
}

/// Runs the daemon over the agent's tree, `more` being the end of its configuration, waits for its first scan and then
/// watches it for [`WATCHED`]. Its files are named after it.
///
/// # Errors
/// It does not come up, or does not end its first scan.
pub fn watch(agent: &Agent, name: &str, more: &str) -> Result<Idle> {
    let mut daemon = Daemon::start(agent, name, &format!("quick-interval = \"1h\"\n{more}"))?;
    daemon.end_first_scan(agent)?;
    // What follows the scan (a report, giving memory back) is not idle yet.
    machine::let_pass(Duration::from_secs(5));
    let id = daemon.child.id();
    let before = machine::cpu_of(id)?;
    let watched = Instant::now();
    machine::let_pass(WATCHED);
    let used = machine::cpu_of(id)?.saturating_sub(before);
    Ok(Idle {
        resident_kib: machine::field_of(id, "VmRSS:")?,
        anonymous_kib: machine::field_of(id, "RssAnon:")?,
        peak_kib: machine::field_of(id, "VmHWM:")?,
        core_percent: 100.0 * used.as_secs_f64() / watched.elapsed().as_secs_f64(),
    })
}
