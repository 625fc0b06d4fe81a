//! What two other processes feel of a full scan of the daemon: paced, and not.
//!
//! Both run from the first window to the last. What changes in between is who runs beside them: nobody, a daemon that
//! paces its scan, or one that does not. In most of the time these are stopped (`SIGSTOP`). Nobody and the paced one take
//! turns as A B B A, so that what the disk and the machine do of themselves meets both alike.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::agent::Agent;
use crate::ceiling::walk_and_hash;
use crate::felt::{self, Feeler, Once};
use crate::idle::Daemon;
use crate::machine;
use crate::spread::{Pair, Ratio, quantile};

/// Beside what the processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Paced,
    Unpaced,
}

/// A time in which that did not change.
#[derive(Debug)]
struct Window {
    beside: Beside,
    began: u64,
    ended: u64,
    /// What the daemon read in it.
    bytes: u64,
}

/// What a row of the table compares: the later windows of pairs of neighbours with the earlier.
struct Row {
    name: &'static str,
    pairs: Vec<(usize, usize)>,
    limit: Option<f64>,
}

const ROUND: [Beside; 4] = [
    Beside::Nothing,
    Beside::Paced,
    Beside::Paced,
    Beside::Nothing,
];
const ROUNDS: usize = 10;
/// After every third round there is a window of this, for contrast.
const CONTRAST: usize = 3;
/// A thousand of the one and some thousands of the other are done in it.
const WINDOW: Duration = Duration::from_secs(3);
/// After what is felt itself, and is not measured: dropping caches, a scan without pace.
const SETTLE: Duration = Duration::from_millis(500);
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
    if !is_cold {
        // Neither a bake nor a scan leaves in the page cache what was not there before.
        walk_and_hash(root, machine::threads())?;
    }
    let daemons = [scanning(&agent, "adaptive")?, scanning(&agent, "unpaced")?];
    // On the disk of the tree, where that is the disk of the bench too.
    let place = agent.at("felt");
    felt::prepare(&place)?;
    let feeling = [Feeler::Disk.start(&place)?, Feeler::Core.start(&place)?];
    let mut windows = Vec::new();
    for round in 0..ROUNDS {
        settle(is_cold)?;
        for beside in ROUND {
            windows.push(window(beside, &daemons)?);
        }
        if round % CONTRAST == CONTRAST - 1 {
            settle(is_cold)?;
            windows.push(window(Beside::Unpaced, &daemons)?);
        }
    }
    let [disk, core] = feeling.map(felt::Feeling::end);
    let mut text = format!(
        "| what takes its time | beside | times | p50 | p99 | p99 against alone (95 % of draws) | ≤ {MOST} × |\n|---|---|---|---|---|---|---|\n",
    );
    for (feeler, times) in [(Feeler::Disk, disk?), (Feeler::Core, core?)] {
        text.push_str(&table(feeler, &windows, &times)?);
    }
    text.push_str(&said(&windows, is_cold));
    Ok(text)
}

/// Has nothing run beside, and be cached if it is not to be.
fn settle(is_cold: bool) -> Result<()> {
    if is_cold {
        machine::drop_caches()?;
    }
    machine::let_pass(SETTLE);
    Ok(())
}

/// One window; both daemons are stopped before it and after it.
fn window(beside: Beside, [paced, unpaced]: &[Daemon; 2]) -> Result<Window> {
    let daemon = match beside {
        Beside::Nothing => None,
        Beside::Paced => Some(paced),
        Beside::Unpaced => Some(unpaced),
    };
    let bytes = || daemon.map_or(Ok(0), Daemon::bytes_read);
    let (before, began) = (bytes()?, felt::now());
    daemon.map_or(Ok(()), |daemon| daemon.signal(Signal::CONT))?;
    machine::let_pass(WINDOW);
    daemon.map_or(Ok(()), |daemon| daemon.signal(Signal::STOP))?;
    Ok(Window {
        beside,
        began,
        ended: felt::now(),
        bytes: bytes()? - before,
    })
}

/// A daemon that makes one full scan after the other, stopped in its second; all else is as it is shipped.
fn scanning(agent: &Agent, pace: &str) -> Result<Daemon> {
    let more = format!(
        "full-interval = \"1s\"\nquick-interval = \"1h\"\ndisk-interval = \"off\"\npace = {pace:?}\n"
    );
    let mut daemon = Daemon::start(agent, pace, &more)?;
    daemon.end_first_scan(agent)?;
    let began = Instant::now();
    // The next one begins within the interval and a tick.
    let before = daemon.bytes_read()?;
    while daemon.bytes_read()? == before {
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "no second scan begins"
        );
        machine::let_pass(Duration::from_millis(20));
    }
    // Its head start is over then.
    machine::let_pass(SETTLE);
    daemon.signal(Signal::STOP)?;
    Ok(daemon)
}

fn table(feeler: Feeler, windows: &[Window], times: &[Once]) -> Result<String> {
    let in_windows: Vec<Vec<u64>> = windows.iter().map(|window| within(times, window)).collect();
    let mut text = String::new();
    for row in rows(windows) {
        let pairs: Vec<Pair<'_>> = row
            .pairs
            .iter()
            .map(|&(first, second)| (&*in_windows[first], &*in_windows[second]))
            .collect();
        let own: Vec<u64> = pairs.iter().flat_map(|pair| pair.1).copied().collect();
        let milliseconds = |per_mille| {
            let time = quantile(own.clone(), per_mille).unwrap_or_default();
            time as f64 / 1e6
        };
        let ratio = Ratio::of(&pairs, 990).context("nothing was done in a window")?;
        text.push_str(&format!(
            "| {} | {} | {} | {:.3} ms | {:.3} ms | {:.3} × ({:.3}–{:.3}) | {} |\n",
            feeler.name(),
            row.name,
            own.len(),
            milliseconds(500),
            milliseconds(990),
            ratio.at,
            ratio.low,
            ratio.high,
            row.limit.map_or("—", |limit| ratio.verdict(limit)),
        ));
    }
    Ok(text)
}

/// How long each took of what was begun and ended in a window.
fn within(times: &[Once], window: &Window) -> Vec<u64> {
    times
        .iter()
        .filter(|once| once.began >= window.began && once.began + once.took <= window.ended)
        .map(|once| once.took)
        .collect()
}

fn rows(windows: &[Window]) -> [Row; 3] {
    let pairs_of = |first: Beside, second: Beside| {
        let is_pair = |nth: &usize| {
            let kinds = [windows[*nth].beside, windows[nth + 1].beside];
            kinds == [first, second] || kinds == [second, first]
        };
        let ordered = |nth: usize| match windows[nth].beside == first {
            true => (nth, nth + 1),
            false => (nth + 1, nth),
        };
        (0..windows.len() - 1)
            .filter(is_pair)
            .map(ordered)
            .collect::<Vec<_>>()
    };
    [
        Row {
            name: "nothing, against nothing: what the machine does of itself",
            pairs: pairs_of(Beside::Nothing, Beside::Nothing),
            limit: None,
        },
        Row {
            name: "a paced scan",
            pairs: pairs_of(Beside::Nothing, Beside::Paced),
            limit: Some(MOST),
        },
        Row {
            name: "an unpaced scan",
            pairs: pairs_of(Beside::Nothing, Beside::Unpaced),
            limit: None,
        },
    ]
}

fn said(windows: &[Window], is_cold: bool) -> String {
    let of = |beside: Beside| windows.iter().filter(move |window| window.beside == beside);
    let rate = |beside: Beside| {
        let bytes: u64 = of(beside).map(|window| window.bytes).sum();
        let time: u64 = of(beside).map(|window| window.ended - window.began).sum();
        bytes as f64 / f64::from(1 << 20) / (time as f64 / 1e9)
    };
    let empty = of(Beside::Paced).filter(|window| window.bytes == 0).count();
    format!(
        "\n{ROUNDS} rounds of four windows of {WINDOW:?}: alone, paced, paced, alone; after each {CONTRAST}th, one unpaced. Each ratio is of the \
         windows of neighbours, pooled; {}. A daemon is in a full scan (not its first), with the shipped settings; paced it read \
         {:.1} MiB a second (nothing in {empty} of {} windows), unpaced {:.1}.\n\n",
        match is_cold {
            true => "the caches are dropped before each round and each unpaced window",
            false => "the tree is cached",
        },
        rate(Beside::Paced),
        of(Beside::Paced).count(),
        rate(Beside::Unpaced),
    )
}
