//! From power on to multi-user: the agent verifies from its first second on, and nobody waits for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::{Machine, MachineOptions, vm};

use crate::world::World;

/// READY and scanning within a second is the budget; the processor is emulated, ten times slower than a real one, on
/// two that others use, and in a boot the agent stands back for everybody.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The same once the boot is over.
const RESTART_LIMIT: Duration = Duration::from_secs(15);
/// The budget; the two are measured one after the other, and load comes and goes, so the better one of two pairs counts.
const VERIFY_LIMIT: f64 = 1.5;
/// How much later multi-user may be, by load that comes and goes.
const LATER_LIMIT: f64 = 2.0;

/// The regular files that the agent reads, so without what may change anyway.
const FILES: &str = "find / -xdev \\( -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/log \
    -o -path /var/lib/systemd -o -path /var/lib/driftmark -o -path /var/lib/apt/lists \\) -prune -o -type f -print0";

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn a_machine_verifies_itself_from_the_first_second_on_and_nobody_waits_for_it() -> Result<()> {
    if !vm::possible("a boot") {
        return Ok(());
    }
    let world = World::new("[scan]\nquick-interval = \"1m\"\n")?;
    let machine = world.boot("vm-1", MachineOptions::default())?;
    let times = Times::of(&machine)?;
    println!(
        "agent start → READY {:?}, → scan begun {:?}",
        times.ready, times.scanning
    );
    ensure!(
        times.ready < READY_LIMIT && times.scanning < READY_LIMIT,
        "{times:?}"
    );

    // Nobody waits: neither multi-user nor anything before it is ordered after the agent.
    let chain = machine.exec("systemd-analyze --no-pager critical-chain multi-user.target")?;
    ensure!(
        !chain.contains("driftmark-agent"),
        "the boot waits for the agent:\n{chain}"
    );
    let after = machine.exec("systemctl show --property=Before --value driftmark-agent.service")?;
    assert_eq!(after.trim(), "shutdown.target");
    let without = MachineOptions {
        kernel_arguments: "systemd.mask=driftmark-agent.service".to_owned(),
        ..MachineOptions::default()
    };

    let status = machine.wait_for_agent("the first scan", Duration::from_secs(120), |status| {
        status["phase"] == "running" && status["open_drifts"] == 0
    })?;
    println!(
        "the first scan, during the boot: {}",
        status["coverage"]["seen"]
    );
    println!(
        "  {} gaps, limits {}",
        status["coverage"]["gap_count"], status["coverage"]["limits"]
    );
    assert_eq!(status["coverage"]["gap_count"], 0, "{status:#}");
    machine.exec("systemctl restart driftmark-agent.service")?;
    let again = Times::of(&machine)?;
    println!(
        "the same with the boot over: READY {:?}, scan begun {:?}",
        again.ready, again.scanning
    );
    ensure!(again.scanning < RESTART_LIMIT, "{again:?}");
    verifying_costs_what_hashing_costs(&machine)?;
    drop(machine);

    let bare = world.boot("vm-2", without)?;
    let bare_multi_user = multi_user(&bare)?;
    println!(
        "multi-user after {:?} with the agent, {bare_multi_user:?} without",
        times.multi_user
    );
    ensure!(
        times.multi_user.as_secs_f64() < LATER_LIMIT * bare_multi_user.as_secs_f64(),
        "multi-user after {:?}, without the agent after {bare_multi_user:?}",
        times.multi_user
    );
    Ok(())
}

/// Both with nothing cached, then both with everything cached that was; in turn, twice, the better one counts.
fn verifying_costs_what_hashing_costs(machine: &Machine) -> Result<()> {
    machine.exec("systemctl stop driftmark-agent.service")?;
    let hash = format!("{FILES} | xargs -0 b3sum --num-threads 1 >/dev/null");
    let check = "driftmark-agent check --threads 1 >/dev/null";
    let cold = "sync; echo 3 >/proc/sys/vm/drop_caches; ";
    for (state, before) in [("cold", cold), ("warm", "")] {
        let mut best = f64::INFINITY;
        for _ in 0..2 {
            let hashing = took(machine, before, &hash)?;
            let verifying = took(machine, before, check)?;
            let ratio = verifying.as_secs_f64() / hashing.as_secs_f64();
            println!("{state}: b3sum {hashing:?}, check {verifying:?}, ratio {ratio:.2}");
            best = best.min(ratio);
        }
        ensure!(
            best < VERIFY_LIMIT,
            "{state}, verifying took {best:.2} × hashing"
        );
    }
    Ok(())
}

/// How long a line takes on the machine, by its own clock; it ends with 0.
fn took(machine: &Machine, before: &str, line: &str) -> Result<Duration> {
    let text = machine.exec(&format!(
        "{before}begun=$(date +%s%N); {line}; ended=$(date +%s%N); echo $((ended - begun))"
    ))?;
    let last = text.lines().last().unwrap_or_default();
    Ok(Duration::from_nanos(
        last.parse().with_context(|| format!("read {text:?}"))?,
    ))
}

/// When things happened in a boot, by the kernel's monotonic clock.
#[derive(Debug)]
struct Times {
    /// From the agent's start.
    ready: Duration,
    /// From the agent's start.
    scanning: Duration,
    /// From the kernel's start.
    multi_user: Duration,
}

impl Times {
    fn of(machine: &Machine) -> Result<Self> {
        let unit = |property: &str| {
            microseconds(
                machine,
                &format!("systemctl show --property={property} --value driftmark-agent.service"),
            )
        };
        let started = unit("ExecMainStartTimestampMonotonic")?;
        let ready = unit("ActiveEnterTimestampMonotonic")?;
        let scanning = microseconds(
            machine,
            "journalctl --boot --no-pager --output=json --unit=driftmark-agent.service --grep='^scan begins' \
             | tail -n 1 | sed 's/.*\"__MONOTONIC_TIMESTAMP\":\"\\([0-9]*\\)\".*/\\1/'",
        )?;
        Ok(Self {
            ready: ready.saturating_sub(started),
            scanning: scanning.saturating_sub(started),
            multi_user: multi_user(machine)?,
        })
    }
}

fn multi_user(machine: &Machine) -> Result<Duration> {
    microseconds(
        machine,
        "systemctl show --property=ActiveEnterTimestampMonotonic --value multi-user.target",
    )
}

fn microseconds(machine: &Machine, line: &str) -> Result<Duration> {
    let text = machine.exec(line)?;
    let number = text.trim().parse();
    Ok(Duration::from_micros(
        number.with_context(|| format!("read {text:?} of {line:?}"))?,
    ))
}
