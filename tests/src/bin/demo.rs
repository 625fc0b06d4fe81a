//! `make demo`: a real fleet, a real intrusion, a real replacement, on a timeline.
//!
//! Nothing here is scripted output: each line is an entry of the collector's ledger, a row of its operator API, a line of
//! the agent's own journal, or something that the lab's cloud did, with the milliseconds since the intrusion.

#![forbid(unsafe_code)]

mod demo {
    pub(super) mod screen;
    pub(super) mod stop;
    pub(super) mod timeline;
}

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use driftmark_tests::cloud::now;
use driftmark_tests::fleet::{Fleet, FleetOptions};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::patience::until;
use driftmark_tests::sandbox;

use demo::screen::Screen;
use demo::stop;
use demo::timeline::Timeline;

/// A fleet of three, an intrusion on one of them, and what becomes of it.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the fleet running and print its addresses.
    #[arg(long)]
    keep: bool,
}

/// A first scan takes seconds; this is for two busy cores.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(obstacle) = sandbox::obstacle() {
        bail!("the demo boots real systemd instances in namespaces of their own: {obstacle}");
    }
    stop::listen()?;
    let screen = Screen::new();
    screen.title("Driftmark: every instance stays the image it was baked from, or it is replaced");
    let outcome = show(&screen, arguments.keep);
    if stop::asked() {
        screen.step("stopped; everything is taken down, nothing is left behind");
        return Ok(());
    }
    outcome?;
    screen.step("everything is taken down, nothing is left behind");
    Ok(())
}

/// The whole show. The fleet and all that belongs to it is gone when it returns, however it does.
fn show(screen: &Screen, keep: bool) -> Result<()> {
    let started = Instant::now();
    screen.step("an image: a Debian root file system with the agent in it, baked and signed");
    let fleet = Fleet::new(&FleetOptions::default())?;
    stop::check()?;
    screen.fact(
        "image",
        &format!(
            "{} {}, last good of channel stable",
            fleet.image.name, fleet.image.version
        ),
    );
    screen.fact(
        "collector",
        &format!(
            "agents at {}, operators at {}",
            fleet.collector.agents(),
            fleet.collector.operators()
        ),
    );
    screen.step("three instances of it, each with a systemd of its own");
    let ids = fleet.launch(3)?;
    for id in &ids {
        until(&format!("{id} to be clean"), LIMIT, || {
            stop::check()?;
            let row = fleet.instance(id);
            Ok(row.is_ok_and(|row| row["state"] == "clean").then_some(()))
        })?;
    }
    for told in fleet.cloud.told() {
        screen.fact("cloud", &told.what);
    }
    print_fleet(screen, &fleet)?;
    screen.fact(
        "ready",
        &format!("after {:.1} s", started.elapsed().as_secs_f64()),
    );

    let victim = ids.last().context("three instances")?;
    screen.step(&format!("an intruder on {victim}"));
    let mut timeline = Timeline::of(&fleet, victim, now())?;
    fleet
        .cloud
        .with(victim, |machine| Intrusion::plant_all(machine))?;
    for intrusion in Intrusion::ALL {
        timeline.tell(
            "intruder",
            &format!("{}: {}", intrusion.path(), intrusion.description()),
        );
    }
    let replacement = timeline.follow(screen)?;
    screen.step("the milliseconds between");
    for (what, total, step) in timeline.milestones() {
        screen.measure(&what, total, step);
    }
    print_fleet(screen, &fleet)?;
    screen.step("the ledger");
    screen.fact("verify", fleet.collector.cli(["ledger", "verify"])?.trim());
    if keep {
        keep_running(screen, &fleet, &replacement)?;
    }
    Ok(())
}

fn print_fleet(screen: &Screen, fleet: &Fleet) -> Result<()> {
    screen.step("the fleet, by `driftmark-collector instance list`");
    for line in fleet.collector.cli(["instance", "list"])?.lines() {
        screen.text(line);
    }
    Ok(())
}

fn keep_running(screen: &Screen, fleet: &Fleet, replacement: &str) -> Result<()> {
    let reached = fleet.lab.join_from_here();
    screen.step("the fleet goes on running");
    screen.fact(
        "operators",
        &format!("https://{}", fleet.collector.operators()),
    );
    let data = fleet.collector.data();
    screen.fact(
        "",
        &format!(
            "CA {}, token {}",
            data.join("ca.pem").display(),
            data.join("operator.token").display()
        ),
    );
    match reached {
        Ok(address) => screen.fact("network", &format!("this machine is {address} on it")),
        Err(error) => screen.fact("network", &format!("not reached from here: {error:#}")),
    }
    screen.fact(
        "sandbox",
        &format!(
            "nsenter --target {} --mount --net --pid",
            fleet.lab.sandbox().anchor()
        ),
    );
    for id in fleet.cloud.ids() {
        let address = fleet
            .cloud
            .with(&id, |machine| Ok(machine.address().to_owned()))?;
        let note = if id == replacement {
            ", the replacement"
        } else {
            ""
        };
        screen.fact("instance", &format!("{id} at {address}{note}"));
    }
    screen.step("press Enter, or Ctrl-C, to take it down");
    stop::wait();
    Ok(())
}
