//! Receives an image with too few rules; tells how a pipeline boots it, learns what a first boot changes, and bakes again.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::process::finish;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Image, Instance, InstanceOptions, Lab, Program, Recipe, Workshop};
use serde_json::Value;

/// What an application does on its first boot, and one thing that it should not.
const FIRST_BOOT: &str = "#!/bin/sh
set -e
id=$(cat /proc/sys/kernel/random/uuid)
[ -e /etc/app/id ] || echo \"$id\" > /etc/app/id
mkdir -p /var/lib/app/$id
echo begun > /var/lib/app/$id/state
echo begun >> /srv/app.log
rm -f /etc/app/installer
";
const UNIT: &str = "[Unit]
Description=An application with a first boot
ConditionPathExists=!/etc/app/id
[Service]
Type=oneshot
ExecStart=/usr/lib/app/first-boot
[Install]
WantedBy=multi-user.target
";

fn recipe() -> Recipe {
    Recipe::new("learning", "1")
        .file("/usr/lib/app/first-boot", 0o755, FIRST_BOOT)
        .file("/usr/lib/systemd/system/app.service", 0o644, UNIT)
        .file(
            "/usr/lib/systemd/system/multi-user.target.d/app.conf",
            0o644,
            "[Unit]\nWants=app.service\n",
        )
        .file("/etc/app/installer", 0o644, "only until it ran\n")
        .file("/srv/app.log", 0o644, "baked\n")
}

fn boot(lab: &Lab, image: &Image, name: &str) -> Result<Instance> {
    let instance = lab.boot(image, name, &InstanceOptions::default())?;
    until("a finished boot", Duration::from_secs(30), || {
        let state = instance.try_exec("systemctl is-system-running")?;
        let state = String::from_utf8_lossy(&state.stdout).into_owned();
        Ok((state.contains("running") || state.contains("degraded")).then_some(()))
    })?;
    Ok(instance)
}

fn check(instance: &Instance) -> Result<String> {
    let output = instance.try_exec("driftmark-agent check --json")?;
    String::from_utf8(output.stdout).context("check prints text")
}

fn drifted(check: &str) -> Vec<String> {
    let lines = check
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|line| Some(line["path"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn an_image_with_too_few_rules_is_booted_learned_from_baked_again_and_boots_clean() -> Result<()> {
    if !possible("learning from first boots") {
        return Ok(());
    }
    let workshop = Workshop::open()?;
    let agent = Program::Agent.path()?;
    let keys = workshop.keys(&agent)?;
    let lab = Lab::new()?;
    let image = recipe().build(&workshop, &agent, &keys)?;
    let place = tempfile::tempdir()?;
    let mut learn = Command::new(&agent);
    learn.arg("learn");
    for name in ["boot1", "boot2"] {
        let instance = boot(&lab, &image, name)?;
        let mut seen = check(&instance)?;
        ensure!(!drifted(&seen).is_empty(), "there is something to learn");
        // Later on the same instance: the log has grown.
        instance.exec("echo again >> /srv/app.log")?;
        seen += &check(&instance)?;
        let file = place.path().join(name);
        std::fs::write(&file, seen)?;
        learn.arg(&file);
        instance.terminate()?;
    }
    let learned = finish(&mut learn)?;
    let text = String::from_utf8(learned.stdout)?;
    ensure!(
        learned.status.code() == Some(0),
        "{text}\n{}",
        String::from_utf8_lossy(&learned.stderr)
    );
    let wide = "/var/lib/app/????????-????-????-????-????????????";
    for rule in [
        "type = \"first-boot\"\npath = \"/etc/app/id\"",
        "type = \"absent\"\npath = \"/etc/app/installer\"",
        "type = \"append-only\"\npath = \"/srv/app.log\"",
        &format!("type = \"first-boot\"\npath = \"{wide}\""),
        &format!("type = \"first-boot\"\npath = \"{wide}/state\""),
    ] {
        ensure!(text.contains(rule), "{rule} is not in\n{text}");
    }
    let again = recipe().rules(&text).build(&workshop, &agent, &keys)?;
    let instance = boot(&lab, &again, "boot3")?;
    let clean = check(&instance)?;
    assert_eq!(drifted(&clean), [] as [&str; 0], "{clean}");

    // Beside what was allowed, and what was never asked.
    instance.exec(
        "echo x > /etc/app/id2; echo x > /var/lib/app/x; echo x > /etc/app/installer; echo x > /srv/app.log",
    )?;
    assert_eq!(
        drifted(&check(&instance)?),
        [
            "/etc/app/id2",
            "/etc/app/installer",
            "/srv/app.log",
            "/var/lib/app/x"
        ]
    );
    // And what no rule is proposed for.
    instance.exec("printf '* * * * * root id\\n' > /etc/cron.d-x; mkdir -p /etc/cron.d; cp /etc/cron.d-x /etc/cron.d/x; cp /usr/bin/id /var/lib/app/tool")?;
    let refused = instance.try_exec("driftmark-agent learn --json")?;
    assert_eq!(refused.status.code(), Some(1));
    let refused: Value = serde_json::from_slice(&refused.stdout)?;
    let refused: Vec<&str> = refused["refused"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect();
    for path in ["/etc/cron.d/x", "/var/lib/app/tool"] {
        ensure!(refused.contains(&path), "{path} is not in {refused:?}");
    }
    instance.terminate()
}
