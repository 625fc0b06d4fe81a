//! Things to run in; the medians of their runs in turn out.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::machine;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// How long it took, whole process.
    pub wall: Duration,
    /// What it took of all cores together, where it was measured: says more than `wall` on a machine that is not alone.
    pub cpu: Option<Duration>,
    /// Paths looked at.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// VmHWM of the process, in KiB; none for what ran in this one.
    pub peak_kib: Option<u64>,
}

/// Something that is run again and again.
pub struct Racer<'a> {
    /// What it is called.
    pub what: String,
    /// Does it once.
    pub once: Box<dyn FnMut() -> Result<Run> + 'a>,
}

impl<'a> Racer<'a> {
    /// Names it.
    pub fn new(what: impl Into<String>, once: impl FnMut() -> Result<Run> + 'a) -> Self {
        Racer {
            what: what.into(),
            once: Box::new(once),
        }
    }
}

/// Runs all of them in turn, `times` over, which is odd; gives each one's median by time, its peak being the highest of all.
///
/// # Errors
/// The first that does not work.
pub fn race(
    times: usize,
    before_each: &dyn Fn() -> Result<()>,
    racers: &mut [Racer<'_>],
) -> Result<Vec<Run>> {
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); racers.len()];
    for _ in 0..times {
        for (racer, runs) in racers.iter_mut().zip(&mut runs) {
            before_each()?;
            let cpu = machine::cpu_with_children()?;
            let run = (racer.once)().with_context(|| racer.what.clone())?;
            let cpu = Some(machine::cpu_with_children()?.saturating_sub(cpu));
            let run = Run { cpu, ..run };
            eprintln!("  {}: {:.3} s", racer.what, run.wall.as_secs_f64());
            runs.push(run);
        }
    }
    Ok(runs.into_iter().map(median).collect())
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by_key(|run| run.wall);
    let peak_kib = runs.iter().filter_map(|run| run.peak_kib).max();
    Run {
        peak_kib,
        ..runs[runs.len() / 2]
    }
}
