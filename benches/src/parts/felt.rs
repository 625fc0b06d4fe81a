//! What two other processes feel of a full scan of the daemon: paced, and not.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::felt::{Feeler, Times};
use crate::idle::Daemon;
use crate::machine;

/// Beside what the processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Paced,
    Unpaced,
}

const ALL: [Beside; 3] = [Beside::Nothing, Beside::Paced, Beside::Unpaced];

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Beside::Nothing => "alone",
            Beside::Paced => "paced",
            Beside::Unpaced => "unpaced",
        }
    }
}

/// In turns.
const ROUNDS: usize = 3;
/// As long as is measured each time: some hundreds of `fsync`s, some thousands of units.
const SECONDS: u64 = 8;
/// A paced scan may lose so much at the 99th percentile.
const MOST: f64 = 1.05;

/// With everything in the page cache.
pub(super) fn warm(root: &Path) -> Result<String> {
    measure(root, false)
}

/// With nothing there: what is shared then is the disk.
pub(super) fn cold(root: &Path) -> Result<String> {
    match machine::drop_caches() {
        Ok(()) => measure(root, true),
        Err(error) => Ok(format!("Not measured: {error:#}.\n")),
    }
}

fn measure(root: &Path, is_cold: bool) -> Result<String> {
    let agent = Agent::new(root)?;
    agent.bake()?;
    one(&agent, is_cold)
}

fn one(agent: &Agent, is_cold: bool) -> Result<String> {
    let title = if is_cold {
        "nothing cached"
    } else {
        "all cached"
    };
    let mut times: Vec<[Times; 2]> = vec![Default::default(); ALL.len()];
    let mut scanned = [0.0; ALL.len()];
    for round in 0..ROUNDS {
        // Each is once the first of a round.
        for nth in (0..ALL.len()).map(|nth| (nth + round) % ALL.len()) {
            let beside = ALL[nth];
            let (felt, bytes) = feel(agent, beside, is_cold)?;
            for (sum, one) in times[nth].iter_mut().zip(&felt) {
                sum.add(one);
            }
            scanned[nth] += bytes as f64 / f64::from(1 << 20) / (SECONDS * ROUNDS as u64) as f64;
            let [disk, core] = felt.each_ref().map(|times| times.per_mille(990));
            eprintln!("  {title}, {}: {disk:?} {core:?}", beside.name());
        }
    }
    let mut text = format!(
        "| {title}: what takes its time | | p50 | p99 | p99 against alone (paced ≤ {MOST}) | times |\n|---|---|---|---|---|---|\n"
    );
    for (which, feeler) in Feeler::ALL.into_iter().enumerate() {
        let alone = times[0][which].per_mille(990).as_secs_f64();
        for (nth, beside) in ALL.into_iter().enumerate() {
            let times = &times[nth][which];
            let ratio = times.per_mille(990).as_secs_f64() / alone;
            let missed = match beside {
                Beside::Paced if ratio > MOST => ": missed",
                _ => "",
            };
            text.push_str(&format!(
                "| {} | {} | {:.3} ms | {:.3} ms | {ratio:.3} ×{missed} | {} |\n",
                feeler.name(),
                beside.name(),
                times.per_mille(500).as_secs_f64() * 1000.0,
                times.per_mille(990).as_secs_f64() * 1000.0,
                times.count()
            ));
        }
    }
    text.push_str(&format!(
        "\n{ROUNDS} rounds of {SECONDS} s each, in turns, of both processes side by side while the daemon is in a full scan (not its first); it read {:.1} MiB a second \
         paced and {:.1} unpaced{}.\n\n",
        scanned[1],
        scanned[2],
        match is_cold {
            true => ", of a tree that was dropped from the caches before each",
            false => "",
        }
    ));
    Ok(text)
}

/// One turn; and the bytes that the daemon read meanwhile.
fn feel(agent: &Agent, beside: Beside, is_cold: bool) -> Result<([Times; 2], u64)> {
    // On the disk of the tree, where that is the disk of the bench too.
    let place = agent.at("felt");
    std::fs::create_dir_all(&place)?;
    // The files are there before anything is measured.
    Feeler::Disk.start(&place, 0)?.end()?;
    let daemon = match beside {
        Beside::Nothing => None,
        Beside::Paced => Some(scanning(agent, "adaptive")?),
        Beside::Unpaced => Some(scanning(agent, "unpaced")?),
    };
    if is_cold {
        machine::drop_caches()?;
    }
    let read = |daemon: &Option<Daemon>| daemon.as_ref().map_or(Ok(0), Daemon::bytes_read);
    let before = read(&daemon)?;
    let feeling = [
        Feeler::Disk.start(&place, SECONDS)?,
        Feeler::Core.start(&place, SECONDS)?,
    ];
    // What was read once is cached or not as the scan leaves it.
    let [disk, core] = feeling.map(crate::felt::Feeling::end);
    let bytes = read(&daemon)? - before;
    Ok(([disk?, core?], bytes))
}

/// A daemon that makes one full scan after the other, its first one done.
fn scanning(agent: &Agent, pace: &str) -> Result<Daemon> {
    // The budget in bytes would do a part of what is to be shown.
    let more = format!(
        "full-interval = \"1s\"\nquick-interval = \"1h\"\ndisk-interval = \"off\"\nfinish-within = \"1h\"\n\
         max-bytes-per-second = 1_073_741_824\npace = {pace:?}\n"
    );
    let mut daemon = Daemon::start(agent, &more)?;
    daemon.end_first_scan(agent)?;
    let began = Instant::now();
    // The next one begins within the interval and a tick.
    let before = daemon.bytes_read()?;
    while daemon.bytes_read()? == before {
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "no second scan begins"
        );
        machine::let_pass(Duration::from_millis(50));
    }
    Ok(daemon)
}
