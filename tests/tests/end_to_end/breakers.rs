//! Too much at once: nothing is replaced while too many are unhealthy, and never more at a time than is allowed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions};

use crate::LIMIT;

/// A drift that can be taken back.
const DRIFT: &str = "echo intruder > /usr/lib/intruder";
const UNDO: &str = "rm /usr/lib/intruder";
/// And one that has nothing in common with it but its class.
const OTHER_DRIFT: &str = "echo intruder > /usr/lib/other-intruder";

#[test]
fn a_fleet_in_which_too_many_drift_is_left_alone_and_never_loses_two_at_a_time() -> Result<()> {
    if !possible("a fleet in which too many drift") {
        return Ok(());
    }
    // The grace lets both be seen before the first may go.
    let policy =
        "mode = \"replace\"\ngrace = \"3s\"\nparallel = 2\nstop-above = \"20%\"\n".to_owned();
    let fleet = Fleet::new(&FleetOptions {
        policy,
        ..FleetOptions::default()
    })?;
    let mut vms = fleet.launch_clean(3)?;
    let id = |vm: &str| fleet.id(vm);
    let (first, second) = (id(&vms[0])?, id(&vms[1])?);

    // Two of three are more than a fifth, rounded down but at least one.
    on(&fleet, &vms[..2], DRIFT)?;
    for instance in [&first, &second] {
        until("an order that the share blocks", LIMIT, || {
            let order = fleet.wait_for_order(instance, "blocked", LIMIT)?;
            let why = order["why"].as_str().unwrap_or_default();
            let is_share = why == "unhealthy share: 2 of 3 are unhealthy, above 20%";
            Ok(is_share.then_some(()))
        })?;
    }
    pause(Duration::from_secs(3));
    let executing = |entry: &serde_json::Value| entry["kind"] == "order-executing";
    assert_eq!(
        fleet
            .ledger()?
            .iter()
            .filter(|entry| executing(entry))
            .count(),
        0
    );

    // One of three is not: as soon as the other is clean again by itself, this one goes.
    on(&fleet, &vms[..1], UNDO)?;
    let replaced = fleet.wait_for_order(&second, "verified", LIMIT)?;
    assert_eq!(
        fleet.wait_for(&vms[0], "clean", LIMIT)?["id"],
        first.as_str()
    );
    ensure!(
        fleet.wait_for_order(&first, "cancelled", LIMIT)?["executing_at_ms"].is_null(),
        "it never began"
    );
    vms[1] = replaced["replacement"]
        .as_str()
        .context("the order names its replacement")?
        .to_owned();

    // Whatever the share, one at a time.
    fleet
        .set_policy("mode = \"replace\"\ngrace = \"3s\"\nparallel = 1\nstop-above = \"100%\"\n")?;
    pause(Duration::from_secs(2));
    let (second, third) = (id(&vms[1])?, id(&vms[2])?);
    // Another drift than before: a replacement that drifts as the machine before it did stops the fleet.
    on(&fleet, &vms[1..], OTHER_DRIFT)?;
    for instance in [&second, &third] {
        fleet.wait_for_order(instance, "verified", LIMIT)?;
    }
    let mut in_flight: Vec<String> = Vec::new();
    for entry in fleet.ledger()? {
        let order = entry["subject"].as_str().unwrap_or_default().to_owned();
        match entry["kind"].as_str().unwrap_or_default() {
            "order-executing" => in_flight.push(order),
            "order-verified" => in_flight.retain(|other| *other != order),
            _ => {}
        }
        ensure!(in_flight.len() <= 1, "two in flight at once: {in_flight:?}");
    }
    ensure!(in_flight.is_empty(), "{in_flight:?}");
    assert_eq!(
        fleet.wait_for(&vms[0], "clean", LIMIT)?["id"],
        first.as_str(),
        "the one that was clean is still there"
    );
    Ok(())
}

/// Does the same on several machines, as good as at once.
fn on(fleet: &Fleet, vms: &[String], line: &str) -> Result<()> {
    vms.iter()
        .try_for_each(|vm| fleet.cloud.with(vm, |machine| machine.exec(line)).map(drop))
}
