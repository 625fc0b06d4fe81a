//! What a check leaves in the kernel's caches, and what a daemon holds that has nothing to do.

use std::path::Path;

use anyhow::Result;

use crate::agent::{Agent, Pass};
use crate::idle::{WATCHED, watch};
use crate::machine;
use crate::table::peak;

pub(super) fn measure(root: &Path) -> Result<String> {
    let agent = Agent::new(root)?;
    agent.bake()?;
    let mut text = match machine::drop_caches() {
        Err(error) => format!("- caches: not measured: {error:#}.\n"),
        Ok(()) => {
            agent.touch()?;
            let before = machine::caches();
            let run = agent.check(Pass::Full)?;
            let after = machine::caches();
            let grown = |before: u64, after: u64| (after as f64 - before as f64) / 1024.0;
            format!(
                "- a full check from cold caches: peak {} resident; page cache grown by {:.1} MiB (≤ 16) of the whole \
                 machine, slab by {:.1} MiB.\n",
                peak(&run),
                grown(before.pages, after.pages),
                grown(before.slab, after.slab)
            )
        }
    };
    let idle = watch(&agent)?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    text.push_str(&format!(
        "- `run`, {} s after its first scan: {:.1} MiB resident (≤ 8), {:.1} MiB of it its own, {:.3} % of a core (< 0.1); \
         its peak was {:.1} MiB.\n",
        WATCHED.as_secs(),
        mib(idle.resident_kib),
        mib(idle.anonymous_kib),
        idle.core_percent,
        mib(idle.peak_kib)
    ));
    Ok(text)
}
