//! Checks a tree once: the same verification as the daemon's, with an exit code.

mod lines;
mod text;
mod transactions;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Args;
use drift::compare::Finding;
use drift::coverage::Gap;
use drift::manifest::Packages;

use crate::baseline::{Baseline, BaselineError, BaselinePaths};
use crate::durable;
use crate::packages::Labels;
use crate::scan::{Order, Pass, Progress, ScanError, ScanRequest, ScanSummary, Verified, scan};

pub use lines::{DriftLine, GapLine};
pub use text::Style;
use transactions::Transactions;

/// Check a tree against its image's signed manifest, once.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit codes:
  0  everything was verified and is as the image has it
  1  something drifted
  2  nothing drifted, but something could not be verified
  65 the manifest or its signature is not good, 66 it is not there

Examples:
  driftmark-agent check
  driftmark-agent check --disk
  driftmark-agent check --json | jq -r 'select(.kind==\"changed\").path'
  driftmark-agent check --root /mnt/image --manifest out/image.manifest --trust keys/driftmark.pub")]
pub struct CheckArguments {
    /// The root of the tree to check.
    #[arg(long, value_name = "ROOT", default_value = "/")]
    pub root: PathBuf,
    /// The manifest; its signature lies beside it as FILE.sig [default: /usr/lib/driftmark/image.manifest].
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// A trusted public key, or a directory of them. May be repeated [default: /usr/lib/driftmark/trust.d].
    #[arg(long, value_name = "FILE")]
    pub trust: Vec<PathBuf>,
    /// Trust what an earlier check of this boot verified where its metadata has not moved since.
    #[arg(long)]
    pub quick: bool,
    /// Read around the page cache, as the content is on the disk: finds what was written beneath the file system.
    #[arg(long, conflicts_with = "quick")]
    pub disk: bool,
    /// One JSON object a line, the last one a summary.
    #[arg(long)]
    pub json: bool,
    /// Threads that read and hash; up to eight times as many, and 16 at most, wait for a disk where nothing is cached
    /// [default: one per core].
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// Where an earlier check is remembered.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/driftmark",
        hide = true
    )]
    pub state: PathBuf,
}

/// What a check comes to, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was verified and is as the image has it.
    Clean,
    /// Something drifted.
    Drift,
    /// Nothing drifted, but something could not be verified.
    Gap,
}

impl Outcome {
    /// 0, 1 or 2.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Clean => 0,
            Outcome::Drift => 1,
            Outcome::Gap => 2,
        }
    }

    fn of(summary: &ScanSummary) -> Self {
        match summary {
            ScanSummary { drifts: 1.., .. } => Outcome::Drift,
            ScanSummary { gaps: 1.., .. } => Outcome::Gap,
            _ if !summary.coverage.limits.is_empty() => Outcome::Gap,
            _ => Outcome::Clean,
        }
    }
}

/// Why a check gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is nothing to check against.
    #[error("open the image's manifest")]
    Baseline(#[from] BaselineError),
    /// The scan did not finish.
    #[error("scan {}", crate::bake::shown(root))]
    Scan {
        /// The root of the tree.
        root: PathBuf,
        /// Why.
        #[source]
        source: ScanError,
    },
    /// The output could not be written.
    #[error("write the result")]
    Output(#[source] io::Error),
}

/// A check that was done, to be printed.
#[derive(Debug)]
pub struct Checked {
    baseline: Baseline,
    drifts: Vec<DriftLine>,
    transactions: Transactions,
    gaps: Vec<Gap>,
    summary: ScanSummary,
}

/// Opens the image's manifest, as every check begins.
///
/// # Errors
/// Anything that leaves it unverified.
pub fn open(arguments: &CheckArguments) -> Result<Baseline, CheckError> {
    Ok(Baseline::open(&paths(arguments))?)
}

/// Checks the tree against its manifest.
///
/// # Errors
/// See [`CheckError`]: no verdict then.
pub fn check(
    arguments: &CheckArguments,
    baseline: Baseline,
    interrupt: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Checked, CheckError> {
    let memory = memory_path(arguments, &baseline);
    let (pass, mut verified) = match (arguments.quick, arguments.disk) {
        (true, _) => {
            let entries = baseline.manifest.header().entry_count;
            (Pass::Quick, remembered(&memory, entries))
        }
        (_, true) => (Pass::Disk, Verified::default()),
        _ => (Pass::Full, Verified::default()),
    };
    let as_read = verified.digest();
    let mut drifts = BTreeMap::new();
    let mut gaps: Vec<Gap> = Vec::new();
    let request = ScanRequest {
        baseline: &baseline,
        root: &arguments.root,
        pass,
        threads: arguments.threads.unwrap_or_else(crate::threads),
        held_length: &|_| None,
        interrupt,
        pace: None,
        order: Order::OfPaths,
        progress,
    };
    let scanned = scan(&request, &mut verified, &mut |finding| match finding {
        Finding::Drift(difference) => {
            let drift = &difference.drift;
            let key = (
                drift.path.clone(),
                drift.kind.clone(),
                drift.is_on_disk_alone(),
            );
            drifts.insert(key, *difference);
        }
        Finding::Gap(gap) => gaps.push(gap),
        Finding::Held(_) => {}
    });
    let summary = scanned.map_err(|source| CheckError::Scan {
        root: arguments.root.clone(),
        source,
    })?;
    if verified.digest() != as_read {
        remember(&memory, &verified);
    }
    gaps.sort_by(|a, b| a.path.cmp(&b.path));
    // Neither package section is read where nothing drifted.
    let packages = match drifts.is_empty() {
        true => Packages::default(),
        false => baseline.manifest.packages().unwrap_or_default(),
    };
    let labels = Labels::read(
        &arguments.root,
        &baseline.manifest.header().filesystems,
        drifts.values().map(|difference| &difference.drift),
        interrupt,
    );
    let drifts: Vec<DriftLine> = drifts
        .into_values()
        .map(|difference| DriftLine::new(difference, &baseline, &packages, &labels))
        .collect();
    let transactions =
        Transactions::of(&drifts, packages.list(), &|name| labels.is_installed(name));
    Ok(Checked {
        baseline,
        drifts,
        transactions,
        gaps,
        summary,
    })
}

impl Checked {
    /// What drifted, in path order.
    pub fn drifts(&self) -> &[DriftLine] {
        &self.drifts
    }

    /// What could not be verified.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The image that it was held against.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// What it comes to.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(&self.summary)
    }

    /// Prints JSON Lines for machines.
    ///
    /// # Errors
    /// What writing gives.
    pub fn print_lines(&self, out: &mut dyn Write) -> Result<(), CheckError> {
        lines::print(out, self).map_err(CheckError::Output)
    }

    /// Prints text for people.
    ///
    /// # Errors
    /// What writing gives.
    pub fn print_text(&self, out: &mut dyn Write, style: Style) -> Result<(), CheckError> {
        text::print(out, style, self).map_err(CheckError::Output)
    }
}

/// Where the image's manifest and its signature lie, and whose signature is trusted.
pub fn paths(arguments: &CheckArguments) -> BaselinePaths {
    let mut paths = BaselinePaths::default();
    if let Some(manifest) = &arguments.manifest {
        let mut signature = manifest.clone().into_os_string();
        signature.push(".sig");
        paths.manifest = manifest.clone();
        paths.signature = signature.into();
    }
    if !arguments.trust.is_empty() {
        paths.trust = arguments.trust.clone();
    }
    paths
}

/// One memory for each manifest and root.
fn memory_path(arguments: &CheckArguments, baseline: &Baseline) -> PathBuf {
    let root = arguments
        .root
        .canonicalize()
        .unwrap_or_else(|_| arguments.root.clone());
    let root = drift::Blake3::of(root.as_os_str().as_encoded_bytes()).to_string();
    let name = format!("{}-{}", baseline.manifest.identity().blake3, &root[..16]);
    arguments.state.join("verified").join(name)
}

/// What an earlier check verified; nothing if it cannot be read, which only means more work.
fn remembered(path: &Path, entries: u64) -> Verified {
    let read = std::fs::File::open(path).and_then(|mut file| Verified::read(&mut file, entries));
    read.ok().flatten().unwrap_or_default()
}

/// Remembers for a later quick check, where there is a place to.
fn remember(path: &Path, verified: &Verified) {
    let Some(directory) = path.parent() else {
        return;
    };
    let is_there = std::fs::create_dir_all(directory).is_ok();
    if is_there
        && !verified.is_empty()
        && let Err(error) = durable::write_for_this_boot(path, 0o600, &|file| verified.write(file))
    {
        tracing::debug!(%error, "the next quick check will have to read everything");
    }
}
