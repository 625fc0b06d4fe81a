//! What a directory costs in which anything may change, and in which something always does.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::Agent;
use crate::machine;
use crate::table::{Figure, budgets};
use crate::watched::{Home, Watched};

/// For so long.
const TIME: Duration = Duration::from_secs(30);
const WRITES_A_SECOND: u64 = 10_000;
/// They come in so many bursts a second.
const BURSTS: u64 = 100;
/// Files that are open all the time, as logs are.
const FILES: usize = 20;
const RULES: &str =
    "[[rule]]\ntype = \"volatile\"\npath = \"/log\"\nreason = \"where something always changes\"\n";

pub(super) fn measure(_: &Path) -> Result<String> {
    let home = Home::new()?;
    let log = home.root().join("log");
    fs::create_dir(&log).context("make the tree")?;
    fs::write(home.root().join("held"), "held").context("make the tree")?;
    let mut agent = Agent::new(&home.root())?;
    agent.rule(RULES)?;
    agent.bake()?;
    let watched = Watched::start(&agent, "")?;
    let id = watched.daemon().id();
    let before = machine::cpu_of(id)?;
    let began = Instant::now();
    let writes = write(&log)?;
    let time = began.elapsed();
    let used = machine::cpu_of(id)?.saturating_sub(before);
    let percent = 100.0 * used.as_secs_f64() / time.as_secs_f64();
    let rate = writes as f64 / time.as_secs_f64();
    Ok(format!(
        "{}\nFor {} s, {rate:.0} writes of 100 bytes a second to {FILES} files of a directory that a rule excludes, one in a hundred \
         after the file was opened anew.\n",
        budgets(&[Figure::held(
            "the agent beside a busy volatile tree",
            "< 1 % of a core",
            format!("{percent:.2} % of a core"),
            percent < 1.0,
        )]),
        TIME.as_secs(),
    ))
}

/// How many writes that were.
fn write(log: &Path) -> Result<u64> {
    let path = |nth: u64| log.join(format!("{}", nth % FILES as u64));
    let open = |nth| File::options().create(true).append(true).open(path(nth));
    let mut files = (0..FILES as u64)
        .map(open)
        .collect::<Result<Vec<_>, _>>()
        .context("open a log")?;
    let began = Instant::now();
    let mut writes = 0;
    while began.elapsed() < TIME {
        for _ in 0..WRITES_A_SECOND / BURSTS {
            let nth = writes % FILES as u64;
            if writes % 100 == 0 {
                files[nth as usize] = open(nth).context("open a log")?;
            }
            files[nth as usize].write_all(&[b'x'; 100]).context("log")?;
            writes += 1;
        }
        let due = Duration::from_secs_f64(writes as f64 / WRITES_A_SECOND as f64);
        machine::let_pass(due.saturating_sub(began.elapsed()));
    }
    Ok(writes)
}
