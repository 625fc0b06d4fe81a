//! The agent is killed, stopped, and hangs: it comes back by itself, and what happened meanwhile is found.

use anyhow::{Context, Result, ensure};
use driftmark_tests::cloud::now;
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions};
use serde_json::Value;

use crate::{LIMIT, OBSERVE};

/// A drop-in that makes the shipped watchdog quick; `/run` is no part of the image.
const QUICK_WATCHDOG: &str = "mkdir -p /run/systemd/system/driftmark-agent.service.d; \
    printf '[Service]\\nWatchdogSec=4\\nRestartSec=100ms\\n' > /run/systemd/system/driftmark-agent.service.d/quick.conf; \
    systemctl daemon-reload; systemctl restart driftmark-agent.service";

/// A drop-in of an operator who does not want it back.
const NEVER_AGAIN: &str = "mkdir -p /run/systemd/system/driftmark-agent.service.d; \
    printf '[Service]\\nWatchdogSec=0\\nRestart=no\\n' > /run/systemd/system/driftmark-agent.service.d/quick.conf; \
    systemctl daemon-reload; systemctl restart driftmark-agent.service";

/// Two and a half heartbeats.
const SILENCE_MS: i64 = 2_500;
/// How long the command line may take to say so.
const SLACK_MS: i64 = 2_000;

#[test]
fn an_agent_that_is_killed_stopped_or_hangs_comes_back_and_misses_nothing() -> Result<()> {
    if !possible("killing an agent") {
        return Ok(());
    }
    let fleet = Fleet::new(&FleetOptions {
        policy: OBSERVE.to_owned(),
        ..FleetOptions::default()
    })?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;

    let before = fleet.show(&id)?;
    fleet
        .cloud
        .with(&vm, |machine| machine.kill_agent("KILL"))?;
    let after = another_run(&fleet, &id, &before, "clean")?;
    assert_eq!(
        after["boot_id"], before["boot_id"],
        "the machine was not booted"
    );
    follows(&fleet, &before, &after)?;

    // A goodbye, a change that nobody sees, and a start.
    fleet.cloud.with(&vm, |machine| {
        machine.exec("systemctl stop driftmark-agent.service")
    })?;
    fleet.wait_for(&vm, "stopped", LIMIT)?;
    fleet.cloud.with(&vm, |machine| {
        machine.exec("cp -p /etc/issue /run/issue; echo intruder >> /etc/issue; rm /etc/debian_version; touch /usr/bin/more")
    })?;
    fleet.cloud.with(&vm, |machine| {
        machine.exec("echo added > /usr/lib/added; systemctl start driftmark-agent.service")
    })?;
    fleet.wait_for(&vm, "drifted", LIMIT)?;
    let open = ["/etc/debian_version", "/etc/issue", "/usr/lib/added"];
    assert_eq!(
        fleet.open_paths(&id)?,
        open,
        "no more and no less, whatever the times say"
    );

    // Killed again: what is open stays open, once.
    let drifted = fleet.show(&id)?;
    fleet
        .cloud
        .with(&vm, |machine| machine.kill_agent("KILL"))?;
    let after = another_run(&fleet, &id, &drifted, "drifted")?;
    follows(&fleet, &drifted, &after)?;
    assert_eq!(fleet.open_paths(&id)?, open);
    assert_eq!(after["drifted_since_ms"], drifted["drifted_since_ms"]);
    fleet.cloud.with(&vm, |machine| {
        machine.exec(
            "cat /run/issue > /etc/issue; rm /usr/lib/added; cat /usr/lib/os-release > /dev/null",
        )
    })?;
    until("what was put back to be closed", LIMIT, || {
        Ok((fleet.open_paths(&id)? == open[..1]).then_some(()))
    })?;

    hangs(&fleet, &vm, &id)
}

/// An agent that hangs is silence to the collector, and a restart to systemd.
fn hangs(fleet: &Fleet, vm: &str, id: &str) -> Result<()> {
    let before = fleet.show(id)?;
    fleet
        .cloud
        .with(vm, |machine| machine.exec(QUICK_WATCHDOG))?;
    let before = another_run(fleet, id, &before, "drifted")?;
    is_noticed(
        fleet,
        vm,
        "systemctl kill --kill-who=main --signal=STOP driftmark-agent.service",
    )?;
    another_run(fleet, id, &before, "drifted")?;
    let journal = fleet.cloud.with(vm, |machine| {
        machine.exec("journalctl --no-pager --unit=driftmark-agent.service")
    })?;
    ensure!(journal.contains("Watchdog timeout"), "{journal}");
    is_silenced(fleet, vm, id)
}

/// One that nobody starts again, and one that is frozen with all that it has open.
fn is_silenced(fleet: &Fleet, vm: &str, id: &str) -> Result<()> {
    let exec = |line: &str| fleet.cloud.with(vm, |machine| machine.exec(line));
    let before = fleet.show(id)?;
    exec(NEVER_AGAIN)?;
    let before = another_run(fleet, id, &before, "drifted")?;
    is_noticed(fleet, vm, "systemctl freeze driftmark-agent.service")?;
    exec("systemctl thaw driftmark-agent.service")?;
    fleet.wait_for(vm, "drifted", LIMIT)?;
    assert_eq!(fleet.show(id)?["run"], before["run"], "the same goes on");
    is_noticed(
        fleet,
        vm,
        "systemctl kill --kill-who=main --signal=KILL driftmark-agent.service",
    )
}

/// The collector notices within the time that it says what was done to the agent there.
fn is_noticed(fleet: &Fleet, vm: &str, line: &str) -> Result<()> {
    fleet.cloud.with(vm, |machine| machine.exec(line))?;
    let silent = fleet.wait_for(vm, "silent", LIMIT)?;
    let heard = silent["heard_at_ms"]
        .as_i64()
        .context("it was heard before")?;
    let noticed = now() - heard;
    println!("{line}: silent {noticed} ms after the last report");
    ensure!(
        (SILENCE_MS..SILENCE_MS + SLACK_MS).contains(&noticed),
        "2.5 heartbeats of a second are not {noticed} ms"
    );
    Ok(())
}

/// Waits until the instance is in `state` by the word of another run than before.
fn another_run(fleet: &Fleet, id: &str, before: &Value, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let waited = until(&format!("another run that is {state}"), LIMIT, || {
        last = fleet.show(id)?;
        Ok((last["run"] != before["run"] && last["state"] == state).then(|| last.clone()))
    });
    waited.with_context(|| format!("the last: {last:#}"))
}

/// The later run said that it came after the earlier one.
fn follows(fleet: &Fleet, earlier: &Value, later: &Value) -> Result<()> {
    let [earlier, later] =
        [earlier, later].map(|shown| shown["run"].as_str().unwrap_or_default().to_owned());
    let previous = fleet
        .collector
        .database(&format!("SELECT previous FROM runs WHERE run = x'{later}'"))?;
    assert_eq!(previous, [earlier]);
    Ok(())
}
