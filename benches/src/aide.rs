//! AIDE from Debian's package, over the same tree, with the attributes that a manifest holds.
//!
//! `p+u+g+s+n+l+acl+xattrs+e2fsattrs+ftype+sha256`: mode, owner, group, size, number of names, link target, ACLs, extended
//! attributes, file flags, kind and one digest. Not `i`, `m`, `c` and `b`: inode, times and blocks differ between a build
//! and its instances, so an image's manifest does not hold them. SHA-256 is the cheapest digest that both sides know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::turns::Run;

/// The attributes, as the configuration spells them.
pub const ATTRIBUTES: &str = "p+u+g+s+n+l+acl+xattrs+e2fsattrs+ftype+sha256";
/// AIDE's exit code is made of what changed; a number from here on is an error of its own.
const FIRST_ERROR: i32 = 14;
/// How often its peak is looked at, as the process takes it along when it ends.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// AIDE with a configuration and a place for its database.
pub struct Aide {
    config: PathBuf,
    work: tempfile::TempDir,
}

impl Aide {
    /// Configures it for a tree; none where it is not installed.
    ///
    /// # Errors
    /// Its configuration cannot be written.
    pub fn new(root: &Path, threads: usize) -> Result<Option<Self>> {
        if Command::new("aide").arg("--version").output().is_err() {
            return Ok(None);
        }
        let work = tempfile::tempdir().context("make a directory")?;
        let at = |name: &str| work.path().join(name).display().to_string();
        let config = work.path().join("aide.conf");
        let text = format!(
            "database_in=file:{}\ndatabase_out=file:{}\nnum_workers={threads}\nreport_url=file:{}\n\
             Held = {ATTRIBUTES}\n{} Held\n",
            at("database"),
            at("database.new"),
            at("report"),
            root.display()
        );
        fs::write(&config, text).context("write AIDE's configuration")?;
        Ok(Some(Aide { config, work }))
    }

    /// Makes its database.
    ///
    /// # Errors
    /// It does not.
    pub fn init(&self) -> Result<Run> {
        let run = self.run("--init")?;
        let database = |name: &str| self.work.path().join(name);
        fs::rename(database("database.new"), database("database"))
            .context("keep AIDE's database")?;
        Ok(run)
    }

    /// Checks against it.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<Run> {
        self.run("--check")
    }

    /// What the last of them reported; empty where nothing was.
    pub fn report(&self) -> String {
        fs::read_to_string(self.work.path().join("report")).unwrap_or_default()
    }

    fn run(&self, what: &str) -> Result<Run> {
        let started = Instant::now();
        let mut aide = Command::new("aide")
            .arg("--config")
            .arg(&self.config)
            .arg(what)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start AIDE")?;
        let peak_kib = peak_until_end(&mut aide)?;
        let wall = started.elapsed();
        let output = aide.wait_with_output().context("wait for AIDE")?;
        let code = output.status.code().unwrap_or(FIRST_ERROR);
        ensure!(
            code < FIRST_ERROR,
            "aide {what} ended with {code}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let entries = self
            .report()
            .lines()
            .find_map(|line| line.trim().strip_prefix("Number of entries:"))
            .and_then(|number| number.trim().parse().ok());
        Ok(Run {
            wall,
            cpu: None,
            entries: entries.unwrap_or_default(),
            bytes: 0,
            peak_kib: Some(peak_kib),
        })
    }
}

/// Waits for a process and gives the most memory that it had.
fn peak_until_end(child: &mut Child) -> Result<u64> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().context("wait for AIDE")?.is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        crate::machine::let_pass(LOOK_EVERY);
    }
    Ok(peak)
}
