//! What the image does not hold does not run, and whatever becomes of the agent, the machine goes on.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Instance};
use serde_json::Value;

use crate::{LIMIT, OBSERVE};

/// No scan is in the way.
const RARE_SCANS: &str = "[scan]\nquick-interval = \"1h\"\n";
/// A shell says so of `EPERM`; of a file without the right to run it says `Permission denied`.
const REFUSED: &str = "Operation not permitted";

struct Guarded {
    fleet: Fleet,
    vm: String,
}

impl Guarded {
    fn with_mode(mode: &str) -> Result<Self> {
        let fleet = Fleet::new(&FleetOptions {
            policy: OBSERVE.to_owned(),
            agent: format!("enforce = \"{mode}\"\n{RARE_SCANS}"),
            ..FleetOptions::default()
        })?;
        let vm = fleet.launch_clean(1)?.remove(0);
        let guarded = Guarded { fleet, vm };
        guarded.until_enforcement(mode)?;
        Ok(guarded)
    }

    fn on<T>(&self, act: impl FnOnce(&mut Instance) -> Result<T>) -> Result<T> {
        self.fleet.cloud.with(&self.vm, act)
    }

    fn status(&self) -> Result<Value> {
        let text = self.on(|machine| machine.exec("driftmark-agent status --json"))?;
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    /// Until the agent says so of what it refuses.
    fn until_enforcement(&self, begins: &str) -> Result<()> {
        until(begins, LIMIT, || {
            // It may be on its way back.
            let Ok(status) = self.status() else {
                return Ok(None);
            };
            let limits = status["coverage"]["limits"].to_string();
            let enforcement = status["enforcement"].as_str().unwrap_or_default();
            Ok(
                (enforcement.starts_with(begins) && !limits.contains("not guarded yet"))
                    .then_some(()),
            )
        })
    }

    /// Whether a program of nobody's may run; as another file each time, which nobody has asked about before.
    fn runs(&self, name: &str) -> Result<bool> {
        let line = format!("cp /bin/true /tmp/{name}; /tmp/{name}");
        let output = self.on(|machine| machine.try_exec(&line))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() || said.contains(REFUSED), "{said}");
        Ok(output.status.success())
    }
}

#[test]
fn what_the_image_does_not_hold_does_not_run_and_the_system_outlives_its_agent() -> Result<()> {
    if !possible("guarding an instance") {
        return Ok(());
    }
    let guarded = Guarded::with_mode("image-programs")?;
    let id = guarded.fleet.id(&guarded.vm)?;
    // Two for each that waits, and those of all other work.
    let limits = "cat /proc/$(systemctl show --property=MainPID --value driftmark-agent)/limits";
    let limits = guarded.on(|machine| machine.exec(limits))?;
    let open = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let open = open.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    ensure!(open >= Some(4096), "{limits}");
    println!("{}", guarded.status()?["coverage"]["limits"]);
    ensure!(!guarded.runs("unknown")?, "it runs");
    let script = "printf '#!/bin/sh\\n' > /run/script; chmod +x /run/script; /run/script";
    let script = guarded.on(|machine| machine.try_exec(script))?;
    ensure!(!script.status.success(), "a script runs");
    // What the image holds goes on: units, other programs, the agent's own.
    guarded.on(|machine| {
        machine.exec(
            "ls / > /dev/null; systemctl daemon-reload; systemd-run --quiet --wait /bin/true; ! systemctl is-failed --quiet '*'",
        )
    })?;
    let moment = until("what was refused", LIMIT, || {
        let shown = guarded.fleet.show(&id)?;
        let moments = shown["moments"].as_array().cloned().unwrap_or_default();
        let is_it = |moment: &&Value| moment.to_string().contains("/tmp/unknown");
        Ok(moments.iter().find(is_it).map(Value::to_string))
    })?;
    ensure!(
        moment.contains("refused: not a program of the image"),
        "{moment}"
    );
    ensure!(moment.contains("/usr/bin/dash"), "who wanted it: {moment}");

    // Killed: everything runs, until it is back.
    guarded.on(|machine| machine.kill_agent("KILL"))?;
    ensure!(
        guarded.runs("after-a-kill")?,
        "nothing runs without the agent"
    );

    guarded.until_enforcement("image-programs")?;
    ensure!(!guarded.runs("again")?, "it runs");

    // Stopped: what has run before runs; what has not waits until the service manager has ended it.
    let pid = "ls / > /dev/null; systemctl show --property=MainPID --value driftmark-agent";
    let pid = guarded.on(|machine| machine.exec(pid))?;
    guarded.on(|machine| machine.kill_agent("STOP"))?;
    let lines = format!(
        "ls / > /dev/null; while read -r line; do echo $line; done < /proc/{}/status",
        pid.trim()
    );
    // The signal is sent: its threads stop one after the other.
    until("the agent to stop", LIMIT, || {
        let state = guarded.on(|machine| machine.exec(&lines))?;
        Ok(state.contains("State: T (stopped)").then_some(()))
    })?;
    let began = Instant::now();
    ensure!(guarded.runs("while-it-is-stopped")?, "nothing runs");
    println!(
        "a stopped agent kept a program waiting for {:?}",
        began.elapsed()
    );
    let journal = guarded.on(|machine| machine.journal("driftmark-agent.service"))?;
    ensure!(
        journal.contains("Watchdog timeout (limit 20s)"),
        "{journal}"
    );
    ensure!(
        !journal.contains("programs are not refused any more"),
        "{journal}"
    );
    guarded.until_enforcement("image-programs")?;
    ensure!(!guarded.runs("once-more")?, "it runs");

    // Switched off: at once, and told.
    guarded.on(|machine| machine.exec(": > /run/driftmark/enforce-off"))?;
    ensure!(guarded.runs("switched-off")?, "nothing runs");
    guarded.until_enforcement("programs that the image does not hold are not refused")?;
    guarded.on(|machine| machine.exec("rm /run/driftmark/enforce-off"))?;
    guarded.until_enforcement("image-programs")?;
    ensure!(!guarded.runs("switched-on")?, "it runs");

    // And away: as if it had never been.
    guarded.on(|machine| machine.exec("systemctl stop driftmark-agent"))?;
    ensure!(
        guarded.runs("after-the-end")?,
        "nothing runs without the agent"
    );
    Ok(())
}

#[test]
fn packages_are_installed_as_fast_where_it_is_only_told_what_would_be_refused() -> Result<()> {
    if !possible("guarding an instance") {
        return Ok(());
    }
    let guarded = Guarded::with_mode("permissive")?;
    guarded.on(|machine| {
        machine.exec(
            "mkdir -p /tmp/package/DEBIAN /tmp/package/opt/it; cd /tmp; cp /bin/true package/opt/it/it
             printf 'Package: it\\nVersion: 1\\nArchitecture: all\\nMaintainer: it <it@it.invalid>\\nDescription: it\\n' \
                 > package/DEBIAN/control
             printf '#!/bin/sh\\nset -e\\n/opt/it/it\\n' > package/DEBIAN/postinst; chmod 755 package/DEBIAN/postinst
             dpkg-deb --build package it.deb > /dev/null",
        )
    })?;
    let install =
        "for n in 1 2 3 4 5; do dpkg -i /tmp/it.deb > /dev/null; dpkg --purge it > /dev/null; done";
    let took = || -> Result<_> {
        let began = Instant::now();
        guarded.on(|machine| machine.exec(install))?;
        Ok(began.elapsed())
    };
    took()?;
    let (mut permissive, mut off) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        permissive.push(took()?);
        guarded.on(|machine| machine.exec(": > /run/driftmark/enforce-off"))?;
        guarded.until_enforcement("programs that the image does not hold are not refused")?;
        off.push(took()?);
        guarded.on(|machine| machine.exec("rm /run/driftmark/enforce-off"))?;
        guarded.until_enforcement("permissive")?;
    }
    permissive.sort();
    off.sort();
    let ratio = permissive[0].as_secs_f64() / off[0].as_secs_f64();
    println!(
        "ten runs of dpkg: permissive {permissive:?}, off {off:?}; the fastest of each: {ratio:.3}"
    );
    // Far from anything that this machine's other work does to it.
    ensure!(ratio < 2.0, "{ratio}");
    let shown = guarded.fleet.show(&guarded.fleet.id(&guarded.vm)?)?;
    let told = shown["moments"].to_string();
    ensure!(told.contains("would be refused"), "{told}");
    Ok(())
}
