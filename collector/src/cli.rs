//! Receives the command line, and hands on what the running collector answers, as a table or as JSON.
//!
//! A subcommand's module has a clap `Command` enum and
//! `pub async fn run(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError>`.

pub mod client;
pub mod table;

pub mod image;
pub mod instance;
pub mod key;
pub mod ledger;
pub mod operator;
pub mod order;
pub mod token;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

pub use client::{Address, Client, ClientError};
pub use table::{Shown, Table};

use crate::config::{self, ConfigError, Flags};
use crate::serve::{self, ServeError};

/// Has drifted instances replaced from the last good image.
///
/// `serve` runs the collector; every other command asks the one that runs.
#[derive(Debug, Parser)]
#[command(
    name = "driftmark-collector",
    version,
    max_term_width = 100,
    after_help = "\
Commands find the collector, its CA and a token in its data directory; from elsewhere give
--url, --ca and --token-file. `driftmark-collector COMMAND --help` has examples.
Exit codes: 0 done, 1 refused or broken, 64 usage, 69 no collector, 77 not allowed, 78 configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    address: Address,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the collector.
    Serve {
        /// The configuration; without it the drop-ins of collector.d.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where agents connect.
        #[arg(long, value_name = "ADDR:PORT")]
        agents: Option<std::net::SocketAddr>,
        /// Where operators connect.
        #[arg(long, value_name = "ADDR:PORT")]
        operators: Option<std::net::SocketAddr>,
    },
    /// Join tokens, with which instances enrol.
    #[command(subcommand)]
    Token(token::Command),
    /// Operator tokens.
    #[command(subcommand)]
    Operator(operator::Command),
    /// Registered images and their channels.
    #[command(subcommand)]
    Image(image::Command),
    /// Keys that may sign images.
    #[command(subcommand)]
    Key(key::Command),
    /// Instances.
    #[command(subcommand)]
    Instance(instance::Command),
    /// Replacements.
    #[command(subcommand)]
    Order(order::Command),
    /// Every decision.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Check a configuration without running it.
    CheckConfig {
        /// The configuration; without it the drop-ins of collector.d.
        file: Option<PathBuf>,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is refused.
    #[error("use the configuration")]
    Config(#[from] ConfigError),
    /// The collector cannot run.
    #[error("run the collector")]
    Serve(#[from] ServeError),
    /// The running collector did not give what was asked for.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file named on the command line cannot be read.
    #[error("read {}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What the command line says makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The answer cannot be printed.
    #[error("print the answer")]
    Print(#[from] std::io::Error),
}

impl CliError {
    /// The exit code, after sysexits.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 64,
            CliError::Input { .. } => 66,
            CliError::Config(_) => 78,
            CliError::Serve(error) => error.exit_code(),
            CliError::Client(ClientError::Read { .. }) => 66,
            CliError::Client(ClientError::Setup(_)) => 64,
            CliError::Client(ClientError::Token(_)) => 78,
            CliError::Client(ClientError::Refused {
                status: 401 | 403, ..
            }) => 77,
            CliError::Client(ClientError::Refused { status: 500, .. }) => 70,
            CliError::Client(ClientError::Refused { .. }) => 1,
            CliError::Client(ClientError::Ask { .. }) => 69,
            CliError::Client(_) => 76,
            CliError::Print(_) => 74,
        }
    }
}

/// The whole program: flags → config → run → exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // A parser quotes what it does not understand, as it is.
            let chain = table::harmless(&crate::api::error_chain(&error));
            eprintln!("driftmark-collector: {chain}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let shown = if cli.json { Shown::Json } else { Shown::Table };
    match cli.command {
        Command::Serve {
            config: file,
            agents,
            operators,
        } => {
            let config = config::load(
                file.as_deref(),
                Flags {
                    data: cli.address.data,
                    agents,
                    operators,
                },
            )?;
            serve::run(config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CheckConfig { file } => {
            let config = config::load(
                file.as_deref(),
                Flags {
                    data: cli.address.data,
                    ..Flags::default()
                },
            )?;
            let fleets = serve::check_fleets(&config)?;
            for line in crate::replace::shown_policies(&fleets) {
                table::say(&line)?;
            }
            table::say("the configuration is good")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "driftmark-collector",
                &mut script,
            );
            std::io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        command => {
            let client = Client::of(&cli.address)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(command, &client, shown))
        }
    }
}

async fn ask(command: Command, client: &Client, shown: Shown) -> Result<ExitCode, CliError> {
    match command {
        Command::Token(command) => token::run(command, client, shown).await,
        Command::Operator(command) => operator::run(command, client, shown).await,
        Command::Image(command) => image::run(command, client, shown).await,
        Command::Key(command) => key::run(command, client, shown).await,
        Command::Instance(command) => instance::run(command, client, shown).await,
        Command::Order(command) => order::run(command, client, shown).await,
        Command::Ledger(command) => ledger::run(command, client, shown).await,
        Command::Serve { .. } | Command::CheckConfig { .. } | Command::Completions { .. } => {
            unreachable!("these ask no running collector")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
