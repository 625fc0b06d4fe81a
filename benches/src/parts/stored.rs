//! How soon a change is kept at the collector, and how soon the probe says so.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftmark_tests::Collector;

use crate::agent::Agent;
use crate::machine;
use crate::spread::quantile;
use crate::table::{Figure, budgets};
use crate::watched::{self, Home, NEVER, Watched, instance};

/// Changes, one after the other.
const CHANGES: usize = 200;
/// Between two of them: each finds a quiet agent.
const APART: Duration = Duration::from_millis(200);
/// How often is looked whether it is there: all that is measured is so much too long at most.
const LOOK_EVERY: Duration = Duration::from_micros(200);

pub(super) fn measure(_: &Path) -> Result<String> {
    let home = Home::new()?;
    let file = home.root().join("file");
    fs::write(&file, vec![b'x'; 4096]).context("make the tree")?;
    let agent = Agent::new(&home.root())?;
    agent.bake()?;
    let collector = watched::collector(&agent)?;
    let watched = Watched::start(&agent, "")?;
    instance(&collector, |row| row["state"] == "clean")?;
    until(|| Ok(is_healthy(watched.probe())? == Some(true)))?;
    let probe = watched.probe();
    let (mut stored, mut probed) = (Vec::new(), Vec::new());
    for nth in 0..CHANGES {
        // There and back: the probe changes each time.
        let content = match nth % 2 {
            0 => b'y',
            _ => b'x',
        };
        let mut writing = File::create(&file).context("open a file")?;
        writing
            .write_all(&[content; 4096])
            .context("write a file")?;
        drop(writing);
        let closed = Instant::now();
        let is_clean = nth % 2 == 1;
        let open = u32::from(!is_clean);
        // Each is asked by a thread of its own: neither keeps the other waiting.
        let (at_collector, at_probe) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                until(|| Ok(is_healthy(probe)? == Some(is_clean)))?;
                Ok::<_, anyhow::Error>(closed.elapsed())
            });
            let at_collector = is_stored(&collector, open).map(|()| closed.elapsed());
            (at_collector, asking.join().expect("it does not panic"))
        });
        stored.push(at_collector?.as_micros() as u64);
        probed.push(at_probe?.as_micros() as u64);
        machine::let_pass(APART);
    }
    let figures = [
        figure("stored at the collector over mutual TLS", &stored),
        figure("the local probe changed", &probed),
    ];
    Ok(format!(
        "{}\n{CHANGES} changes of a file of 4 KiB, {} ms after one another: drifted, and as it was again. Agent and collector run on this \
         machine, the collector with its own database, looked into every {} µs; the probe is asked as load balancers do.\n",
        budgets(&figures),
        APART.as_millis(),
        LOOK_EVERY.as_micros(),
    ))
}

fn figure(what: &str, times: &[u64]) -> Figure {
    let at = |per_mille| quantile(times.to_vec(), per_mille).unwrap_or_default() as f64 / 1000.0;
    let (middle, last) = (at(500), at(990));
    Figure::held(
        format!("`close(2)` returns → {what}"),
        "p50 ≤ 15 ms, p99 ≤ 100 ms",
        format!("p50 {middle:.1} ms, p99 {last:.1} ms"),
        middle <= 15.0 && last <= 100.0,
    )
}

fn is_stored(collector: &Collector, open: u32) -> Result<()> {
    let database = rusqlite::Connection::open_with_flags(
        collector.data().join("collector.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .context("open the collector's database")?;
    let mut count = database.prepare("SELECT count(*) FROM drifts")?;
    until(|| Ok(count.query_row([], |row| row.get::<_, u32>(0))? == open))
}

fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < NEVER, "waited {NEVER:?}");
        machine::let_pass(LOOK_EVERY);
    }
    Ok(())
}

/// None where it does not answer.
fn is_healthy(probe: &str) -> Result<Option<bool>> {
    let Ok(mut stream) = TcpStream::connect(probe) else {
        return Ok(None);
    };
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // One that hangs up has answered nothing.
    let _ = stream.read_to_string(&mut answer);
    let code = answer.split(' ').nth(1).unwrap_or_default();
    Ok(match code {
        "200" => Some(true),
        "503" => Some(false),
        _ => None,
    })
}
