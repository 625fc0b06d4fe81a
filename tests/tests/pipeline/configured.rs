//! One image, every fleet: what a machine is told by cloud-init, by credentials and on its kernel command line.

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::process::Program;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Image, InstanceOptions, Recipe, Workshop};

use crate::world::{LIMIT, World, scripts};

fn world_of(recipe: &Recipe) -> Result<(Image, World)> {
    let workshop = Workshop::open()?;
    let agent = Program::Agent.path()?;
    let keys = workshop.keys(&agent)?;
    let image = recipe.build(&workshop, &agent, &keys)?;
    let world = World::of(&image, &keys.public)?;
    Ok((image, world))
}

#[test]
fn cloud_init_tells_a_machine_its_fleet_its_name_and_its_token() -> Result<()> {
    if !possible("booting with cloud-init") {
        return Ok(());
    }
    let immutable = fs::read(scripts().join("cloud-init/99-immutable.cfg"))?;
    let recipe = Recipe::new("web", "1")
        .package("cloud-init")
        .file("/etc/cloud/cloud.cfg.d/99-immutable.cfg", 0o644, immutable)
        // The only one that this image has.
        .file(
            "/etc/cloud/cloud.cfg.d/98-locale.cfg",
            0o644,
            "locale: C.UTF-8\n",
        );
    let (image, world) = world_of(&recipe)?;
    let token = world.collector.join_token("web", None)?;
    let example = fs::read_to_string(scripts().join("cloud-init/user-data"))?;
    ensure!(
        example.contains("TOKEN\\n"),
        "the example has a place for the token"
    );
    let options = InstanceOptions {
        seed: vec![
            (
                "meta-data".to_owned(),
                "instance-id: i-0abc123\n".to_owned(),
            ),
            ("user-data".to_owned(), example.replace("TOKEN", &token)),
        ],
        ..InstanceOptions::default()
    };
    let instance = world.lab.boot(&image, "web-1", &options)?;
    let shown = world.clean(&instance)?;
    assert_eq!(shown["fleet"], "web");
    assert_eq!(shown["cloud_id"], "i-0abc123");
    let status = instance
        .exec("cloud-init status --wait --long || journalctl --no-pager -u 'cloud-*' | tail -40")?;
    // `--wait` draws a dot a look before it.
    let is_done = status
        .lines()
        .any(|line| line.trim_start_matches('.') == "status: done");
    ensure!(is_done && !status.contains("degraded"), "{status}");
    let checked = instance.exec("driftmark-agent check-config")?;
    assert!(
        checked.contains("enroll.fleet = web  # /run/driftmark/agent.d/50-fleet.toml"),
        "{checked}"
    );
    instance.terminate()
}

#[test]
fn the_command_line_and_a_credential_say_the_fleet_and_the_credential_has_the_last_word()
-> Result<()> {
    if !possible("booting with a command line") {
        return Ok(());
    }
    let (image, world) = world_of(&Recipe::new("web", "1"))?;
    let token = world.collector.join_token("db", None)?;
    let mut options = InstanceOptions {
        command_line: vec![
            "driftmark.fleet=web".to_owned(),
            format!("driftmark.collector=https://{}", world.collector.agents()),
        ],
        token: Some(token),
        ..InstanceOptions::default()
    };
    let told = world.lab.boot(&image, "told", &options)?;
    let status = until("a refused fleet", LIMIT, || {
        let status = told.exec("driftmark-agent status --json || echo '{}'")?;
        let status: serde_json::Value = serde_json::from_str(&status).context("a status")?;
        Ok(status["collector_trouble"].as_str().map(str::to_owned))
    })?;
    assert!(
        status.contains("web"),
        "a token of another fleet is refused: {status}"
    );
    let checked = told.exec("driftmark-agent check-config")?;
    for line in [
        "enroll.fleet = web  # kernel command line",
        "collector.url = https://10.77.0.1:8443  # kernel command line",
    ] {
        assert!(checked.contains(line), "{checked}");
    }
    told.terminate()?;

    options.credentials = vec![(
        "driftmark.config".to_owned(),
        "[enroll]\nfleet = \"db\"\n".to_owned(),
    )];
    let told = world.lab.boot(&image, "told-better", &options)?;
    assert_eq!(world.clean(&told)?["fleet"], "db");
    let checked = told.exec("driftmark-agent check-config")?;
    assert!(
        checked.contains(
            "enroll.fleet = db  # /run/credentials/driftmark-agent.service/driftmark.config"
        ),
        "{checked}"
    );
    told.terminate()
}

#[test]
fn a_machine_that_was_told_nothing_waits_and_enrols_when_somebody_writes_the_token() -> Result<()> {
    if !possible("booting without a token") {
        return Ok(());
    }
    let (image, world) = world_of(&Recipe::new("web", "1"))?;
    let instance = world
        .lab
        .boot(&image, "late", &InstanceOptions::default())?;
    let status = until("the agent to wait", LIMIT, || {
        let status = instance.exec("driftmark-agent status || true")?;
        Ok(status.contains("entries in").then_some(status))
    })?;
    assert!(
        status.contains(
            "not enrolled: waiting for a join token at \
             /run/credentials/driftmark-agent.service/driftmark.token or /run/driftmark/token\n"
        ),
        "it verified meanwhile, and says:\n{status}"
    );
    instance.exec("mkdir -p /run/driftmark/agent.d; printf '[enroll]\\nfleet = \"web\"\\n' > /run/driftmark/agent.d/50-fleet.toml")?;
    let token = world.collector.join_token("web", None)?;
    instance.exec(&format!("(umask 077; echo {token} > /run/driftmark/token)"))?;
    world.clean(&instance)?;
    let journal = instance.journal("driftmark-agent")?;
    assert_eq!(
        journal.matches("not enrolled: waiting").count(),
        1,
        "{journal}"
    );
    instance.exec("echo an-old-token > /run/driftmark/token; systemctl restart driftmark-agent")?;
    world.clean(&instance)?;
    instance.terminate()
}

#[test]
fn a_token_on_the_command_line_is_refused_with_78_and_never_shown() -> Result<()> {
    if !possible("booting with a secret on the command line") {
        return Ok(());
    }
    let (image, world) = world_of(&Recipe::new("web", "1"))?;
    let options = InstanceOptions {
        command_line: vec!["driftmark.token=dmjt1.SECRET".to_owned()],
        ..InstanceOptions::default()
    };
    let instance = world.lab.boot(&image, "careless", &options)?;
    until("the agent to give up", LIMIT, || {
        let state =
            instance.try_exec("systemctl show --property=ExecMainStatus driftmark-agent")?;
        Ok(String::from_utf8_lossy(&state.stdout)
            .contains("=78")
            .then_some(()))
    })?;
    let checked = instance.try_exec("driftmark-agent check-config 2>&1")?;
    assert_eq!(checked.status.code(), Some(78));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        instance.journal("driftmark-agent")?
    );
    assert!(
        said.contains("everyone can read it") && said.contains("revoke"),
        "{said}"
    );
    assert!(!said.contains("SECRET"), "{said}");
    instance.terminate()
}
