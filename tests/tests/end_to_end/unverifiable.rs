//! An instance that cannot say what it is: it is reported as that, nothing about it is taken for health or for drift, and
//! it is never a reason to end it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions};

use crate::{LIMIT, OBSERVE};

const MANIFEST: &str = "/usr/lib/driftmark/image.manifest";
const RESTART: &str = "systemctl restart driftmark-agent.service";

#[test]
fn an_instance_that_cannot_be_verified_says_so_and_lives_on() -> Result<()> {
    if !possible("an instance without its manifest") {
        return Ok(());
    }
    let fleet = Fleet::new(&FleetOptions {
        policy: OBSERVE.to_owned(),
        ..FleetOptions::default()
    })?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;
    let exec = |line: &str| fleet.cloud.with(&vm, |machine| machine.exec(line));

    exec(&format!(
        "cp -p {MANIFEST} {MANIFEST}.sig /run/; rm {MANIFEST}; {RESTART}"
    ))?;
    is_unverifiable(&fleet, &vm, &id, "image.manifest")?;

    // The signature of another image, as it were: one byte of it differs.
    exec(&format!(
        "cat /run/image.manifest > {MANIFEST}; sed -i 's/\"sig\": *\"./\"sig\":\"_/' {MANIFEST}.sig; {RESTART}"
    ))?;
    exec(&format!("! cmp -s {MANIFEST}.sig /run/image.manifest.sig"))?;
    is_unverifiable(&fleet, &vm, &id, "sign")?;

    // The right signature of a manifest with one byte more.
    exec(&format!(
        "cat /run/image.manifest.sig > {MANIFEST}.sig; printf x >> {MANIFEST}; {RESTART}"
    ))?;
    is_unverifiable(&fleet, &vm, &id, "")?;

    exec(&format!("cat /run/image.manifest > {MANIFEST}; {RESTART}"))?;
    fleet.wait_for(&vm, "clean", LIMIT)?;
    assert_eq!(fleet.open_paths(&id)?, Vec::<String>::new());
    is_refused_for_its_configuration(&fleet, &vm)
}

fn is_unverifiable(fleet: &Fleet, vm: &str, id: &str, reason: &str) -> Result<()> {
    fleet.wait_for(vm, "unverifiable", LIMIT)?;
    let shown = fleet.show(id)?;
    let why = shown["unverifiable"].as_str().context("a reason")?;
    println!("unverifiable: {why}");
    ensure!(why.contains(reason), "{why}");
    let (status, body) = fleet.cloud.with(vm, |machine| machine.probe("/health"))?;
    ensure!(
        status == 200 && body.contains("cannot verify itself"),
        "{status} {body}"
    );
    let active = fleet.cloud.with(vm, |machine| {
        machine.exec("systemctl is-active driftmark-agent.service")
    })?;
    assert_eq!(active.trim(), "active");
    // It goes on reporting.
    until("two more heartbeats", LIMIT, || {
        let later =
            fleet.show(id)?["sequence"].as_u64() >= shown["sequence"].as_u64().map(|it| it + 2);
        Ok(later.then_some(()))
    })?;
    fleet.wait_for(vm, "unverifiable", LIMIT)?;
    Ok(())
}

/// An agent with a configuration that it does not understand does not run, and nobody starts it again and again.
fn is_refused_for_its_configuration(fleet: &Fleet, vm: &str) -> Result<()> {
    let exec = |line: &str| fleet.cloud.with(vm, |machine| machine.exec(line));
    exec(
        "mkdir -p /etc/driftmark/agent.d; echo 'nonsense = true' > /etc/driftmark/agent.d/90-nonsense.toml",
    )?;
    fleet.cloud.with(vm, |machine| machine.kill_agent("KILL"))?;
    fleet.wait_for(vm, "silent", LIMIT)?;
    // systemd waits 5 s before it starts it again; then it is over.
    let show = "systemctl show driftmark-agent.service --property=ActiveState,ExecMainStatus,NRestarts --value";
    let mut state = String::new();
    let failed = until("the unit to fail", LIMIT, || {
        state = exec(show)?;
        Ok(state.contains("failed").then_some(()))
    });
    failed.with_context(|| state.clone())?;
    pause(Duration::from_secs(6));
    let mut after: Vec<_> = exec(show)?.lines().map(str::to_owned).collect();
    after.sort();
    assert_eq!(
        after,
        ["1", "78", "failed"],
        "it was started once and never again"
    );
    let journal = exec("journalctl --no-pager --output=cat --unit=driftmark-agent.service")?;
    ensure!(
        journal.contains("90-nonsense.toml") && journal.contains("nonsense"),
        "{journal}"
    );
    assert_eq!(fleet.instance(vm)?["state"], "silent");
    Ok(())
}
