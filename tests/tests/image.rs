//! An image with the agent in it, booted: what a clean boot changes, the distribution's rules allow.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use drift::rules::{RuleFile, Rules};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{InstanceOptions, Lab, Program, Recipe, Workshop};

#[test]
fn a_booted_instance_is_clean_until_it_is_intruded_upon() -> Result<()> {
    if !possible("checking a booted instance") {
        return Ok(());
    }
    let workshop = Workshop::open()?;
    let agent = Program::Agent.path()?;
    let keys = workshop.keys(&agent)?;
    let image = Recipe::new("clean", "1").build(&workshop, &agent, &keys)?;
    let lab = Lab::new()?;
    let instance = lab.boot(&image, "one", &InstanceOptions::default())?;
    assert_eq!(
        instance.exec("systemctl is-active driftmark-agent")?.trim(),
        "active"
    );
    let settled = until("a clean boot", Duration::from_secs(20), || {
        Ok(instance
            .exec("systemctl is-system-running")?
            .contains("running")
            .then_some(()))
    });
    settled?;
    let check = instance.try_exec("driftmark-agent check --json")?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(
        check.status.code(),
        Some(0),
        "{said}\n{}",
        String::from_utf8_lossy(&check.stderr)
    );

    for intrusion in Intrusion::ALL {
        intrusion.plant(&instance)?;
    }
    let check = instance.try_exec("driftmark-agent check --json")?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{said}");
    for intrusion in Intrusion::ALL {
        let line = said
            .lines()
            .find(|line| line.contains(&format!("\"path\":\"{}\"", intrusion.path())));
        let line = line.unwrap_or_else(|| panic!("no drift of {} in\n{said}", intrusion.path()));
        assert!(
            line.contains(&format!("\"kind\":\"{}\"", intrusion.kind())),
            "{line}"
        );
    }
    instance.terminate()
}

#[test]
fn a_server_with_the_usual_daemons_boots_clean() -> Result<()> {
    if !possible("checking a booted server") {
        return Ok(());
    }
    let workshop = Workshop::open()?;
    let agent = Program::Agent.path()?;
    let keys = workshop.keys(&agent)?;
    let packages = ["openssh-server", "cron", "rsyslog", "logrotate"];
    let recipe = packages
        .iter()
        .fold(Recipe::new("server", "1"), |recipe, package| {
            recipe.package(package)
        });
    let image = recipe.build(&workshop, &agent, &keys)?;
    let lab = Lab::new()?;
    let token = Some("no collector made this".to_owned());
    let options = InstanceOptions {
        token,
        cloud_id: Some("i-1".to_owned()),
        ..InstanceOptions::default()
    };
    let instance = lab.boot(&image, "server", &options)?;
    // Both at every boot, in place of a day's timers.
    instance.exec("systemctl start logrotate.service systemd-tmpfiles-clean.service; ldconfig")?;
    let credentials = instance.exec("ls /run/credentials/driftmark-agent.service")?;
    assert_eq!(
        credentials.split_whitespace().collect::<Vec<_>>(),
        ["driftmark.cloud-id", "driftmark.token"]
    );
    let check = instance.try_exec("driftmark-agent check --json")?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(
        check.status.code(),
        Some(0),
        "{said}\n{}\n{}",
        String::from_utf8_lossy(&check.stderr),
        instance.journal("driftmark-agent")?
    );
    instance.terminate()
}

#[test]
fn shipped_rules_leave_each_other_something_to_say() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rules.d");
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let file = RuleFile::parse(&path.display().to_string(), &fs::read_to_string(&path)?)?;
        ensure!(
            file.rules.iter().all(|rule| rule.reason.is_some()),
            "{} has a rule without a reason",
            path.display()
        );
        Rules::build(vec![], vec![file])?;
    }
    Ok(())
}
