//! Receives a command; hands on a running program whose output is kept and which never outlives its owner.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::until;

/// A killed process ends at once, unless the kernel is at work for it.
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// One of the two programs, as cargo built it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `driftmark-agent`.
    Agent,
    /// `driftmark-collector`.
    Collector,
}

impl Program {
    /// What its file is called.
    pub fn name(self) -> &'static str {
        match self {
            Program::Agent => "driftmark-agent",
            Program::Collector => "driftmark-collector",
        }
    }

    /// The file: where `DRIFTMARK_AGENT` or `DRIFTMARK_COLLECTOR` says, else beside the running test in cargo's tree.
    ///
    /// # Errors
    /// It is not there: `cargo build` makes it.
    pub fn path(self) -> Result<PathBuf> {
        let variable = self.name().to_uppercase().replace('-', "_");
        if let Some(path) = std::env::var_os(&variable) {
            return Ok(PathBuf::from(path));
        }
        let own = std::env::current_exe().context("find the running test")?;
        let near = own
            .ancestors()
            .skip(1)
            .take(2)
            .map(|directory| directory.join(self.name()));
        let found = near.into_iter().find(|path| path.is_file());
        found.with_context(|| {
            format!(
                "no {} near {}: run `cargo build` first",
                self.name(),
                own.display()
            )
        })
    }

    /// A command that starts it, outside of any sandbox.
    ///
    /// # Errors
    /// See [`Program::path`].
    pub fn command(self) -> Result<Command> {
        Ok(Command::new(self.path()?))
    }
}

/// A program that runs. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Starts it, with its output (both streams) kept in a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let directory = tempfile::tempdir().context("make a directory for output")?;
        let output = directory.path().join("output");
        let file = File::create(&output).context("create the file for output")?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share the file for output")?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
            _directory: directory,
        })
    }

    /// Its process id, as this process sees it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote until now.
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        // A file that cannot be read says nothing; the wait for its text then fails with its own message.
        let _ = File::open(&self.output).and_then(|mut file| file.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until a line of its output contains `text`; gives that line.
    ///
    /// # Errors
    /// It ended, or the time is over; both with its output.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let waited = until(&format!("{text:?} from {}", self.name), limit, || {
            let ended = self.child.try_wait().context("ask for its end")?;
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return Ok(Some(line.to_owned()));
            }
            match ended {
                Some(status) => bail!("it ended with {status}"),
                None => Ok(None),
            }
        });
        waited.with_context(|| format!("output of {}:\n{}", self.name, self.output()))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(id, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Kills it at once, as the kernel's out-of-memory killer would, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill_hard(&mut self) -> Result<ExitStatus> {
        self.end_in_sandbox();
        // A program that is gone already is as dead as asked for.
        let _ = self.child.kill();
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Kills what runs in a sandbox before the `nsenter` that waits for it: a child that outlives that is left to this
    /// machine's process 1, and until it is reaped there its sandbox does not end.
    fn end_in_sandbox(&mut self) {
        let id = self.child.id();
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if name.trim() != "nsenter" {
            return;
        }
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        if children.fold(false, |_, child| {
            kill(Pid::from_raw(child), Signal::SIGKILL).is_ok()
        }) {
            let _ = until("nsenter to end", REAP_LIMIT, || {
                Ok(self.child.try_wait()?)
            });
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The time is over.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let waited = until(&format!("the end of {}", self.name), limit, || {
            self.child.try_wait().context("ask for its end")
        });
        waited.with_context(|| format!("output of {}:\n{}", self.name, self.output()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill_hard();
    }
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// It cannot be started, or does not end with 0: then with both its streams.
pub fn run(command: &mut Command) -> Result<String> {
    let output = finish(command)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {:?} (signal {:?})\n{}{}",
        output.status.code(),
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// It cannot be started.
pub fn finish(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {command:?}"))
}
