//! `make demo`: a real fleet, a real intrusion, a real replacement, on a timeline.
//!
//! Nothing here is scripted output: each line is an entry of the collector's ledger, a row of its operator API, the
//! agent's own status, or something that the lab's cloud did, with the milliseconds since the intrusion.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use driftmark_tests::cloud::now;
use driftmark_tests::fleet::{Fleet, FleetOptions};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::sandbox;
use serde_json::Value;

/// A fleet of three, an intrusion on one of them, and what becomes of it.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the fleet running and print its addresses.
    #[arg(long)]
    keep: bool,
}

/// From the intrusion to the verified replacement; two busy cores need a tenth of it.
const LIMIT: Duration = Duration::from_secs(180);
/// How often the running system is asked what is new.
const LOOK: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(obstacle) = sandbox::obstacle() {
        bail!("the demo boots real systemd instances in namespaces of their own: {obstacle}");
    }
    let screen = Screen::new();
    screen.title("Driftmark: every instance stays the image it was baked from, or it is replaced");
    let started = Instant::now();
    screen.step("building the image: a Debian root file system with the agent in it, baked and signed");
    let fleet = Fleet::new(&FleetOptions::default())?;
    screen.fact(&format!("image       {} {} is last good of channel stable", fleet.image.name, fleet.image.version));
    screen.fact(&format!("collector   agents {}, operators {}", fleet.collector.agents(), fleet.collector.operators()));
    screen.step("booting three instances of it, each with a systemd of its own");
    let ids = fleet.launch_clean(3)?;
    for told in fleet.cloud.told() {
        screen.fact(&told.what);
    }
    print_fleet(&screen, &fleet)?;
    screen.fact(&format!("ready after {:.1} s", started.elapsed().as_secs_f64()));

    let victim = ids.last().context("three instances")?;
    let replacement = play(&screen, &fleet, victim)?;

    print_fleet(&screen, &fleet)?;
    screen.step("the ledger");
    screen.fact(fleet.collector.cli(["ledger", "verify"])?.trim());
    if arguments.keep {
        keep(&screen, &fleet, &replacement)?;
    }
    drop(fleet);
    screen.step("everything is taken down; nothing is left behind");
    Ok(())
}

/// Plants the intrusion and follows it until its replacement is verified; gives the replacement's cloud id.
fn play(screen: &Screen, fleet: &Fleet, victim: &str) -> Result<String> {
    screen.step(&format!("an intruder on {victim}"));
    let mut seen: BTreeSet<u64> = ledger(fleet, 0)?.iter().filter_map(|entry| entry["sequence"].as_u64()).collect();
    let told_before = fleet.cloud.told().len();
    let before = now();
    fleet.cloud.with(victim, |machine| {
        for intrusion in Intrusion::ALL {
            intrusion.plant(machine)?;
            screen.at(now() - before, "intruder", &format!("{}: {}", intrusion.path(), intrusion.description()));
        }
        Ok(())
    })?;
    let began = Instant::now();
    let mut told = told_before;
    let mut reported = BTreeSet::new();
    while began.elapsed() < LIMIT {
        let mut lines: Vec<(i64, String, String)> = Vec::new();
        if let Ok(row) = fleet.instance(victim) {
            for (at, path) in open_drifts(fleet, &row)? {
                if reported.insert(path.clone()) {
                    lines.push((at, "reported".to_owned(), path));
                }
            }
        }
        for entry in ledger(fleet, seen.last().copied().unwrap_or_default())? {
            let Some(sequence) = entry["sequence"].as_u64() else { continue };
            if seen.insert(sequence) {
                let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                lines.push((entry["at_ms"].as_i64().unwrap_or_default(), text("kind"), text("reason")));
            }
        }
        let all = fleet.cloud.told();
        lines.extend(all[told..].iter().map(|told| (told.at, "cloud".to_owned(), told.what.clone())));
        told = all.len();
        lines.sort();
        for (at, who, what) in &lines {
            screen.at(at - before, who, what);
        }
        if let Some(order) = finished(fleet)? {
            let replacement = order["replacement"].as_str().context("an order that names its replacement")?;
            return Ok(replacement.to_owned());
        }
        // Asking is cheap, and the timeline is read by people: there is nothing else to wait on.
        std::thread::park_timeout(LOOK);
    }
    bail!("not verified within {LIMIT:?}; the collector said:\n{}", fleet.collector.output())
}

/// The order that was verified, once one is.
fn finished(fleet: &Fleet) -> Result<Option<Value>> {
    let listed = fleet.collector.json(["order", "list"])?;
    let orders = listed.get("orders").unwrap_or(&listed).as_array().context("a list of orders")?.clone();
    if let Some(failed) = orders.iter().find(|order| order["state"] == "failed") {
        bail!("the order failed: {failed}");
    }
    Ok(orders.into_iter().find(|order| order["state"] == "verified"))
}

fn ledger(fleet: &Fleet, after: u64) -> Result<Vec<Value>> {
    let listed = fleet.collector.json(["ledger", "list", "--after", &after.to_string()])?;
    Ok(listed.get("entries").unwrap_or(&listed).as_array().context("a list of entries")?.clone())
}

fn open_drifts(fleet: &Fleet, row: &Value) -> Result<Vec<(i64, String)>> {
    let Some(id) = row["id"].as_str() else { return Ok(Vec::new()) };
    let shown = fleet.collector.json(["instance", "show", id])?;
    let drifts = shown["drifts"].as_array().cloned().unwrap_or_default();
    Ok(drifts
        .iter()
        .filter_map(|drift| {
            let text = |key: &str| drift[key].as_str().unwrap_or_default();
            let line = format!("{} {} ({}, {})", text("kind"), text("path"), text("class"), text("severity"));
            Some((drift["opened_ms"].as_i64()?, line))
        })
        .collect())
}

fn print_fleet(screen: &Screen, fleet: &Fleet) -> Result<()> {
    screen.step("the fleet");
    for line in fleet.collector.cli(["instance", "list"])?.lines() {
        screen.fact(line);
    }
    Ok(())
}

fn keep(screen: &Screen, fleet: &Fleet, replacement: &str) -> Result<()> {
    let from_here = fleet.lab.join_from_here();
    screen.step("kept running: press Enter to take it down");
    screen.fact(&format!("operators   https://{}  (CA and token in {})", fleet.collector.operators(), fleet.collector.data().display()));
    if let Ok(address) = from_here {
        screen.fact(&format!("network     this machine is {address} on it"));
    }
    screen.fact(&format!("sandbox     nsenter --target {} --mount --net --pid", fleet.lab.sandbox().anchor()));
    for id in fleet.cloud.ids() {
        let address = fleet.cloud.with(&id, |machine| Ok(machine.address().to_owned()))?;
        let note = if id == replacement { "  (the replacement)" } else { "" };
        screen.fact(&format!("instance    {id} at {address}{note}"));
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("wait for Enter")?;
    Ok(())
}

/// Where lines go; colours only on a terminal.
struct Screen {
    coloured: bool,
}

impl Screen {
    fn new() -> Self {
        Screen { coloured: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn title(&self, text: &str) {
        self.line(&self.paint("1", text));
    }

    fn step(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1;36", &format!("▶ {text}"))));
    }

    fn fact(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    fn at(&self, milliseconds: i64, who: &str, what: &str) {
        let time = self.paint("33", &format!("{milliseconds:>+7} ms"));
        self.line(&format!("  {time}  {who:<18} {what}"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever reads this may leave: the demo still takes everything down.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
