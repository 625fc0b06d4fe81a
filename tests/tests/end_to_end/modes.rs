//! How far a fleet lets the collector go: it only says what would happen, it waits for an approver, it has nothing to
//! replace with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::patience::{pause, until};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions};
use serde_json::Value;

use crate::{LIMIT, OBSERVE};

/// Long enough for whatever must not happen: several rounds of the judge and several heartbeats.
const NOTHING_HAPPENS: Duration = Duration::from_secs(3);
const HEALTHY: &str = r#"{"ApplicationHealthState":"Healthy"}"#;
const UNHEALTHY: &str = r#"{"ApplicationHealthState":"Unhealthy"}"#;

#[test]
fn only_an_executing_order_makes_an_instance_unhealthy_and_the_named_machine_replaces_it()
-> Result<()> {
    if !possible("replacing by an autoscaler") {
        return Ok(());
    }
    let options = FleetOptions {
        policy: OBSERVE.to_owned(),
        replacer: Some("\"probe\"".to_owned()),
        ..FleetOptions::default()
    };
    let fleet = Fleet::new(&options)?;
    let ids = fleet.launch_clean(2)?;
    let victim = &ids[0];
    let old = fleet.id(victim)?;
    let probe = |path: &str| fleet.cloud.with(victim, |machine| machine.probe(path));
    ensure!(
        probe("/health")?.1.contains("verified against its image"),
        "{:?}",
        probe("/health")?
    );

    // Observed: marked, with what would become of it, and nothing else.
    fleet
        .cloud
        .with(victim, |machine| Intrusion::plant_all(machine))?;
    fleet.wait_for(victim, "drifted", LIMIT)?;
    let marked = until("the mark", LIMIT, || entry(&fleet, &old, "instance-marked"))?;
    let reason = marked["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("observed only, it would be replaced with web 1"),
        "{reason}"
    );
    pause(NOTHING_HAPPENS);
    assert_eq!(fleet.orders()?, Vec::<Value>::new());
    is_healthy_for_now(&probe)?;

    // Approved: the order waits for a person.
    fleet.set_policy("mode = \"approve\"\ngrace = \"0s\"\nstop-above = \"50%\"\n")?;
    let order = until("an order that waits for approval", LIMIT, || {
        Ok(fleet
            .orders()?
            .into_iter()
            .find(|order| order["why"] == "waits for approval"))
    })?;
    pause(NOTHING_HAPPENS);
    let order_id = order["id"].as_str().context("an order has an id")?;
    let waiting = &fleet.orders()?[0];
    ensure!(
        waiting["approval"].is_null() && waiting["executing_at_ms"].is_null(),
        "{waiting}"
    );
    is_healthy_for_now(&probe)?;
    fleet
        .collector
        .cli(["order", "approve", order_id, "--reason", "seen by a person"])?;
    fleet.wait_for_order(&old, "executing", LIMIT)?;
    until("an unhealthy probe", LIMIT, || {
        Ok((probe("/health")?.0 == 503).then_some(()))
    })?;
    ensure!(
        probe("/health")?.1.contains(order_id),
        "{:?}",
        probe("/health")?
    );
    assert_eq!(probe("/health/rich")?, (200, UNHEALTHY.to_owned()));
    let other = fleet
        .cloud
        .with(&ids[1], |machine| machine.probe("/health"))?;
    assert_eq!(other.0, 200, "the other one is healthy: {other:?}");

    // The autoscaler does what it does, and someone says which machine it was.
    fleet.cloud.terminate(victim)?;
    let replacement = fleet.cloud.launch()?;
    fleet.wait_for(&replacement, "clean", LIMIT)?;
    assert_eq!(
        fleet.orders()?[0]["state"],
        "executing",
        "nobody guesses who replaced it"
    );
    fleet
        .collector
        .cli(["order", "replacement", order_id, &replacement])?;
    let order = fleet.wait_for_order(&old, "verified", LIMIT)?;
    assert_eq!(order["replacement"], replacement.as_str());
    assert_eq!(order["approval"], "operator:first");
    assert_eq!(fleet.wait_for(&ids[1], "clean", LIMIT)?["open"], 0);
    Ok(())
}

/// A drifted instance that no order executes on is healthy to autoscalers, and its probe says why it is not well.
fn is_healthy_for_now(probe: &impl Fn(&str) -> Result<(u16, String)>) -> Result<()> {
    let (status, body) = probe("/health")?;
    ensure!(
        status == 200 && body.contains("drifted from its image; the collector decides"),
        "{status} {body}"
    );
    assert_eq!(probe("/health/rich")?, (200, HEALTHY.to_owned()));
    Ok(())
}

#[test]
fn a_fleet_without_a_last_good_image_is_not_touched() -> Result<()> {
    if !possible("a fleet without an image") {
        return Ok(());
    }
    let fleet = Fleet::new(&FleetOptions::default())?;
    let victim = fleet.launch_clean(1)?.remove(0);
    let old = fleet.id(&victim)?;
    fleet
        .collector
        .cli(["image", "revoke", "web", "1", "--reason", "it has a hole"])?;
    fleet
        .cloud
        .with(&victim, |machine| Intrusion::plant_all(machine))?;
    let blocked = stays_blocked(&fleet, &old)?;
    println!("blocked by a revoked image: {}", blocked["why"]);
    assert_eq!(fleet.cloud.ids(), std::slice::from_ref(&victim));

    // Given back, the channel gives it out again, and the order goes the usual way.
    let because = "it was another image";
    fleet
        .collector
        .cli(["image", "restore", "web", "1", "--reason", because])?;
    let order = fleet.wait_for_order(&old, "verified", LIMIT)?;
    let vm = order["replacement"]
        .as_str()
        .context("the order names its replacement")?
        .to_owned();

    // And what a revoked key signed is worth nothing, whatever channel gives it out.
    let new = fleet.id(&vm)?;
    let key = fleet.collector.json(["key", "list"])?[0]["id"]
        .as_str()
        .context("a key has an id")?
        .to_owned();
    fleet
        .collector
        .cli(["key", "revoke", &key, "--reason", "it was stolen"])?;
    fleet
        .cloud
        .with(&vm, |machine| Intrusion::plant_all(machine))?;
    let blocked = stays_blocked(&fleet, &new)?;
    println!("blocked by a revoked key: {}", blocked["why"]);
    assert_eq!(fleet.cloud.ids(), [vm]);
    Ok(())
}

/// The order for an instance is blocked for want of an image, and nothing happens.
fn stays_blocked(fleet: &Fleet, instance: &str) -> Result<Value> {
    fleet.wait_for_order(instance, "blocked", LIMIT)?;
    pause(NOTHING_HAPPENS);
    let order = fleet.wait_for_order(instance, "blocked", Duration::ZERO)?;
    let why = order["why"].as_str().unwrap_or_default();
    ensure!(why.starts_with("no last good image: "), "{why}");
    let about = fleet.ledger_about(order["id"].as_str().context("an order has an id")?)?;
    ensure!(
        !about.iter().any(|kind| kind == "order-executing"),
        "{about:?}"
    );
    Ok(order)
}

/// The ledger's first entry of this kind about a subject.
fn entry(fleet: &Fleet, subject: &str, kind: &str) -> Result<Option<Value>> {
    Ok(fleet
        .ledger()?
        .into_iter()
        .find(|entry| entry["subject"] == subject && entry["kind"] == kind))
}
