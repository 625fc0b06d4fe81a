//! A whole life in 256 MiB: everything that a machine lacks at some time is lacking, one after the other.

use std::time::Duration;

use anyhow::{Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::vm::Root;
use driftmark_tests::{Machine, MachineOptions, vm};
use serde_json::Value;

use crate::world::World;

/// Whatever is waited for takes seconds on a real machine; this one is emulated, on two busy cores.
const LIMIT: Duration = Duration::from_secs(150);
/// An agent that was alone for long tries again every five minutes.
const RETURN: Duration = Duration::from_secs(360);
/// How long the network is away; with `DRIFTMARK_SOAK_MINUTES`, that long.
const AWAY: Duration = Duration::from_secs(15);
/// The least that may be configured.
const SPOOL_BYTES: u64 = 8 * 1024 * 1024;
const CONFIGURATION: &str = "[scan]\nquick-interval = \"5s\"\n[spool]\nmax-bytes = 8388608\n";
/// What a machine of 256 MiB can spare.
const MEMORY_BYTES: u64 = 32 * 1024 * 1024;

fn small() -> MachineOptions {
    MachineOptions {
        memory_mib: 256,
        ..MachineOptions::default()
    }
}

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn an_agent_outlives_a_full_disk_a_wrong_clock_and_a_lost_network_and_says_what_is_wrong()
-> Result<()> {
    if !vm::possible("a life") {
        return Ok(());
    }
    let world = World::new(CONFIGURATION)?;
    let life = Life {
        machine: world.boot("vm-1", small())?,
        world,
    };
    life.machine
        .wait_for_agent("a clean machine", LIMIT, |status| {
            status["phase"] == "running"
                && status["open_drifts"] == 0
                && status["waiting_reports"] == 0
        })?;
    life.collector_has(0)?;
    life.machine.exec("echo once more >>/etc/issue")?;
    life.collector_has(1)?;

    life.disk_is_full()?;
    life.clock_is_wrong()?;
    life.network_is_lost()?;
    life.memory_was_enough()
}

struct Life {
    machine: Machine,
    world: World,
}

impl Life {
    /// Nothing takes a byte any more, and in this state the agent has to start.
    fn disk_is_full(&self) -> Result<()> {
        // What is volatile is no drift. Whole blocks first, then what is left of them.
        self.machine.exec(
            "fallocate -l $(df --output=avail -B1 / | tail -n 1) /var/tmp/full 2>/dev/null || true; \
             cat /dev/zero >/var/tmp/rest 2>/dev/null || true; ! (echo x >/var/tmp/more) 2>/dev/null \
             || cat /dev/zero >>/var/tmp/more 2>/dev/null || true",
        )?;
        self.machine
            .exec("systemctl restart driftmark-agent.service")?;
        let status =
            self.machine
                .wait_for_agent("it says that the disk is full", LIMIT, |status| {
                    says(&status["state_trouble"], "No space left")
                })?;
        println!("a full disk: {}", status["state_trouble"]);
        let status =
            self.machine
                .wait_for_agent("it verifies on a full disk", LIMIT, |status| {
                    status["phase"] == "running" && status["open_drifts"] == 1
                })?;
        ensure!(
            says(&status["coverage"]["limits"], "No space left"),
            "{status:#}"
        );
        let journal = self.machine.journal("driftmark-agent.service")?;
        ensure!(
            journal.contains("the state directory is in trouble"),
            "{journal}"
        );
        // A full disk takes no new file, but an inode's mode needs no room.
        self.machine.exec("chmod 0666 /etc/issue.net")?;
        self.collector_has(2)?;
        self.machine
            .exec("rm /var/tmp/full /var/tmp/rest /var/tmp/more; sync")?;
        self.machine
            .wait_for_agent("it is well again", LIMIT, |status| {
                status["state_trouble"].is_null() && status["waiting_reports"] == 0
            })?;
        self.no_restarts()
    }

    /// By a year, ahead and behind.
    fn clock_is_wrong(&self) -> Result<()> {
        let machine = &self.machine;
        machine.exec("date --set='+1 year' >/dev/null; chmod 0666 /etc/host.conf")?;
        let status =
            machine.wait_for_agent("it says that the clock is wrong", LIMIT, |status| {
                says(&status["collector_trouble"], "by this machine's clock")
                    && status["waiting_reports"] != 0
            })?;
        println!("a year ahead: {}", status["collector_trouble"]);
        machine.exec("date --set='-1 year' >/dev/null")?;
        self.collector_has(3)?;
        self.is_heard("after the clock was ahead")?;

        machine.exec("date --set='-1 year' >/dev/null; chmod 0666 /etc/debian_version")?;
        machine.wait_for_agent("it finds drift in the past", LIMIT, |status| {
            status["open_drifts"] == 4
        })?;
        machine.exec("date --set='+1 year' >/dev/null")?;
        self.collector_has(4)?;
        self.is_heard("after the clock was behind")?;
        self.no_restarts()
    }

    fn network_is_lost(&self) -> Result<()> {
        let away = std::env::var("DRIFTMARK_SOAK_MINUTES").ok();
        let away = away.and_then(|minutes| minutes.parse().ok());
        let away = away.map_or(AWAY, |minutes: u64| Duration::from_secs(60 * minutes));
        self.machine.set_link(false)?;
        self.machine.exec("chmod 0666 /etc/profile")?;
        self.machine
            .wait_for_agent("it says that nobody answers", LIMIT, |status| {
                status["collector_trouble"].is_string() && status["waiting_reports"] != 0
            })?;
        // Reports as large as they come, again and again: all that may wait is what the spool may hold.
        self.machine
            .exec("mkdir /opt/many; cd /opt/many; seq 1 1500 | xargs touch")?;
        let status = self.machine.wait_for_agent("much drift", LIMIT, |status| {
            status["open_drifts"].as_u64() > Some(1500)
        })?;
        println!(
            "away: {} reports wait, {} bytes",
            status["waiting_reports"], status["spool_bytes"]
        );
        ensure!(
            status["spool_bytes"].as_u64() <= Some(SPOOL_BYTES),
            "{status:#}"
        );
        self.machine.exec("rm -r /opt/many")?;
        pause(away);
        let status = self
            .machine
            .wait_for_agent("less drift", LIMIT, |status| status["open_drifts"] == 5)?;
        println!(
            "then: {} reports wait, {} bytes",
            status["waiting_reports"], status["spool_bytes"]
        );
        ensure!(
            status["spool_bytes"].as_u64() <= Some(SPOOL_BYTES),
            "{status:#}"
        );
        self.machine.set_link(true)?;
        self.collector_has_within(5, RETURN)?;
        self.is_heard("after the network was away")?;
        self.no_restarts()
    }

    /// The limits of the unit are real here.
    fn memory_was_enough(&self) -> Result<()> {
        let group = "/sys/fs/cgroup$(systemctl show --property=ControlGroup --value driftmark-agent.service)";
        let text = self.machine.exec(&format!(
            "cat {group}/memory.high {group}/memory.peak; \
             grep VmHWM /proc/$(systemctl show --property=MainPID --value driftmark-agent.service)/status; \
             grep -E '^(high|max|oom_kill) ' {group}/memory.events; grep MemTotal /proc/meminfo"
        ))?;
        println!("memory: {}", text.replace('\n', "; "));
        let high: u64 = text.lines().next().unwrap_or_default().parse()?;
        ensure!(high <= 256 * 1024 * 1024, "MemoryHigh is real: {text}");
        ensure!(text.contains("oom_kill 0"), "{text}");
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak: u64 = peak
            .and_then(|peak| peak.split_whitespace().next())
            .unwrap_or_default()
            .parse()?;
        ensure!(peak * 1024 <= MEMORY_BYTES, "{text}");
        Ok(())
    }

    /// So many drifts are open, at the collector too.
    fn collector_has(&self, open: u64) -> Result<()> {
        self.collector_has_within(open, LIMIT)
    }

    fn collector_has_within(&self, open: u64, limit: Duration) -> Result<()> {
        let mut last = Value::Null;
        let waited = until(&format!("{open} drifts at the collector"), limit, || {
            pause(Duration::from_millis(200));
            last = self.world.row("vm-1")?;
            Ok((last["open"] == open).then_some(()))
        });
        waited.map_err(|error| {
            let status = self.machine.agent_status().unwrap_or_default();
            error.context(format!("the last row: {last:#}\nthe agent: {status:#}"))
        })
    }

    fn is_heard(&self, when: &str) -> Result<()> {
        let what = format!("all is well {when}");
        self.machine
            .wait_for_agent(&what, LIMIT, |status| {
                status["collector_trouble"].is_null() && status["waiting_reports"] == 0
            })
            .map(drop)
    }

    fn no_restarts(&self) -> Result<()> {
        let restarts = self
            .machine
            .exec("systemctl show --property=NRestarts --value driftmark-agent.service")?;
        ensure!(
            restarts.trim() == "0",
            "{}",
            self.machine.journal("driftmark-agent.service")?
        );
        Ok(())
    }
}

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn an_agent_whose_root_nobody_can_write_says_so_and_works_until_it_can_be_written() -> Result<()> {
    if !vm::possible("a read-only root") {
        return Ok(());
    }
    let world = World::new(CONFIGURATION)?;
    let options = MachineOptions {
        root: Root::ReadOnly,
        ..small()
    };
    let machine = world.boot("vm-2", options)?;
    let status = machine.wait_for_agent("it says that its root is read-only", LIMIT, |status| {
        says(&status["state_trouble"], "read-only")
            && status["phase"] == "running"
            && status["instance"].is_string()
    })?;
    println!("a read-only root: {}", status["state_trouble"]);
    ensure!(
        says(&status["coverage"]["limits"], "read-only"),
        "{status:#}"
    );
    ensure!(
        machine
            .journal("driftmark-agent.service")?
            .contains("the state directory is in trouble")
    );
    let instance = status["instance"].clone();

    // The same instance after a restart, and after one with a root that is well.
    machine.exec("systemctl restart driftmark-agent.service")?;
    let status = machine.wait_for_agent("it starts again", LIMIT, |status| {
        status["phase"] == "running" && status["waiting_reports"] == 0
    })?;
    assert_eq!(status["instance"], instance);
    machine.exec("mount -o remount,rw /; systemctl restart driftmark-agent.service")?;
    let status = machine.wait_for_agent("its root is well", LIMIT, |status| {
        status["phase"] == "running" && status["state_trouble"].is_null()
    })?;
    assert_eq!(status["instance"], instance);
    machine.exec("test -s /var/lib/driftmark/identity/instance.json")?;
    Ok(())
}

fn says(value: &Value, words: &str) -> bool {
    value.to_string().contains(words)
}
