//! What a check leaves in the kernel's caches, and what a daemon holds that has nothing to do.

use std::path::Path;

use anyhow::Result;

use crate::agent::{Agent, Pass};
use crate::ceiling::walk_and_stat;
use crate::idle::{WATCHED, watch};
use crate::machine::{self, Caches};
use crate::table::peak;

/// By how many MiB each grew: the content of files, the disk's own blocks, names and inodes.
fn grown(before: Caches, after: Caches) -> [f64; 3] {
    let mib = |before: u64, after: u64| (after as f64 - before as f64) / 1024.0;
    [
        mib(before.pages, after.pages),
        mib(before.blocks, after.blocks),
        mib(before.slab, after.slab),
    ]
}

pub(super) fn measure(root: &Path) -> Result<String> {
    let agent = Agent::new(root)?;
    agent.bake()?;
    let mut text = match machine::drop_caches() {
        Err(error) => format!("- caches: not measured: {error:#}.\n"),
        Ok(()) => {
            agent.touch()?;
            let before = machine::caches();
            let run = agent.check(Pass::Full)?;
            let check = grown(before, machine::caches());
            machine::drop_caches()?;
            let before = machine::caches();
            walk_and_stat(root, machine::threads())?;
            let walk = grown(before, machine::caches());
            format!(
                "- a full check from cold caches: peak {} resident; page cache of files grown by {:.1} MiB (≤ 16) of the \
                 whole machine, of the disk's blocks by {:.1} MiB, slab by {:.1} MiB. A bare walk that lists and asks \
                 `statx`: {:.1}, {:.1} and {:.1} MiB.\n",
                peak(&run),
                check[0],
                check[1],
                check[2],
                walk[0],
                walk[1],
                walk[2]
            )
        }
    };
    let mib = |kib: u64| kib as f64 / 1024.0;
    for (name, more, how) in [
        ("watching", "", "as it is installed"),
        (
            "not-watching",
            "[watch]\nenabled = false\n",
            "without its watch",
        ),
    ] {
        let idle = watch(&agent, name, more)?;
        text.push_str(&format!(
            "- `run` {how}, {} s after its first scan: {:.1} MiB resident (≤ 8), {:.1} MiB of it its own, {:.3} % of a core \
             (< 0.1); its peak was {:.1} MiB.\n",
            WATCHED.as_secs(),
            mib(idle.resident_kib),
            mib(idle.anonymous_kib),
            idle.core_percent,
            mib(idle.peak_kib)
        ));
    }
    Ok(text)
}
