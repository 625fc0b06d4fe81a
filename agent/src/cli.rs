//! The command line: which command, its output, its exit code.

mod exit;
mod progress;

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bake::{self, BakeArguments, Baked};
use crate::baseline::{Baseline, BaselinePaths};
use crate::check::{self, CheckArguments, Style};
use crate::config::{self, Config, Surroundings};
use crate::confine::{self, Place, Writes};
use crate::diff::{self, DiffArguments};
use crate::enrol::{self, EnrollArguments};
use crate::inspect::{self, InspectArguments};
use crate::interrupt;
use crate::keygen;
use crate::learn::{self, LearnArguments};
use crate::log::Chain;
use crate::scan::Progress;
use crate::sign::{self, SignArguments};
use crate::{run as daemon, state_files, status};

use exit::Exit;
use progress::{Audience, Bar};

/// Every instance stays the image it was baked from, or it is replaced.
///
/// The agent bakes an image's signed manifest, checks a tree against it, and, as a daemon, reports what drifted to a
/// collector.
#[derive(Debug, Parser)]
#[command(
    name = "driftmark-agent",
    version,
    max_term_width = 100,
    after_help = "\
An image pipeline runs `keygen` once and `bake` as its last step; an instance runs `run`.
`driftmark-agent COMMAND --help` has examples. See also driftmark-agent(8)."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair for an image pipeline: driftmark.key (0600) and driftmark.pub.
    Keygen {
        /// Where to write it.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
    Bake(Box<BakeArguments>),
    Sign(SignArguments),
    Check(CheckArguments),
    Learn(LearnArguments),
    Inspect(InspectArguments),
    Diff(DiffArguments),
    /// Enrol this instance with a collector: make its key and get its certificate.
    ///
    /// The daemon enrols by itself as soon as it finds a join token; this is for doing it by hand. What no flag says, the
    /// configuration says.
    #[command(
        visible_alias = "enrol",
        after_help = "\
Examples:
  driftmark-agent enroll --token-file join-token
  driftmark-agent enroll --token-file join-token --fleet web --cloud-id i-0abc123"
    )]
    Enroll(EnrollFlags),
    /// Run as the daemon: verify at start and from then on, and report to the collector.
    #[command(after_help = "\
Examples:
  driftmark-agent run                        # as the unit driftmark-agent.service does
  driftmark-agent run --config agent.toml    # by this file alone: no drop-ins, kernel command line or credential

It ends with 78 where the configuration is refused: `driftmark-agent check-config` says why.")]
    Run {
        /// Read this configuration alone [default: what `check-config --help` lists].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Ask the running agent how it is.
    #[command(after_help = "\
Examples:
  driftmark-agent status
  driftmark-agent status --json | jq .open_drifts")]
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// The agent's socket [default: as configured, /run/driftmark/agent.sock].
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
    /// Check a configuration: say what is in force and who says so, or what is wrong.
    #[command(after_help = "\
Without FILE, as `run` does, each laid over the one before:
  /usr/lib/driftmark/agent.d/*.toml    the image's; a file in a later directory masks one of the
  /run/driftmark/agent.d/*.toml        same name, and those that remain are laid over each other
  /etc/driftmark/agent.d/*.toml        in the order of their names
  the kernel command line              driftmark.collector=URL, driftmark.fleet=NAME
  the credential driftmark.config

Examples:
  driftmark-agent check-config
  driftmark-agent check-config agent.toml")]
    CheckConfig {
        /// The file [default: the same files as `run` reads].
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct EnrollFlags {
    /// The collector's address for agents [default: the one in the join token].
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    /// The file with the join token, which `driftmark-collector token create` makes [default: as configured].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The fleet that this instance is for: a token of another one is refused [default: the token's].
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// The cloud's id of this machine [default: as configured].
    #[arg(long, value_name = "ID")]
    cloud_id: Option<String>,
    /// Where the identity is kept [default: as configured, $STATE_DIRECTORY, /var/lib/driftmark].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Read this configuration alone [default: what `check-config --help` lists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Parses the command line, runs the command, and gives its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    driftmark_kernel::process::open_files_as_may_be();
    let outcome = match cli.command {
        Command::Keygen { output } => run_keygen(&output),
        Command::Bake(arguments) => run_bake(&arguments),
        Command::Sign(arguments) => run_sign(&arguments),
        Command::Check(arguments) => run_check(&arguments),
        Command::Learn(arguments) => run_learn(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments, &mut standard_output())
            .map(|()| ExitCode::SUCCESS)
            .map_err(Exit::from),
        Command::Diff(arguments) => diff::diff(&arguments, &mut standard_output())
            .map(|count| ExitCode::from(u8::from(count > 0)))
            .map_err(Exit::from),
        Command::Enroll(flags) => return enroll(flags),
        Command::Run { config } => return daemon::run(config.as_deref()),
        Command::Status { json, socket } => return status::show(json, socket),
        Command::CheckConfig { file } => return config::check(file.as_deref()),
    };
    outcome.unwrap_or_else(Exit::report)
}

fn run_keygen(output: &Path) -> Result<ExitCode, Exit> {
    let pair = keygen::keygen(output)?;
    println!(
        "private key  {}  keep it with the pipeline, never in an image",
        bake::shown(&pair.private)
    );
    println!(
        "public key   {}  into images (/usr/lib/driftmark/trust.d) and to the collector",
        bake::shown(&pair.public)
    );
    println!("key id       {}", pair.id);
    Ok(ExitCode::SUCCESS)
}

fn run_bake(arguments: &BakeArguments) -> Result<ExitCode, Exit> {
    let interrupt =
        interrupt::flag().map_err(|error| Exit::from_io("listen for signals", &error))?;
    let bar = Bar::new("baking", audience(arguments.json));
    let baked = bake::bake(
        arguments,
        &interrupt,
        &|others| write_only_at(&[others, &[Place::Below(&arguments.output)]].concat()),
        &|progress, all| bar.show(progress, all),
    );
    bar.finish();
    print_baked(&baked?, arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Confines this process, or says on standard error how far it is not; the result is the same.
fn write_only_at(places: &[Place<'_>]) {
    match confine::only_at(places) {
        Ok(Writes::Confined) => {}
        Ok(less) => eprintln!("note: {less}"),
        Err(error) => eprintln!(
            "note: nothing but file modes keeps it from writing elsewhere: {}",
            Chain(&error)
        ),
    }
}

fn print_baked(baked: &Baked, json: bool) -> Result<(), Exit> {
    let mut out = standard_output();
    if json {
        let value = serde_json::json!({
            "sha256": baked.identity.sha256,
            "blake3": baked.identity.blake3,
            "entries": baked.entry_count,
            "manifest_bytes": baked.manifest_bytes,
            "rules": baked.rules.files,
            "volatile_executables_percent": baked.share.executables.percent(),
            "warnings": baked.traces,
            "written": baked.written,
            "peak_resident_kib": driftmark_kernel::process::peak_resident_kib().unwrap_or_default(),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let sources = &baked.rules.built.sources;
    match &baked.rules.files[..] {
        [] => writeln!(out, "rules      none: nothing may change")?,
        files => writeln!(
            out,
            "rules      {} from {}",
            sources.len(),
            files.join(", ")
        )?,
    }
    for (source, matched) in sources.iter().zip(&baked.share.matched) {
        let reason = source
            .reason
            .as_deref()
            .map(|reason| format!("  # {reason}"))
            .unwrap_or_default();
        writeln!(out, "{matched:>9}  {}{reason}", source.rule)?;
    }
    for note in &baked.rules.built.notes {
        writeln!(out, "     note  {note}")?;
    }
    if !sources.is_empty() {
        let share = &baked.share;
        writeln!(
            out,
            "volatile   {:.2} % of the paths, {:.2} % of the bytes, {:.2} % of the executables",
            share.entries.percent(),
            share.bytes.percent(),
            share.executables.percent()
        )?;
    }
    for trace in &baked.traces {
        writeln!(out, "warning    {}: {}", trace.path, trace.reason)?;
        writeln!(out, "           clean it: {}", trace.clean)?;
    }
    writeln!(
        out,
        "manifest   {} entries in {}",
        baked.entry_count,
        crate::size(baked.manifest_bytes)
    )?;
    writeln!(out, "identity   sha256 {}", baked.identity.sha256)?;
    for path in &baked.written {
        writeln!(out, "written    {}", bake::shown(path))?;
    }
    if baked
        .written
        .iter()
        .any(|path| path.ends_with("image.statement.json"))
    {
        writeln!(
            out,
            "It is not signed yet: `driftmark-agent sign --help` says how."
        )?;
    }
    out.flush()?;
    Ok(())
}

fn run_sign(arguments: &SignArguments) -> Result<ExitCode, Exit> {
    if let Some(written) = sign::sign(arguments, &mut standard_output())? {
        println!("written    {}", bake::shown(&written));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_check(arguments: &CheckArguments) -> Result<ExitCode, Exit> {
    let interrupt =
        interrupt::flag().map_err(|error| Exit::from_io("listen for signals", &error))?;
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if colours {
        Style::Coloured
    } else {
        Style::Plain
    };
    // What is not there yet has no place of its own. Where it cannot be made, nothing is remembered.
    if check::paths(arguments).manifest.exists() {
        let _ = state_files::make_directory(&arguments.state);
    }
    write_only_at(&[Place::Below(&arguments.state)]);
    let baseline = check::open(arguments)?;
    let header = baseline.manifest.header();
    let all = Progress {
        entries: header.entry_count,
        bytes: if arguments.quick {
            0
        } else {
            header.content_bytes
        },
    };
    let bar = Bar::new("checking", audience(arguments.json));
    let checked = check::check(arguments, baseline, &interrupt, &|progress| {
        bar.show(progress, Some(all));
    });
    bar.finish();
    let (checked, mut out) = (checked?, standard_output());
    if arguments.json {
        checked.print_lines(&mut out)?;
    } else {
        checked.print_text(&mut out, style)?;
    }
    Ok(ExitCode::from(checked.outcome().exit_code()))
}

fn enroll(flags: EnrollFlags) -> ExitCode {
    match config::load(flags.config.as_deref(), &Surroundings::of_the_daemon()) {
        Ok(config) => run_enroll(flags, config).unwrap_or_else(Exit::report),
        Err(error) => config::refuse(&error),
    }
}

fn run_learn(arguments: &LearnArguments) -> Result<ExitCode, Exit> {
    let interrupt =
        interrupt::flag().map_err(|error| Exit::from_io("listen for signals", &error))?;
    let bar = Bar::new("checking", Audience::People);
    let observed = learn::observe(arguments, &interrupt, &|progress| bar.show(progress, None));
    bar.finish();
    let observed = observed?;
    let proposal = learn::propose(&observed)?;
    let code = learn::print(arguments, &observed, &proposal, &mut standard_output())?;
    for refused in &proposal.refused {
        eprintln!("not allowed  {}  {}", refused.path, refused.why);
    }
    eprintln!(
        "{} rules proposed, {} paths not allowed",
        proposal.rules.len(),
        proposal.refused.len()
    );
    Ok(ExitCode::from(code))
}

fn run_enroll(flags: EnrollFlags, config: Config) -> Result<ExitCode, Exit> {
    let baseline = Baseline::open(&BaselinePaths {
        manifest: config.image.manifest,
        signature: config.image.signature,
        trust: config.image.trust,
    });
    let baseline = baseline.ok();
    let configured = enrol::first_there(&config.token_files)
        .or(config.token_files.first().map(PathBuf::as_path));
    let cloud_id = || enrol::first_there(&config.cloud_id_files).and_then(enrol::read_cloud_id);
    let enrolled = enrol::enroll(&EnrollArguments {
        collector: flags.collector.or(config.collector_url),
        ca_file: config.ca_file,
        fleet: flags.fleet.or(config.fleet),
        token_file: flags
            .token_file
            .or(configured.map(PathBuf::from))
            .unwrap_or_default(),
        state_directory: flags.state.unwrap_or(config.state_directory),
        cloud_id: flags.cloud_id.or_else(cloud_id),
        image: baseline.as_ref().map(Baseline::image),
        build_time: baseline.as_ref().and_then(Baseline::build_time),
    })?;
    println!(
        "enrolled as {} in fleet {}",
        enrolled.instance,
        drift::escape(enrolled.fleet.as_bytes())
    );
    Ok(ExitCode::SUCCESS)
}

fn audience(json: bool) -> Audience {
    if json {
        Audience::Machines
    } else {
        Audience::People
    }
}

fn standard_output() -> BufWriter<io::Stdout> {
    BufWriter::new(io::stdout())
}
