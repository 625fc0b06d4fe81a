//! The agent against its ceilings and against AIDE, with everything in the page cache.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, Pass};
use crate::aide::{ATTRIBUTES, Aide};
use crate::ceiling::{Digests, read_and_hash, walk_and_hash, walk_and_stat};
use crate::list::List;
use crate::machine;
use crate::table::{Budget, Held, Line, markdown};
use crate::turns::{Racer, Run, race};

/// Odd, so that there is a median.
const RUNS: usize = 5;

pub(super) fn measure(root: &Path) -> Result<String> {
    let threads = machine::threads();
    let agent = Agent::new(root)?;
    let list = List::of(root).context("list the files")?;
    // Once unmeasured, so that everything is in the page cache for everyone.
    read_and_hash(&list, threads, Digests::Blake3)?;
    agent.bake()?;
    agent.check(Pass::Full)?;
    let with = |what: &str| format!("{what}, {threads} threads");
    let mut racers = [
        Racer::new(with("ceiling: read and BLAKE3, listed before"), || {
            Ok(read_and_hash(&list, threads, Digests::Blake3)?)
        }),
        Racer::new(with("bare walker: list, read and BLAKE3"), || {
            Ok(walk_and_hash(root, threads)?)
        }),
        Racer::new("`check`", || agent.check(Pass::Full)),
        Racer::new(with("ceiling: list and `statx`"), || {
            Ok(walk_and_stat(root, threads)?)
        }),
        Racer::new("`check --quick`", || agent.check(Pass::Quick)),
        Racer::new(
            with("ceiling: read, BLAKE3 and SHA-256, listed before"),
            || Ok(read_and_hash(&list, threads, Digests::Both)?),
        ),
        Racer::new("`bake`, both digests", || agent.bake()),
    ];
    let medians = race(RUNS, &|| Ok(()), &mut racers)?;
    let mut lines: Vec<Line> = racers
        .iter()
        .zip(&medians)
        .map(|(racer, run)| Line {
            what: racer.what.clone(),
            run: *run,
            held: None,
        })
        .collect();
    let held = |against, ceiling: usize, budget| {
        Some(Held {
            against,
            ceiling: medians[ceiling],
            budget,
        })
    };
    lines[1].held = held("the ceiling", 0, Budget::Shown);
    lines[2].held = held("the ceiling", 0, Budget::Share(0.9));
    lines[4].held = held("its ceiling", 3, Budget::Within(1.3));
    lines[6].held = held("its ceiling", 5, Budget::Within(1.15));
    lines[6].run.bytes = list.bytes;
    let aside = aide(root, threads, medians[2], &mut lines)?;
    let manifest = std::fs::metadata(agent.manifest()).context("measure the manifest")?;
    Ok(format!(
        "{}\nMedian of {RUNS} runs in turn. {aside} The manifest has {:.1} bytes an entry.\n",
        markdown(&lines),
        manifest.len() as f64 / medians[2].entries as f64
    ))
}

/// AIDE once: it takes longer than all the rest.
fn aide(root: &Path, threads: usize, check: Run, lines: &mut Vec<Line>) -> Result<String> {
    let Some(aide) = Aide::new(root, threads)? else {
        return Ok(
            "AIDE is not installed (`packaging/setup bench` does that) and was not measured."
                .to_owned(),
        );
    };
    let init = aide.init()?;
    let run = aide.check()?;
    for (what, run) in [("`aide --init`", init), ("`aide --check`", run)] {
        lines.push(Line {
            what: what.to_owned(),
            run,
            held: None,
        });
    }
    lines.push(Line {
        what: "`check` again".to_owned(),
        run: check,
        held: Some(Held {
            against: "`aide --check`",
            ceiling: run,
            budget: Budget::Faster(45.0),
        }),
    });
    Ok(format!(
        "AIDE with `{ATTRIBUTES}` and {threads} workers, once."
    ))
}
