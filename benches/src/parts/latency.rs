//! How soon a change is known in the agent, and how often who did it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::agent::Agent;
use crate::idle::Daemon;
use crate::machine;
use crate::spread::quantile;

/// Files that are changed, one after the other.
const FILES: usize = 500;
/// Between two of them: each finds a quiet agent.
const APART: Duration = Duration::from_millis(20);
/// Whoever is not told by then never is.
const NEVER: Duration = Duration::from_secs(30);

/// From `close(2)` until the daemon has said what drifted: its log is read as it is written.
pub(super) fn measure(_: &Path) -> Result<String> {
    let home = tempfile::tempdir_in("/var/tmp").context("make a directory")?;
    let root = home.path().join("root");
    for directory in 0..10 {
        fs::create_dir_all(root.join(directory.to_string())).context("make the tree")?;
    }
    for nth in 0..FILES {
        fs::write(root.join(name(nth)), vec![b'x'; 4096]).context("make the tree")?;
    }
    let agent = Agent::new(&root)?;
    agent.bake()?;
    let (log, out) = std::io::pipe().context("make a pipe")?;
    let mut daemon = Daemon::start_telling(
        &agent,
        "latency",
        "listen = \"off\"\n",
        "quick-interval = \"1h\"\n",
        out,
    )?;
    let (lines, log_lines) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(log).lines().map_while(Result::ok);
        // Nobody listens once all is measured.
        read.map(|line| lines.send(line)).find(Result::is_err)
    });
    daemon.end_first_scan(&agent)?;
    // The pass that makes up for what happened before the watch began.
    machine::let_pass(Duration::from_secs(10));
    let mut times = Vec::new();
    for nth in 0..FILES {
        let mut file = File::create(root.join(name(nth))).context("open a file")?;
        file.write_all(&[b'y'; 4096]).context("write a file")?;
        drop(file);
        let closed = Instant::now();
        until(&log_lines, &format!("/{}\"", name(nth)))?;
        times.push(closed.elapsed().as_micros() as u64);
        machine::let_pass(APART);
    }
    let at = |per_mille| quantile(times.clone(), per_mille).unwrap_or_default() as f64 / 1000.0;
    Ok(format!(
        "- `close(2)` returns → drift known in the agent, {FILES} files of 4 KiB, one each {} ms: p50 {:.2} ms (≤ 1), p99 {:.2} ms (≤ 10).\n",
        APART.as_millis(),
        at(500),
        at(990)
    ))
}

fn name(nth: usize) -> String {
    format!("{}/file-{nth}", nth % 10)
}

fn until(log: &Receiver<String>, word: &str) -> Result<()> {
    loop {
        let line = log
            .recv_timeout(NEVER)
            .context("wait for the daemon to tell")?;
        if line.contains("the watch saw drift") && line.contains(word) {
            return Ok(());
        }
    }
}
