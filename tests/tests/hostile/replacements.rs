//! Forged clean replacements: an order is verified by the one machine that its replacer named, with proof, on the
//! order's image, clean, and by nobody else, however clean they say they are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use driftmark_tests::patience::pause;
use serde_json::{Value, json};

use crate::machine::{Machine, intrusion};
use crate::world::{FLEET, World};

/// The judge looks at least every second.
const ROUNDS: Duration = Duration::from_millis(1500);

/// A world whose replacer names whatever is written in a file of it.
fn stage(home: &Path, names: &str) -> Result<World> {
    let script = home.join("replace");
    let text = format!(
        "#!/bin/sh\ncat >> {0}/orders\ncat {0}/answer\n",
        home.display()
    );
    fs::write(&script, text).context("write the replacer")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("make it a program")?;
    fs::write(home.join("answer"), names).context("write its answer")?;
    let fleet = |name: &str| {
        format!(
            "[[fleet]]\nname = \"{name}\"\nchannel = \"stable\"\nmode = \"replace\"\ngrace = \"0s\"\nparallel = 1\n\
             stop-above = \"100%\"\nverify-within = \"1h\"\nreplacer = {{ command = [{script:?}], timeout = \"10s\" }}\n"
        )
    };
    World::with(
        &format!("{}{}", fleet(FLEET), fleet("db")),
        "heartbeat = \"60s\"",
    )
}

fn order_in(world: &World, state: &str) -> Result<Value> {
    world.wait(&format!("an order that is {state}"), || {
        let orders: Vec<Value> = world
            .ask("GET", "/v1/orders?all=true", &Value::Null)?
            .granted()?;
        Ok(orders.into_iter().find(|order| order["state"] == state))
    })
}

#[test]
fn an_order_is_verified_by_the_named_machine_and_nobody_else() -> Result<()> {
    let home = tempfile::tempdir()?;
    let world = stage(home.path(), "{\"replacement\":\"vm-new\"}\n")?;
    let older = world.image.clone();
    // A machine that was there before and calls itself what the replacement will be called.
    let secret = world.secret(FLEET, None, 20)?;
    let mut early = Machine::enrol(&world, &secret, Some("vm-new"), Some(older.clone()))?;
    early.report_clean()?;
    let mut bystander = world.clean("vm-bystander")?;
    let mut victim = world.clean("vm-old")?;
    world.bake("2", "the second")?;
    let newer = world.register("2", Some("stable"))?;
    victim.report_drift(&[intrusion(1)])?;
    let order = order_in(&world, "replaced")?;
    assert_eq!(
        (&order["instance"], &order["replacement"]),
        (&json!(victim.id), &json!("vm-new"))
    );
    assert_eq!(order["image"]["version"], "2");
    let id = order["id"].as_str().context("an id")?.to_owned();
    let state = || -> Result<(String, String)> {
        let order: Value = world
            .ask("GET", &format!("/v1/orders/{id}"), &Value::Null)?
            .granted()?;
        let text = |key: &str| order[key].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("why")))
    };
    // The victim is out: it cannot report itself clean again.
    let report = victim.next(&[]);
    victim.send(&report)?.is_refused(403, "replaced");
    Machine::renew_over(&victim.wire, &victim.key, None)?.is_refused(403, "replaced");
    let unverified = |what: &str| -> Result<()> {
        pause(ROUNDS);
        let (state, why) = state()?;
        println!("{what}: {state}, {why}");
        assert_eq!(state, "replaced", "verified by {what}");
        Ok(())
    };
    early.report_clean()?;
    bystander.report_clean()?;
    unverified("those who were there before")?;
    let mut claimed = Machine::enrol(&world, &secret, Some("vm-new"), Some(newer.clone()))?;
    claimed.report_clean()?;
    unverified("one that only claims to be it")?;
    let mut elsewhere = world.enrol_in("db", Some("vm-elsewhere"), Some(newer.clone()))?;
    elsewhere.report_clean()?;
    unverified("one of another fleet")?;
    let mut another = world.enrol_in(FLEET, Some("vm-another"), Some(newer.clone()))?;
    another.report_clean()?;
    unverified("one with proof of another id")?;
    let mut named = world.enrol_in(FLEET, Some("vm-new"), Some(older))?;
    named.report_clean()?;
    unverified("the named one on an older image")?;
    // On the right image by its word, with the wrong manifest.
    world.collector.cli([
        "instance",
        "retire",
        &named.id,
        "--reason",
        "the wrong image",
    ])?;
    let mut named = world.enrol_in(FLEET, Some("vm-new"), Some(newer.clone()))?;
    named.image.as_mut().context("an image")?.manifest = world.image.manifest;
    named.report_clean()?;
    unverified("the named one with another manifest")?;
    named.image = Some(newer);
    named.report_drift(&[intrusion(2)])?;
    unverified("the named one, drifted")?;
    named.report_clean()?;
    order_in(&world, "verified")?;
    let entry = world
        .recorded(0, "order-verified")?
        .pop()
        .context("it is in the ledger")?;
    assert_eq!(entry["subject"], id);
    assert!(
        entry["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains(&named.id)),
        "{entry:#}"
    );
    Ok(())
}

#[test]
fn a_replacer_that_names_nonsense_fails_its_order() -> Result<()> {
    let home = tempfile::tempdir()?;
    let world = stage(home.path(), "")?;
    let answers = [
        ("nothing", String::new()),
        (
            "the victim itself",
            json!({"replacement": "vm-0"}).to_string(),
        ),
        (
            "a name that draws",
            json!({"replacement": "vm\u{1b}[2J"}).to_string(),
        ),
        (
            "a name without end",
            json!({"replacement": "v".repeat(100_000)}).to_string(),
        ),
        ("an empty name", json!({"replacement": ""}).to_string()),
        ("a list", json!({"replacement": ["vm-new"]}).to_string()),
    ];
    world.clean("vm-bystander")?;
    let mut victim = world.clean("vm-0")?;
    victim.report_clean()?;
    for (what, answer) in answers {
        println!("{what}");
        fs::write(home.path().join("answer"), answer)?;
        victim.report_drift(&[intrusion(1)])?;
        let failed = order_in(&world, "failed")?;
        assert_eq!(failed["replacement"], Value::Null);
        assert_eq!(
            world.instance(&victim.id)?["state"],
            "drifted",
            "not replaced by {what}"
        );
        let id = failed["id"].as_str().context("an id")?;
        let cancel = json!({"reason": "try again", "again": true});
        victim.report_clean()?;
        assert_eq!(
            world
                .ask("POST", &format!("/v1/orders/{id}/cancel"), &cancel)?
                .status,
            200
        );
    }
    let shown = world.collector.cli(["order", "list", "--all"])?;
    assert!(
        !shown
            .chars()
            .any(|letter| letter.is_control() && letter != '\n'),
        "{shown:?}"
    );
    Ok(())
}

#[test]
fn a_machine_that_was_named_once_replaces_nobody_else() -> Result<()> {
    let home = tempfile::tempdir()?;
    let world = stage(home.path(), "{\"replacement\":\"vm-new\"}\n")?;
    world.clean("vm-bystander")?;
    let mut first = world.clean("vm-1")?;
    let mut second = world.clean("vm-2")?;
    first.report_drift(&[intrusion(1)])?;
    order_in(&world, "replaced")?;
    world.clean("vm-new")?;
    order_in(&world, "verified")?;
    second.report_drift(&[intrusion(1)])?;
    let failed = order_in(&world, "failed")?;
    assert!(
        failed["why"]
            .as_str()
            .is_some_and(|why| why.contains("named it already")),
        "{failed:#}"
    );
    assert_eq!(world.instance(&second.id)?["state"], "drifted");
    Ok(())
}
