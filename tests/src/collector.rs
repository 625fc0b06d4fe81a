//! Receives a policy; hands on a running collector with its command line, in a lab or on this machine's loopback.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::lab::{COLLECTOR, Lab};
use crate::process::{Program, Running, finish};
use crate::sandbox::Sandbox;

/// Making keys and a database takes a moment on two busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a story wants of its collector.
#[derive(Debug, Clone, Default)]
pub struct CollectorOptions {
    /// The text of the fleets file.
    pub fleets: String,
    /// Lines of its configuration.
    pub configuration: String,
    /// Variables of its environment: fault points.
    pub environment: Vec<(String, String)>,
}

/// A collector; dropping it kills it.
#[derive(Debug)]
pub struct Collector {
    sandbox: Option<Arc<Sandbox>>,
    directory: PathBuf,
    options: Mutex<CollectorOptions>,
    agents: String,
    operators: String,
    running: Mutex<Option<Running>>,
    _own: Option<tempfile::TempDir>,
}

impl Collector {
    /// Starts one on a lab's network, at its usual ports.
    ///
    /// # Errors
    /// It does not come up; the message has its output.
    pub fn in_lab(lab: &Lab, options: CollectorOptions) -> Result<Self> {
        let directory = lab.directory().join("collector");
        let (agents, operators) = (format!("{COLLECTOR}:8443"), format!("{COLLECTOR}:8444"));
        Self::start_at(
            Some(lab.shared_sandbox()),
            directory,
            None,
            agents,
            operators,
            options,
        )
    }

    /// Starts one on this machine's loopback, at ports of its own.
    ///
    /// # Errors
    /// It does not come up; the message has its output.
    pub fn here(options: CollectorOptions) -> Result<Self> {
        let own = tempfile::tempdir().context("make a directory for the collector")?;
        let directory = own.path().join("collector");
        let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        Self::start_at(None, directory, Some(own), address()?, address()?, options)
    }

    fn start_at(
        sandbox: Option<Arc<Sandbox>>,
        directory: PathBuf,
        own: Option<tempfile::TempDir>,
        agents: String,
        operators: String,
        options: CollectorOptions,
    ) -> Result<Self> {
        fs::create_dir_all(&directory).context("make the collector's directory")?;
        let collector = Self {
            sandbox,
            directory,
            options: Mutex::new(options),
            agents,
            operators,
            running: Mutex::new(None),
            _own: own,
        };
        collector.start()?;
        Ok(collector)
    }

    /// Starts it again after it was killed, on the same data.
    ///
    /// # Errors
    /// It does not come up; the message has its output.
    pub fn start(&self) -> Result<()> {
        let options = self
            .options
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (config, fleets) = (
            self.directory.join("collector.toml"),
            self.directory.join("fleets.toml"),
        );
        fs::write(&fleets, &options.fleets).context("write the fleets file")?;
        let text = format!("fleets = {:?}\n{}\n", fleets, options.configuration);
        fs::write(&config, text).context("write the collector's configuration")?;
        let mut command = self.program(Program::Collector.path()?);
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(self.data());
        command.args(["--agents", &self.agents, "--operators", &self.operators]);
        command.envs(
            options
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        let mut running = Running::start("collector", command)?;
        let ready = crate::patience::until("the collector to answer", START_LIMIT, || {
            if running.wait(Duration::ZERO).is_ok() {
                anyhow::bail!("the collector ended");
            }
            let answered = self.data().join("operator.token").exists()
                && self
                    .try_cli(["instance", "list", "--json"])
                    .is_ok_and(|output| output.status.success());
            Ok(answered.then_some(()))
        });
        ready.with_context(|| format!("output of the collector:\n{}", running.output()))?;
        *self.slot() = Some(running);
        Ok(())
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where agents reach it, `ADDRESS:PORT`.
    pub fn agents(&self) -> &str {
        &self.agents
    }

    /// Where operators reach it, `ADDRESS:PORT`.
    pub fn operators(&self) -> &str {
        &self.operators
    }

    /// Writes another fleets file under the running collector, whole from one moment to the next.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_fleets(&self, fleets: &str) -> Result<()> {
        fleets.clone_into(
            &mut self
                .options
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .fleets,
        );
        let (new, file) = (
            self.directory.join("fleets.new"),
            self.directory.join("fleets.toml"),
        );
        fs::write(&new, fleets)
            .and_then(|()| fs::rename(&new, &file))
            .context("write the fleets file")
    }

    /// Asks its database, which it goes on using, for what no interface shows; one text a row, columns between `|`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn database(&self, query: &str) -> Result<Vec<String>> {
        let database = Connection::open_with_flags(
            self.data().join("collector.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .context("open the collector's database")?;
        let mut statement = database.prepare(query).context("understand a query")?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let cells = (0..columns).map(|column| row.get_ref(column).map(cell));
            Ok(cells.collect::<Result<Vec<_>, _>>()?.join("|"))
        });
        rows.context("ask the collector's database")?
            .collect::<Result<_, _>>()
            .context("read the collector's database")
    }

    /// The process of the running collector, as this process sees it; in a lab it is that of `nsenter`.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> Result<u32> {
        self.slot()
            .as_ref()
            .map(Running::id)
            .context("the collector does not run")
    }

    /// Changes what it is started with the next time.
    pub fn set_environment(&self, environment: Vec<(String, String)>) {
        self.options
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .environment = environment;
    }

    /// Kills it at once.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_hard(&self) -> Result<()> {
        let mut running = self.slot().take().context("the collector does not run")?;
        running.kill_hard().map(drop)
    }

    /// What it wrote until now.
    pub fn output(&self) -> String {
        self.slot()
            .as_ref()
            .map(Running::output)
            .unwrap_or_default()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.slot()
            .as_mut()
            .is_some_and(|running| running.wait(Duration::ZERO).is_err())
    }

    /// Runs its command line and gives the standard output.
    ///
    /// # Errors
    /// It did not end with 0; the message has both its streams.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command(arguments)?;
        crate::process::run(&mut command)
    }

    /// Runs its command line, whatever it ends with.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_cli<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        finish(&mut self.command(arguments)?)
    }

    /// Runs its command line with `--json` and reads what it prints.
    ///
    /// # Errors
    /// It did not end with 0, or printed something else than JSON.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Value> {
        let mut command = self.command(arguments)?;
        let text = crate::process::run(command.arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    /// A join token for `fleet`, for this cloud id alone where one is given.
    ///
    /// # Errors
    /// The collector makes none.
    pub fn join_token(&self, fleet: &str, cloud_id: Option<&str>) -> Result<String> {
        let mut arguments = vec!["token", "create", "--fleet", fleet, "--json"];
        if let Some(cloud_id) = cloud_id {
            arguments.extend(["--instance", cloud_id]);
        }
        let answer: Value =
            serde_json::from_str(&self.cli(arguments)?).context("read the token")?;
        let token = answer["text"].as_str().context("an answer with a token")?;
        ensure!(token.starts_with("dmjt1."), "{token:?} is not a join token");
        Ok(token.to_owned())
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut command = self.program(Program::Collector.path()?);
        command.args(arguments).arg("--data").arg(self.data());
        Ok(command)
    }

    fn program(&self, path: impl AsRef<Path>) -> Command {
        match &self.sandbox {
            Some(sandbox) => sandbox.command(path.as_ref()),
            None => Command::new(path.as_ref()),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port that nothing listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// A value of the database as text.
fn cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
