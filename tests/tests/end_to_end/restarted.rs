//! The agent is killed and started anew while much happens: the machine's own systemd keeps its queues meanwhile, so that what
//! happens is told all the same, with who did it.

use anyhow::{Context, Result, ensure};
use driftmark_tests::Fleet;
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use serde_json::Value;

use crate::LIMIT;

/// Somebody who makes and removes files all the time, about a thousand in a second: no queue runs over in the seconds that a
/// restart takes.
const STORM: &str = "systemd-run --quiet --unit=storm sh -c 'cd /usr/lib; n=0; while :; do n=$((n + 1)); \
    : > .storm-$((n % 64)); [ $((n % 2)) = 0 ] || rm -f .storm-$((n % 64)); [ $((n % 100)) != 0 ] || sleep 0.1; done'";
/// Makes what is left of it exact.
const CALM: &str =
    "systemctl stop storm.service; rm -f /usr/lib/.storm-*; echo left > /usr/lib/.left";

#[test]
fn no_restart_is_blind_where_systemd_keeps_the_queues_whatever_goes_on() -> Result<()> {
    if !possible("restarting an agent") {
        return Ok(());
    }
    let fleet = crate::watched::rarely_scanned(None)?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;
    let exec = |line: &str| fleet.cloud.with(&vm, |machine| machine.exec(line));
    watches(&fleet, &vm, 1)?;
    let kept = "systemctl show --property=NFileDescriptorStore --value driftmark-agent.service";
    let queues = exec(kept)?;
    let queues = queues.trim();
    ensure!(
        queues.parse::<u32>()? >= 2,
        "of changes and of programs: {queues}"
    );
    exec(STORM)?;

    let ways = [
        "systemctl kill --kill-who=main --signal=KILL driftmark-agent.service",
        "systemctl restart --no-block driftmark-agent.service",
    ];
    for (nth, way) in ways.into_iter().enumerate() {
        exec(way)?;
        // While nobody is there, or is about to begin; whoever does it lives on.
        let path = format!("/etc/intruder-{nth}");
        exec(&format!(
            "systemd-run --quiet --unit=intruder-{nth} sh -c 'echo intruder > {path}; sleep 300; :'"
        ))?;
        watches(&fleet, &vm, nth + 2)?;
        let by = until(&format!("who made {path}"), LIMIT, || {
            Ok(attribution(&fleet.show(&id)?, &path))
        })?;
        let process = &by["process"];
        assert_eq!(process["executable"]["path"], "/usr/bin/dash", "{by:#}");
        assert_eq!(process["unit"], format!("intruder-{nth}.service"), "{by:#}");
        if nth == 0 {
            assert_eq!(by["confidence"], "late", "{by:#}");
        }
        assert_eq!(exec(kept)?.trim(), queues, "as many as before");
    }
    exec(CALM)?;
    let left = ["/etc/intruder-0", "/etc/intruder-1", "/usr/lib/.left"];
    let mut last = Vec::new();
    let exact = until("just what is left", LIMIT, || {
        last = fleet.open_paths(&id)?;
        Ok((last == left).then_some(()))
    });
    exact.with_context(|| format!("the last: {last:?}"))?;
    let notes = fleet.show(&id)?["coverage"]["notes"].to_string();
    ensure!(!notes.contains("was blind"), "{notes}");
    Ok(())
}

/// Waits until so many starts have watched, all but the first of them with the queues of the one before.
fn watches(fleet: &Fleet, vm: &str, starts: usize) -> Result<()> {
    until(&format!("{starts} starts that watch"), LIMIT, || {
        let journal = fleet
            .cloud
            .with(vm, |machine| machine.journal("driftmark-agent.service"))?;
        let begun = journal.matches("the watch begins").count();
        ensure!(begun <= 1, "{journal}");
        let goes_on = journal.matches("the watch goes on").count();
        Ok((begun + goes_on == starts).then_some(()))
    })
}

fn attribution(shown: &Value, path: &str) -> Option<Value> {
    let drifts = shown["drifts"].as_array()?;
    let drift = drifts.iter().find(|open| open["drift"]["path"] == path)?;
    let by = &drift["drift"]["attribution"];
    by.is_object().then(|| by.clone())
}
