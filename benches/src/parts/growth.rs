//! Seeded trees of ten thousand to a million entries: time for each entry and byte, and memory, must not grow with them.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, Pass};
use crate::ceiling::{Digests, read_and_hash, walk_and_stat};
use crate::list::List;
use crate::machine;
use crate::seeded;
use crate::table::peak;
use crate::turns::{Racer, Run, race};

const ENTRIES: [u64; 3] = [10_000, 100_000, 450_000];
/// Only where `BENCH_LARGE` is set: it takes five gigabytes and minutes.
const LARGE: u64 = 1_000_000;
/// Odd, so that there is a median.
const RUNS: usize = 3;

/// What one tree came to.
struct Grown {
    listed: Run,
    looked_at: Run,
    full: Run,
    quick: Run,
    baked: Run,
}

pub(super) fn measure(_: &Path) -> Result<String> {
    let large = std::env::var_os("BENCH_LARGE").map(|_| LARGE);
    let mut text = String::from(
        "| entries | content | `check` | an entry | a byte | of the ceiling's speed | peak | `check --quick` | an entry | \
         of `statx` | peak | peak of `bake` |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut all = Vec::new();
    for entries in ENTRIES.into_iter().chain(large) {
        let grown = measure_one(entries)?;
        text.push_str(&line(&grown));
        all.push(grown);
    }
    text.push_str(&format!(
        "\nMedian of {RUNS} runs in turn, page cache warm. {}\n",
        flatness(&all)
    ));
    Ok(text)
}

fn measure_one(entries: u64) -> Result<Grown> {
    let threads = machine::threads();
    let place = tempfile::Builder::new()
        .prefix("driftmark-seeded-")
        .tempdir()
        .context("make a directory")?;
    let root = place.path().join("root");
    seeded::plant(&root, entries, threads as u64)?;
    // What is being written back is no part of what is measured.
    rustix::fs::sync();
    let agent = Agent::new(&root)?;
    let baked = agent.bake()?;
    agent.check(Pass::Full)?;
    let list = List::of(&root).context("list the files")?;
    let mut racers = [
        Racer::new("ceiling", || {
            Ok(read_and_hash(&list, threads, Digests::Blake3)?)
        }),
        Racer::new("statx", || Ok(walk_and_stat(&root, threads)?)),
        Racer::new("check", || agent.check(Pass::Full)),
        Racer::new("check --quick", || agent.check(Pass::Quick)),
    ];
    let medians = race(RUNS, &|| Ok(()), &mut racers)?;
    Ok(Grown {
        listed: medians[0],
        looked_at: medians[1],
        full: medians[2],
        quick: medians[3],
        baked,
    })
}

fn line(grown: &Grown) -> String {
    let Grown {
        listed,
        looked_at,
        full,
        quick,
        baked,
    } = grown;
    let seconds = |run: &Run| run.wall.as_secs_f64();
    format!(
        "| {} | {:.2} GiB | {:.2} s | {:.2} µs | {:.3} ns | {:.2} | {} | {:.2} s | {:.2} µs | {:.2} × | {} | {} |\n",
        full.entries,
        full.bytes as f64 / f64::from(1 << 30),
        seconds(full),
        1e6 * seconds(full) / full.entries as f64,
        1e9 * seconds(full) / full.bytes as f64,
        seconds(listed) / seconds(full),
        peak(full),
        seconds(quick),
        1e6 * seconds(quick) / quick.entries as f64,
        seconds(quick) / seconds(looked_at),
        peak(quick),
        peak(baked),
    )
}

/// The largest against the smallest that is not all start of a process.
fn flatness(all: &[Grown]) -> String {
    let [_, from, .., to] = all else {
        return String::new();
    };
    let each = |of: fn(&Grown) -> &Run, grown: &Grown| {
        let run = of(grown);
        run.wall.as_secs_f64() / run.entries as f64
    };
    let ratio = |of| each(of, to) / each(of, from);
    let memory = |of: fn(&Grown) -> &Run| {
        let kib = |grown| of(grown).peak_kib.unwrap_or_default() as f64;
        kib(to) / kib(from)
    };
    let (full, quick) = (ratio(|grown| &grown.full), ratio(|grown| &grown.quick));
    let (memory_full, memory_quick) = (memory(|grown| &grown.full), memory(|grown| &grown.quick));
    format!(
        "From {} to {} entries (flat is 0.85 to 1.15): time an entry × {full:.2} in full, × {quick:.2} quick; peak \
         × {memory_full:.2} and × {memory_quick:.2}.",
        from.full.entries, to.full.entries
    )
}
