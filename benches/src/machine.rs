//! The machine that is measured: its name, its load, its caches.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks of `/proc/PID/stat` a second, on every architecture that Linux has.
const TICKS: u64 = 100;

/// How many threads there is a core for.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Processor, kernel and memory in one line.
pub fn description() -> String {
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim_end())
        .unwrap_or("a processor without a name");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} cores, {model}, {:.0} GiB, Linux {}",
        threads(),
        memory("MemTotal:") as f64 / f64::from(1 << 20),
        kernel.split('-').next().unwrap_or_default()
    )
}

/// What else runs: the mean number of runnable tasks in the last minute.
pub fn load() -> String {
    let load = read("/proc/loadavg");
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Everything that the kernel caches of files, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Caches {
    /// Content of files.
    pub pages: u64,
    /// The disk's own blocks: what directories and inodes are read from.
    pub blocks: u64,
    /// Names, inodes and the like.
    pub slab: u64,
}

/// What is cached now.
pub fn caches() -> Caches {
    Caches {
        pages: memory("Cached:"),
        blocks: memory("Buffers:"),
        slab: memory("SReclaimable:"),
    }
}

/// Writes back and forgets all that is cached. Root's.
///
/// # Errors
/// It is not allowed.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the caches (this needs root)")
}

/// What this process and the children that it waited for took of all cores, in user and in system mode.
///
/// # Errors
/// `/proc` is not there.
pub fn cpu_with_children() -> Result<Duration> {
    ticks("self", 4)
}

/// What a process took of all cores.
///
/// # Errors
/// It is gone.
pub fn cpu_of(id: u32) -> Result<Duration> {
    ticks(&id.to_string(), 2)
}

/// A number of `/proc/PID/status`: of a line that begins like this.
///
/// # Errors
/// It is gone.
pub fn field_of(id: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("find {name}"))
}

/// The sum of the first so many of `utime`, `stime`, `cutime` and `cstime`: fields 14 to 17, counted after the name, which
/// may have spaces.
fn ticks(process: &str, fields: usize) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let after = stat.rsplit_once(") ").context("a process has a name")?.1;
    let ticks = after
        .split(' ')
        .skip(11)
        .take(fields)
        .map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().context("read ticks")?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Lets so much time pass.
#[allow(
    clippy::disallowed_methods,
    reason = "idleness is measured over time, and a process under measurement does not say how far it is"
)]
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

fn memory(field: &str) -> u64 {
    let table = read("/proc/meminfo");
    let line = table.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
