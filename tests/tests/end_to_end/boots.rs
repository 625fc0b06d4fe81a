//! Machines boot again and power off: the same instance is clean again, and a goodbye is neither silence nor health.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Instance};
use serde_json::Value;

use crate::{LIMIT, OBSERVE};

#[test]
fn a_machine_that_boots_again_is_the_same_clean_instance_and_one_that_powers_off_is_stopped()
-> Result<()> {
    if !possible("booting a machine again") {
        return Ok(());
    }
    let fleet = Fleet::new(&FleetOptions {
        policy: OBSERVE.to_owned(),
        ..FleetOptions::default()
    })?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;
    let before = fleet.show(&id)?;
    says_how_it_is(&fleet, &vm, &before)?;

    fleet.cloud.with(&vm, Instance::reboot)?;
    let after = until("a clean instance after the boot", LIMIT, || {
        let shown = fleet.show(&id)?;
        Ok((shown["state"] == "clean" && shown["boot_id"] != before["boot_id"]).then_some(shown))
    });
    let after = after.with_context(|| {
        fleet
            .show(&id)
            .map(|shown| format!("{shown:#}"))
            .unwrap_or_default()
    })?;
    ensure!(after["run"] != before["run"], "another start of the agent");
    assert_eq!(fleet.instances()?.len(), 1, "and no other instance");
    says_how_it_is(&fleet, &vm, &after)?;

    fleet.cloud.with(&vm, Instance::poweroff)?;
    fleet.wait_for(&vm, "stopped", LIMIT)?;
    // Longer than silence: a goodbye stays one.
    pause(Duration::from_secs(4));
    assert_eq!(fleet.instance(&vm)?["state"], "stopped");
    assert_eq!(
        fleet.show(&id)?["clean_since_ms"],
        Value::Null,
        "what is off is not well"
    );
    Ok(())
}

/// `driftmark-agent status` on the machine agrees with the collector.
fn says_how_it_is(fleet: &Fleet, vm: &str, shown: &Value) -> Result<()> {
    let text = fleet
        .cloud
        .with(vm, |machine| machine.exec("driftmark-agent status --json"))?;
    let status: Value = serde_json::from_str(&text).with_context(|| format!("read {text:?}"))?;
    assert_eq!(status["instance"], shown["id"]);
    assert_eq!(status["fleet"], shown["fleet"]);
    assert_eq!(status["image"]["manifest"], shown["manifest"]);
    assert_eq!(
        (&status["phase"], &status["open_drifts"], &status["healthy"]),
        (&"running".into(), &0.into(), &true.into())
    );
    ensure!(
        status["coverage"]["verified_entries"].as_u64() > Some(1_000),
        "{status:#}"
    );
    ensure!(
        status["coverage"]["gap_count"] == 0 && status["collector_trouble"].is_null(),
        "{status:#}"
    );
    let for_people = fleet
        .cloud
        .with(vm, |machine| machine.exec("driftmark-agent status"))?;
    ensure!(for_people.contains("open drifts  0"), "{for_people}");
    Ok(())
}
