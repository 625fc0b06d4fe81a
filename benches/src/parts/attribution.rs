//! Of how many processes that write and are gone it is known which program they ran.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use driftmark_tests::Collector;
use serde_json::Value;

use crate::agent::Agent;
use crate::machine;
use crate::table::{Figure, budgets};
use crate::watched::{self, Home, Watched, instance};
use crate::writer::{Spinner, Writer};

/// Processes, each of which writes one file.
const WRITERS: usize = 1000;

pub(super) fn measure(_: &Path) -> Result<String> {
    let home = Home::new()?;
    for nth in 0..2 * WRITERS {
        let path = home.root().join(name(nth));
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(path, "as it was baked\n").context("make the tree")?;
    }
    let agent = Agent::new(&home.root())?;
    agent.bake()?;
    let collector = watched::collector(&agent)?;
    let _watched = Watched::start(&agent, "")?;
    instance(&collector, |row| row["state"] == "clean")?;
    let writer = Writer::at(&home.beside("writer"))?;
    let free = known(&home, &collector, &writer, 0)?;
    let busy = {
        let _spinners = (0..machine::threads())
            .map(|_| Spinner::start())
            .collect::<Result<Vec<_>>>()?;
        known(&home, &collector, &writer, WRITERS)?
    };
    let figure = |what: &str, budget, least: f64, known: usize| {
        let share = 100.0 * known as f64 / WRITERS as f64;
        let value = format!("{share:.1} % ({known} of {WRITERS})");
        Figure::held(what, budget, value, share >= least)
    };
    Ok(format!(
        "{}\nA static program opens one file, writes and ends, {WRITERS} times, one right after the other; what the collector has of \
         each names the program, or it does not count. Busy: as many processes that only run as there are cores.\n",
        budgets(&[
            figure("one-shot writers, cores free", "≥ 95 %", 95.0, free),
            figure("one-shot writers, cores busy", "≥ 80 %", 80.0, busy),
        ])
    ))
}

fn name(nth: usize) -> String {
    format!("{}/file-{nth}", nth % 20)
}

/// Of how many of the processes that write the files from this one on it is known which program they ran.
fn known(home: &Home, collector: &Collector, writer: &Writer, from: usize) -> Result<usize> {
    for nth in from..from + WRITERS {
        writer.write(&home.root().join(name(nth)))?;
    }
    let all = (from + WRITERS) as u64;
    instance(collector, |row| row["open"] == all)?;
    let program = writer.program().display().to_string();
    let mut known = 0;
    for row in collector.database("SELECT drift FROM drifts WHERE drift IS NOT NULL")? {
        let drift: Value = serde_json::from_str(&row).context("read a drift")?;
        let path = drift["path"].as_str().unwrap_or_default();
        let nth = path.rsplit_once('-').and_then(|(_, nth)| nth.parse().ok());
        let is_its = nth.is_some_and(|nth: usize| nth >= from);
        known += usize::from(
            is_its && drift["attribution"]["process"]["executable"]["path"] == program.as_str(),
        );
    }
    Ok(known)
}
