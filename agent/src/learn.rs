//! Receives what checks of first boots found; hands on the tightest rules that explain it, and what none may explain.
//!
//! It boots nothing: a pipeline boots the image, keeps what `check --json` says, and bakes again with the proposal, once
//! somebody has read it. An observation is as hostile as the instance that it comes from, so nothing in it is believed
//! but that these paths drifted: what they mean is judged here, and the wider a rule, the more it takes to propose it.

mod names;
mod observed;
mod propose;
mod refusal;
mod written;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::Args;

use crate::check::{self, CheckArguments, CheckError};
use crate::durable;
use crate::scan::Progress;

pub use observed::{BadObservation, Instance, Observations, Sight};
pub use propose::{Proposal, ProposedRule, Refused, propose};

/// Propose rules from what drifted on first boots of an image.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Each FILE is one instance. Checks of the same instance, first boot first, go into one file, one after the other
(`check --json >> boot1.json`): what changed between them is not taken for a matter of the first boot.
The more instances, the tighter the rules: names that differ are generalised only where two instances show that they do.
Without a FILE the tree is checked now, as `check` does it.

The proposal is a rule file with the paths behind each rule. Read it, then: bake --rules learned.toml
What it will not allow is said at its end: put that into the image, or write the rule yourself.

Exit codes:
  0  the proposal explains everything that was observed
  1  something was observed that it will not allow
  2  it explains everything, but something could not be verified when it was observed

Examples:
  driftmark-agent check --json > boot1.json          (on the instance, ten minutes after its first boot)
  driftmark-agent learn boot1.json boot2.json --output learned.toml
  driftmark-agent learn --root /mnt/image --manifest out/image.manifest --trust keys/driftmark.pub")]
pub struct LearnArguments {
    /// What `check --json` said on one instance; `-` is standard input [default: check --root now].
    #[arg(value_name = "FILE")]
    pub observations: Vec<PathBuf>,
    /// Without FILE: the root of the tree to check.
    #[arg(long, value_name = "ROOT", default_value = "/")]
    pub root: PathBuf,
    /// Without FILE: the manifest [default: /usr/lib/driftmark/image.manifest].
    #[arg(long, value_name = "FILE", conflicts_with = "observations")]
    pub manifest: Option<PathBuf>,
    /// Without FILE: a trusted public key, or a directory of them [default: /usr/lib/driftmark/trust.d].
    #[arg(long, value_name = "FILE", conflicts_with = "observations")]
    pub trust: Vec<PathBuf>,
    /// Where to write the rules [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// One JSON object instead of a rule file.
    #[arg(long)]
    pub json: bool,
}

/// Why nothing is proposed.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The tree could not be checked.
    #[error("check the tree")]
    Check(#[from] CheckError),
    /// An observation cannot be used.
    #[error("read the observation {file}")]
    Observation {
        /// Its file.
        file: String,
        /// Why.
        #[source]
        source: BadObservation,
    },
    /// More than a first boot can be.
    #[error(
        "explaining this would take {0} rules, and a proposal has at most {max}: this is no first boot of this image",
        max = Proposal::MAX_RULES
    )]
    TooMany(usize),
    /// The output could not be written.
    #[error("write the proposal")]
    Output(#[source] io::Error),
}

/// Reads the observations, or makes one of this host.
///
/// # Errors
/// See [`LearnError`].
pub fn observe(
    arguments: &LearnArguments,
    interrupt: &AtomicBool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Observations, LearnError> {
    if arguments.observations.is_empty() {
        let checking = CheckArguments {
            root: arguments.root.clone(),
            manifest: arguments.manifest.clone(),
            trust: arguments.trust.clone(),
            quick: false,
            disk: false,
            json: false,
            threads: None,
            state: "/var/lib/driftmark".into(),
        };
        let baseline = check::open(&checking)?;
        let checked = check::check(&checking, baseline, interrupt, progress)?;
        return Ok(Observations::of_check(&checked));
    }
    let mut observations = Observations::default();
    for path in &arguments.observations {
        let add = observations.add_file(path);
        add.map_err(|source| LearnError::Observation {
            file: crate::bake::shown(path),
            source,
        })?;
    }
    Ok(observations)
}

/// Writes the proposal where it was asked for; gives the exit code.
///
/// # Errors
/// What writing gives.
pub fn print(
    arguments: &LearnArguments,
    observations: &Observations,
    proposal: &Proposal,
    out: &mut dyn Write,
) -> Result<u8, LearnError> {
    let text = if arguments.json {
        written::json(observations, proposal)
    } else {
        written::rule_file(observations, proposal)
    };
    match &arguments.output {
        Some(path) => durable::write(path, text.as_bytes(), 0o644).map_err(LearnError::Output)?,
        None => out
            .write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(LearnError::Output)?,
    }
    Ok(match (proposal.refused.len(), observations.gaps) {
        (1.., _) => 1,
        (0, 1..) => 2,
        (0, 0) => 0,
    })
}

#[cfg(test)]
mod tests;
