//! `check` of a tree of which nothing is cached, against the fastest plain reader of the same files.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, Pass};
use crate::cold::{Orders, READERS};
use crate::list::List;
use crate::machine;
use crate::table::{Budget, Held, Line, markdown};
use crate::turns::{Racer, race};

/// Odd, so that there is a median.
const RUNS: usize = 3;

pub(super) fn measure(root: &Path) -> Result<String> {
    if let Err(error) = machine::drop_caches() {
        return Ok(format!("Not measured: {error:#}.\n"));
    }
    let agent = Agent::new(root)?;
    agent.bake()?;
    let orders = Orders::of(&List::of(root).context("list the files")?)?;
    let mut tried = Vec::new();
    for reader in READERS {
        machine::drop_caches()?;
        let run = orders.read(reader)?;
        eprintln!("  {}: {:.3} s", reader.name(), run.wall.as_secs_f64());
        tried.push((reader, run));
    }
    let (best, _) = tried
        .iter()
        .min_by_key(|(_, run)| run.wall)
        .copied()
        .context("a reader was tried")?;
    let mut racers = [
        Racer::new(format!("fastest plain reader: {}", best.name()), || {
            orders.read(best)
        }),
        Racer::new("`check`", || agent.check(Pass::Full)),
    ];
    let medians = race(RUNS, &machine::drop_caches, &mut racers)?;
    let held = Held {
        against: "the fastest reader",
        ceiling: medians[0],
        budget: Budget::Within(1.1),
    };
    let lines = [
        Line {
            what: racers[0].what.clone(),
            run: medians[0],
            held: None,
        },
        Line {
            what: racers[1].what.clone(),
            run: medians[1],
            held: Some(held),
        },
    ];
    let tried: Vec<String> = tried
        .iter()
        .map(|(reader, run)| format!("{} {:.2} s", reader.name(), run.wall.as_secs_f64()))
        .collect();
    Ok(format!(
        "{}\nMedian of {RUNS} runs in turn; before each `sync`, then 3 to `drop_caches`. Readers that were tried, once each: {}.\n",
        markdown(&lines),
        tried.join("; ")
    ))
}
