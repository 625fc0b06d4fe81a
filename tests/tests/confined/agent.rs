//! The agent under its own unit.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Instance, Lab};
use serde_json::Value;

use crate::{booted, holds_no_more_than, property};

const AGENT: &str = "driftmark-agent.service";
/// CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN.
const THREE: u64 = 1 << 2 | 1 << 19 | 1 << 21;
/// A quick scan a second, on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);
/// Error numbers of errno(3).
const EROFS: i64 = 30;
const ENOSYS: i64 = 38;
/// SIGSYS of signal(7).
const BAD_CALL: &str = "31";

/// Where the unit mounts something in the agent's view, or makes it read-only or inaccessible.
const BELOW_THE_SANDBOX: [&str; 8] = [
    "/home/added",
    "/root/added",
    "/boot/added",
    "/etc/added",
    "/opt/added",
    "/usr/added",
    "/usr/lib/modules/added",
    "/var/lib/added",
];

fn status(instance: &Instance) -> Result<Value> {
    let text = instance.exec("driftmark-agent status --json")?;
    serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
}

fn until_open(instance: &Instance, count: u64) -> Result<()> {
    let mut last = Value::Null;
    until(&format!("{count} open drifts"), LIMIT, || {
        last = status(instance)?;
        let is_verified = !last["coverage"]["seen"].is_null();
        Ok((is_verified && last["open_drifts"] == count).then_some(()))
    })
    .with_context(|| format!("the last status: {last:#}"))
}

#[test]
fn a_confined_agent_sees_everything_below_its_sandbox() -> Result<()> {
    if !possible("a confined agent") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let instance = booted(&lab)?;
    until_open(&instance, 0)?;

    // What holds, for every thread of it.
    holds_no_more_than(&instance, AGENT, THREE)?;

    // Programs of others can be named: that of a user without any rights, and that of init with all of them.
    instance
        .exec("setpriv --reuid=65534 --regid=65534 --clear-groups sleep 600 >/dev/null 2>&1 &")?;
    let confinement = &status(&instance)?["confinement"];
    assert_eq!(
        confinement["capabilities"],
        serde_json::json!(["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"])
    );
    assert_eq!(confinement["no_new_privileges"], true);
    assert_eq!(confinement["system_calls_filtered"], true);
    assert_eq!(confinement["programs"]["refused"], 0, "{confinement}");
    assert!(
        confinement["programs"]["named"].as_u64() >= Some(3),
        "{confinement}"
    );

    // In its own view these places are read-only, empty or gone; it reports all of them.
    let id = property(&instance, AGENT, "MainPID")?;
    let inside =
        |line: &str| instance.try_exec(&format!("nsenter --target {id} --mount sh -c '{line}'"));
    ensure!(
        !inside("ls /usr/lib/modules/held")?.status.success(),
        "nothing hides /usr/lib/modules"
    );
    for place in ["/etc", "/home", "/root", "/tmp", "/var/lib"] {
        let written = inside(&format!("touch {place}/by-the-agent"))?;
        let said = String::from_utf8_lossy(&written.stderr).into_owned();
        ensure!(
            said.contains("Read-only file system"),
            "{place}: {written:?}"
        );
    }
    let own = inside("touch /var/lib/driftmark/own /run/driftmark/own")?;
    ensure!(own.status.success(), "{own:?}");
    for path in BELOW_THE_SANDBOX {
        instance.exec(&format!("echo added > {path}"))?;
    }
    until_open(&instance, BELOW_THE_SANDBOX.len() as u64)?;
    // As an unconfined check sees it: these and no others.
    let check = instance.try_exec("driftmark-agent check --json")?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    for path in BELOW_THE_SANDBOX {
        assert!(
            said.contains(&format!("\"path\":\"{path}\"")),
            "{path} is not in\n{said}"
        );
    }
    instance.terminate()
}

#[test]
fn whoever_is_in_the_agents_place_writes_and_starts_nothing() -> Result<()> {
    if !possible("a captive") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let instance = booted(&lab)?;
    let captive = instance.root().join("usr/bin/driftmark-lab-captive");
    fs::copy(env!("CARGO_BIN_EXE_driftmark-lab-captive"), captive)
        .context("install the captive")?;
    // The agent's unit to the letter, but for the program and what systemd does when that ends.
    instance.exec(
        "setpriv --reuid=65534 --regid=65534 --clear-groups sleep 600 >/dev/null 2>&1 &\n\
         systemctl stop driftmark-agent.service\n\
         sed -e 's|^ExecStart=.*|ExecStart=/usr/bin/driftmark-lab-captive %i|' -e 's/^Type=.*/Type=oneshot/' \
             -e 's/^Restart=.*/Restart=no/' -e '/^WatchdogSec/d' \
             /usr/lib/systemd/system/driftmark-agent.service > /run/systemd/system/captive@.service\n\
         systemctl daemon-reload",
    )?;
    instance.exec("systemctl start captive@work.service")?;
    let told = instance.exec("cat /var/lib/driftmark/captive.json")?;
    let told: Value = serde_json::from_str(&told).context("read what the captive told")?;
    let told = told.as_object().context("an object")?;
    assert_eq!(told.len(), 18, "{told:#?}");
    for (what, number) in told {
        let expected = match what.split(' ').next() {
            Some("write" | "append" | "remove") => Some(EROFS),
            _ if ["start", "raw socket"].contains(&what.as_str()) => Some(ENOSYS),
            _ => None,
        };
        assert_eq!(number.as_i64(), expected, "{what}: {told:#?}");
    }
    for call in ["exec", "mount", "chroot"] {
        let unit = format!("captive@{call}.service");
        let started = instance.try_exec(&format!("systemctl start {unit}"))?;
        ensure!(!started.status.success(), "{call} went well");
        assert_eq!(
            property(&instance, &unit, "ExecMainStatus")?,
            BAD_CALL,
            "{call}: {}",
            instance.journal(&unit)?
        );
    }
    instance.terminate()
}

#[test]
fn a_slow_or_misconfigured_agent_holds_up_no_boot() -> Result<()> {
    if !possible("a slow agent") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut instance = booted(&lab)?;
    let after = property(&instance, AGENT, "After")?;
    for late in ["network", "sysinit.target", "basic.target"] {
        ensure!(
            !after.contains(late),
            "the agent starts after {late}: {after}"
        );
    }
    let waiting = property(&instance, "multi-user.target", "After")?;
    ensure!(
        !waiting.contains("driftmark"),
        "multi-user waits for the agent: {waiting}"
    );

    instance.exec(
        "mkdir -p /etc/systemd/system/driftmark-agent.service.d\n\
         printf '[Service]\\nExecStartPre=/bin/sleep 20\\n' > /etc/systemd/system/driftmark-agent.service.d/slow.conf",
    )?;
    instance.reboot()?;
    let entered = |unit: &str| -> Result<u64> {
        Ok(property(&instance, unit, "ActiveEnterTimestampMonotonic")?.parse()?)
    };
    until("the agent", LIMIT, || {
        Ok((property(&instance, AGENT, "ActiveState")? == "active").then_some(()))
    })?;
    let (agent, multi_user) = (entered(AGENT)?, entered("multi-user.target")?);
    ensure!(
        multi_user + 1_000_000 < agent,
        "multi-user at {multi_user}, the agent at {agent}"
    );

    // 78 is for good: nothing is gained by trying again.
    let refused = instance.try_exec(
        "mkdir -p /etc/driftmark/agent.d; echo nonsense > /etc/driftmark/agent.d/99-bad.toml\n\
         rm -r /etc/systemd/system/driftmark-agent.service.d; systemctl daemon-reload; systemctl restart driftmark-agent.service",
    )?;
    ensure!(!refused.status.success(), "a refused configuration started");
    assert_eq!(property(&instance, AGENT, "ExecMainStatus")?, "78");
    // One that waits to be started again would be `activating`.
    assert_eq!(property(&instance, AGENT, "ActiveState")?, "failed");
    assert_eq!(property(&instance, AGENT, "NRestarts")?, "0");
    instance
        .exec("rm /etc/driftmark/agent.d/99-bad.toml; systemctl restart driftmark-agent.service")?;
    assert_eq!(property(&instance, AGENT, "ActiveState")?, "active");
    instance.terminate()
}
