//! Cold boots of many instances, three at a time; each lives a day, those of the last boot as long as is told; and one
//! real change on each at the end.
//!
//! `make test` does three boots and two minutes; `make soak` twenty and an hour, or as many as
//! `DRIFTMARK_SOAK_BOOTS` and `DRIFTMARK_SOAK_MINUTES` say.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use driftmark_tests::patience::pause;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Distribution, Instance};

use crate::change::CHANGES;
use crate::ground::{CloudInit, Ground};

/// Full scans too, many times in the time that there is. What may change once is fixed after a first boot on two busy
/// cores is over; the days that count come after that (`wait_for_held`).
const SCAN: &str = "full-interval = \"60s\"\nfinish-within = \"60s\"\nquick-interval = \"10s\"\nfirst-boot-window = \"60s\"";
/// More at once only wait for two cores, and a kernel's inotify instances are enough for a dozen systemds.
const AT_ONCE: usize = 3;

/// How long it goes on.
struct Soak {
    boots: usize,
    time: Duration,
}

impl Soak {
    fn here(boots: usize, minutes: u64) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Ok(text) = std::env::var(name) else {
                return Ok(None);
            };
            let number = text
                .parse()
                .with_context(|| format!("read {name}={text:?}"))?;
            Ok(Some(number))
        };
        let boots = match number("DRIFTMARK_SOAK_BOOTS")? {
            Some(boots) => usize::try_from(boots).context("a number of boots")?,
            None => boots,
        };
        let minutes = number("DRIFTMARK_SOAK_MINUTES")?.unwrap_or(minutes);
        Ok(Self {
            boots: boots.max(1),
            time: Duration::from_secs(60 * minutes),
        })
    }

    fn tell(&self) -> Result<()> {
        let ground = Ground::new(Distribution::Debian12, CloudInit::Yes, SCAN)?;
        let (mut booted, mut changes) = (0, CHANGES.iter().cycle());
        loop {
            let machines = ground.fleet.launch(AT_ONCE.min(self.boots - booted))?;
            booted += machines.len();
            for vm in &machines {
                ground.settle(vm)?;
                ground.is_clean(vm, "after its cold boot")?;
            }
            println!("{booted} cold boots");
            let is_last = booted == self.boots;
            let time = if is_last { self.time } else { Duration::ZERO };
            Self::live(&ground, &machines, time)?;
            for (vm, change) in machines.iter().zip(&mut changes) {
                ground.changed(vm, change)?;
                ground.fleet.cloud.terminate(vm)?;
            }
            println!("{booted} changes, one drift each");
            if is_last {
                return Ok(());
            }
        }
    }

    /// Days go round the machines until the time is over, one for each at least, with a boot before every second one.
    fn live(ground: &Ground, machines: &[String], time: Duration) -> Result<()> {
        for vm in machines {
            ground.wait_for_held(vm)?;
        }
        let (started, mut days) = (Instant::now(), 0_usize);
        while days < machines.len() || started.elapsed() < time {
            let vm = &machines[days % machines.len()];
            if (days / machines.len()).is_multiple_of(2) {
                ground.with(vm, Instance::reboot)?;
                ground.settle(vm)?;
            }
            ground.day(vm)?;
            ground.is_clean(vm, "after a day")?;
            days += 1;
            pause(time / 240);
        }
        for vm in machines {
            ground.scanned_again(vm)?;
            ground.is_clean(vm, "in the end")?;
        }
        println!("{days} days in {:?}, no drift", started.elapsed());
        Ok(())
    }
}

#[test]
fn three_cold_boots_and_two_minutes_of_ordinary_life_are_no_drift_and_one_change_on_each_is()
-> Result<()> {
    if !possible("three boots and two minutes") {
        return Ok(());
    }
    Soak {
        boots: 3,
        time: Duration::from_secs(120),
    }
    .tell()
}

#[test]
#[ignore = "takes more than an hour: make soak"]
fn twenty_cold_boots_and_an_hour_of_ordinary_life_are_no_drift_and_one_change_on_each_is()
-> Result<()> {
    if !possible("twenty boots and an hour") {
        return Ok(());
    }
    Soak::here(20, 60)?.tell()
}
