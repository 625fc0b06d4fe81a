//! Receives nothing; hands on a private machine inside this one: its own mounts, processes and network.
//!
//! A test process has many threads and cannot enter a namespace itself, so an *anchor* process holds one open and
//! everything runs through it: commands by [`Sandbox::command`], files by [`Sandbox::path`] (`/proc/ANCHOR/root`).
//! The anchor is process 1 in there and reads a pipe that only this process can write. However this process ends, the
//! pipe closes, process 1 ends, and with it the kernel ends every process, mount and interface of the sandbox.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::patience::until;
use crate::process::run;

/// Programs without which there is no sandbox.
const NEEDED: [&str; 5] = ["unshare", "nsenter", "mount", "ip", "systemd-nspawn"];
/// Set where a test that cannot run is a failure: in continuous integration.
const NO_SKIPPING: &str = "DRIFTMARK_NO_SKIPPING";
/// A namespace is made in milliseconds; this is for a machine that is very busy.
const ANCHOR_LIMIT: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A private machine; gone when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    unshare: Child,
    anchor: u32,
    name: String,
    directory: tempfile::TempDir,
}

/// Why there can be no sandbox here, in words for people; nothing if there can be one.
pub fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for namespaces and mounts: run it as root".to_owned());
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| {
        std::env::split_paths(&search).any(|directory| directory.join(name).is_file())
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .copied()
        .filter(|name| !is_there(name))
        .collect();
    if !missing.is_empty() {
        return Some(format!("needs {}: run `make setup`", missing.join(", ")));
    }
    match Command::new("unshare")
        .args(["-mnp", "--fork", "true"])
        .output()
    {
        Ok(output) if output.status.success() => None,
        _ => {
            Some("needs the right to make namespaces, which this machine does not give".to_owned())
        }
    }
}

/// Whether a story can be told here. If not, the reason is printed and the test is to return.
///
/// # Panics
/// Where skipping is forbidden (`DRIFTMARK_NO_SKIPPING`), instead of answering no.
pub fn possible(story: &str) -> bool {
    obstacle().is_none_or(|reason| skip(story, &reason))
}

/// Says why a story is not told here; always `false`.
///
/// # Panics
/// Where skipping is forbidden.
pub fn skip(story: &str, reason: &str) -> bool {
    assert!(
        std::env::var_os(NO_SKIPPING).is_none(),
        "{story} must not be skipped here, but {reason}"
    );
    println!("skipped: {story} {reason}");
    false
}

impl Sandbox {
    /// Makes one, with the loopback interface up and an empty `/run`.
    ///
    /// # Errors
    /// See [`obstacle`].
    pub fn new() -> Result<Self> {
        let name = format!(
            "driftmark-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = tempfile::Builder::new()
            .prefix("driftmark-")
            .tempdir()
            .context("make a directory")?;
        let mut unshare = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["--propagation", "private", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("start unshare")?;
        let anchor = match find_anchor(&mut unshare) {
            Ok(anchor) => anchor,
            Err(error) => {
                let _ = unshare.kill();
                let _ = unshare.wait();
                return Err(error);
            }
        };
        let sandbox = Self {
            unshare,
            anchor,
            name,
            directory,
        };
        sandbox.shell(
            "ip link set lo up; mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/lock /run/netns",
        )?;
        Ok(sandbox)
    }

    /// A name that no other sandbox on this machine has now.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory that both sides see under the same path; it goes with the sandbox.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How this process reaches a path of the sandbox, with everything that is mounted there.
    ///
    /// # Panics
    /// The path is not absolute.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let relative = inside
            .as_ref()
            .strip_prefix("/")
            .expect("a path in a sandbox is absolute");
        PathBuf::from(format!("/proc/{}/root", self.anchor)).join(relative)
    }

    /// A command that runs in the sandbox.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.anchor.to_string(),
                "--mount",
                "--net",
                "--pid",
                "--",
            ])
            .arg(program);
        command
    }

    /// Runs a line of shell in the sandbox; it stops at the first thing that goes wrong.
    ///
    /// # Errors
    /// It did not end with 0.
    pub fn shell(&self, line: &str) -> Result<String> {
        run(self.command("sh").args(["-euc", line]))
    }

    /// The process that holds the sandbox, for `nsenter --target` by hand.
    pub fn anchor(&self) -> u32 {
        self.anchor
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        // Process 1 ends with its pipe, and unshare with process 1; killing is for a machine where it did not.
        let ended = until("the sandbox to end", Duration::from_secs(10), || {
            Ok(self.unshare.try_wait()?)
        });
        if ended.is_err() {
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
        }
    }
}

/// The child of `unshare`, once it is in its namespaces and runs `cat`.
fn find_anchor(unshare: &mut Child) -> Result<u32> {
    let id = unshare.id();
    until("the sandbox", ANCHOR_LIMIT, || {
        if let Some(status) = unshare.try_wait().context("ask unshare")? {
            bail!("make namespaces: unshare ended with {status}");
        }
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let Some(child) = children
            .split_whitespace()
            .next()
            .and_then(|id| id.parse::<u32>().ok())
        else {
            return Ok(None);
        };
        // `--mount-proc` comes before the program: once that runs, everything is in place.
        let program = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        Ok((program.trim() == "cat").then_some(child))
    })
}
