//! Receives a directory and the date of the source; hands on, laid out as it will be installed, what is made of the
//! command lines and the configuration types: manual pages, shell completions, commented default configuration.
//!
//! - [`program`]: a command line → the page of a program.
//! - [`keys`]: a table of keys → the page of a configuration file, and the file with everything commented out.
//! - [`pages`]: what those pages say besides.
//!
//! A member of its own, so that neither program contains any of it.

#![forbid(unsafe_code)]

mod keys;
mod pages;
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use clap_complete::Shell;
use driftmark_collector::policy;

/// Where each shell looks for completions.
const COMPLETIONS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "usr/share/bash-completion/completions", "", ""),
    (Shell::Zsh, "usr/share/zsh/vendor-completions", "_", ""),
    (
        Shell::Fish,
        "usr/share/fish/vendor_completions.d",
        "",
        ".fish",
    ),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, date] = &arguments[..] else {
        bail!("usage: driftmark-packaging DIRECTORY YYYY-MM-DD");
    };
    let directory = Path::new(directory);
    for (path, text) in agent(date).into_iter().chain(collector(date)) {
        let path = directory.join(path);
        let parent = path.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// A file below the directory of its package, and what is in it.
type Laid = (PathBuf, Vec<u8>);

fn agent(date: &str) -> Vec<Laid> {
    let command = driftmark_agent::cli::Cli::command();
    let keys = driftmark_agent::config::Written::KEYS;
    let mut laid = completions(&command);
    laid.push(page(
        "driftmark-agent",
        8,
        program::page(command, &pages::AGENT, date),
    ));
    laid.push(page(
        "driftmark-agent.toml",
        5,
        keys::page(keys, &pages::AGENT_CONFIGURATION, date),
    ));
    laid.push((
        "usr/lib/driftmark/agent.d/00-default.toml".into(),
        keys::commented(keys, &pages::AGENT_CONFIGURATION).into(),
    ));
    below("driftmark-agent", laid)
}

fn collector(date: &str) -> Vec<Laid> {
    let command = driftmark_collector::cli::Cli::command();
    let keys = driftmark_collector::config::Written::KEYS;
    let fleet = policy::written::Section::KEYS;
    let mut laid = completions(&command);
    laid.push(page(
        "driftmark-collector",
        8,
        program::page(command, &pages::COLLECTOR, date),
    ));
    laid.push(page(
        "driftmark-collector.toml",
        5,
        keys::page(keys, &pages::COLLECTOR_CONFIGURATION, date),
    ));
    laid.push(page(
        "driftmark-fleets.toml",
        5,
        keys::page(fleet, &pages::FLEETS, date),
    ));
    laid.push((
        "usr/lib/driftmark/collector.d/00-default.toml".into(),
        keys::commented(keys, &pages::COLLECTOR_CONFIGURATION).into(),
    ));
    laid.push((
        "usr/share/doc/driftmark-collector/examples/fleets.toml".into(),
        keys::commented(fleet, &pages::FLEETS).into(),
    ));
    below("driftmark-collector", laid)
}

fn below(package: &str, laid: Vec<Laid>) -> Vec<Laid> {
    laid.into_iter()
        .map(|(path, text)| (Path::new(package).join(path), text))
        .collect()
}

fn page(name: &str, section: u8, text: String) -> Laid {
    (
        format!("usr/share/man/man{section}/{name}.{section}").into(),
        text.into(),
    )
}

fn completions(command: &clap::Command) -> Vec<Laid> {
    let name = command.get_name();
    COMPLETIONS
        .iter()
        .map(|(shell, directory, before, after)| {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command.clone(), name, &mut script);
            (
                Path::new(directory).join(format!("{before}{name}{after}")),
                script,
            )
        })
        .collect()
}
