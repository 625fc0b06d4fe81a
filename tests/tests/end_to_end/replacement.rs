//! A clean fleet, an intruder on one instance: that one is replaced, and everything else is as it was.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Program, Tree};

/// Machines boot in seconds; this is for two busy cores.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_drifted_instance_is_replaced_by_exactly_one_clean_one_and_the_others_are_left_alone()
-> Result<()> {
    if !possible("replacing an instance") {
        return Ok(());
    }
    // The grace lets the agent see all of the intrusion before the machine is gone.
    let policy =
        "mode = \"replace\"\ngrace = \"2s\"\nparallel = 1\nstop-above = \"50%\"\n".to_owned();
    let fleet = Fleet::new(&FleetOptions {
        policy,
        ..FleetOptions::default()
    })?;
    let ids = fleet.launch_clean(3)?;
    let victim = &ids[1];
    let before = ids
        .iter()
        .map(|id| fleet.instance(id))
        .collect::<Result<Vec<_>>>()?;
    for row in &before {
        ensure!(
            row["proven"] == true && row["open"] == 0,
            "a clean fleet: {row}"
        );
    }
    let old = before[1]["id"].as_str().context("an instance has an id")?;
    let identity = fleet.lab.directory().join("stolen");
    fleet.cloud.with(victim, |machine| {
        copy(&machine.root().join("var/lib/driftmark"), &identity)
    })?;

    fleet
        .cloud
        .with(victim, |machine| Intrusion::plant_all(machine))?;
    fleet.wait_for(victim, "drifted", LIMIT)?;
    let order = fleet.wait_for_order(old, "verified", LIMIT)?;

    let open = fleet.open_paths(old)?;
    for intrusion in Intrusion::ALL {
        ensure!(
            open.iter().any(|path| path == intrusion.path()),
            "{} is not among {open:?}",
            intrusion.path()
        );
    }
    let about = fleet.ledger_about(order["id"].as_str().context("an order has an id")?)?;
    let way: Vec<_> = about
        .iter()
        .filter_map(|kind| kind.strip_prefix("order-"))
        .collect();
    assert_eq!(
        way,
        [
            "planned",
            "in-grace",
            "approved",
            "executing",
            "replaced",
            "verified"
        ]
    );
    ensure!(
        fleet
            .ledger_about(old)?
            .iter()
            .any(|kind| kind == "instance-marked"),
        "the instance was marked"
    );

    let named = order["replacement"]
        .as_str()
        .context("the order names its replacement")?;
    let replacement = fleet.instance(named)?;
    ensure!(!ids.iter().any(|id| id == named), "{named} is new");
    ensure!(
        replacement["state"] == "clean" && replacement["proven"] == true,
        "{replacement}"
    );
    assert_eq!(replacement["image"], before[1]["image"]);
    let after = fleet.instances()?;
    assert_eq!(after.len(), 4, "one more than there were: {after:#?}");
    assert_eq!(fleet.orders()?.len(), 1, "one order, and no other");
    assert_eq!(fleet.instance(victim)?["state"], "replaced");
    for (id, row) in [(&ids[0], &before[0]), (&ids[2], &before[2])] {
        let now = fleet.wait_for(id, "clean", LIMIT)?;
        assert_eq!(
            (&now["id"], &now["clean_since_ms"]),
            (&row["id"], &row["clean_since_ms"]),
            "{id} was not touched"
        );
    }

    let verified: serde_json::Value = fleet.collector.json(["ledger", "verify"])?;
    ensure!(verified["holds"] == true, "{verified}");
    what_was_replaced_is_refused_from_now_on(&fleet, old, &identity)
}

/// Whoever kept a copy of the machine's identity speaks for nobody.
fn what_was_replaced_is_refused_from_now_on(
    fleet: &Fleet,
    old: &str,
    identity: &Path,
) -> Result<()> {
    let mut thief = Tree::new("stolen", "1")?;
    copy(identity, &thief.state())?;
    let heard = fleet.show(old)?["heard_at_ms"].clone();
    thief.start_by(fleet.lab.command(Program::Agent.path()?), "")?;
    let status = thief.wait_for("the collector refuses it", LIMIT, |status| {
        status["collector_trouble"].is_string()
    })?;
    let trouble = status["collector_trouble"].as_str().unwrap_or_default();
    ensure!(
        trouble.contains("403") && trouble.contains("`replaced`"),
        "{trouble}"
    );
    let shown = fleet.show(old)?;
    ensure!(
        shown["heard_at_ms"] == heard && shown["state"] == "replaced",
        "nothing of it was taken in: {shown:#}"
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .arg("--archive")
        .arg("--no-target-directory")
        .args([from, to]))
    .map(drop)
}
