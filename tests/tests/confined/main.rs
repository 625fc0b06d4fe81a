//! Both programs under their shipped units, in real systemd: they see what they must and can do no more than they need.

mod agent;
mod collector;
mod commands;
mod units;

use anyhow::{Context, Result};
use driftmark_tests::sandbox::skip;
use driftmark_tests::{Instance, InstanceOptions, Lab, Program, Recipe, Workshop};

/// A machine with a confined agent that looks every second.
fn booted(lab: &Lab) -> Result<Instance> {
    let workshop = Workshop::open()?;
    let agent = Program::Agent.path()?;
    let keys = workshop.keys(&agent)?;
    let image = Recipe::new("confined", "1")
        .file(
            "/usr/lib/driftmark/agent.d/50-quick.toml",
            0o644,
            "[scan]\nquick-interval = \"1s\"\n",
        )
        .file("/usr/lib/modules/held", 0o644, "a module")
        .build(&workshop, &agent, &keys)?;
    lab.boot(&image, "confined", &InstanceOptions::default())
}

/// A property of a unit as systemd has it.
fn property(instance: &Instance, unit: &str, name: &str) -> Result<String> {
    let shown = instance.exec(&format!("systemctl show --value --property={name} {unit}"))?;
    Ok(shown.trim().to_owned())
}

/// Whether a program says of itself that this kernel does not confine it as it should, which skips the story.
fn is_unconfined(said: &str) -> bool {
    said.contains("Landlock")
        && !skip(
            "a confined program",
            "needs a newer Landlock than this kernel's",
        )
}

/// Fails unless every thread of a unit holds these capabilities and can get no others, and its system calls are filtered.
fn holds_no_more_than(instance: &Instance, unit: &str, capabilities: u64) -> Result<()> {
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let held = all_threads_say(instance, unit, set)?;
        assert_eq!(held, capabilities, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(all_threads_say(instance, unit, set)?, 0, "{set}");
    }
    assert_eq!(threads_say(instance, unit, "NoNewPrivs")?, ["1"]);
    assert_eq!(threads_say(instance, unit, "Seccomp")?, ["2"]);
    Ok(())
}

/// A line of every thread's `/proc/PID/task/*/status`, once for each value.
fn threads_say(instance: &Instance, unit: &str, key: &str) -> Result<Vec<String>> {
    let id = property(instance, unit, "MainPID")?;
    let status = instance.exec(&format!("cat /proc/{id}/task/*/status"))?;
    let mut values: Vec<_> = status
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .collect();
    values.sort();
    values.dedup();
    Ok(values)
}

/// The number of the one value that all threads have.
fn all_threads_say(instance: &Instance, unit: &str, key: &str) -> Result<u64> {
    let values = threads_say(instance, unit, key)?;
    let [only] = &values[..] else {
        anyhow::bail!("{key} of the threads of {unit}: {values:?}")
    };
    u64::from_str_radix(only, 16).with_context(|| format!("{key} is {only:?}"))
}
