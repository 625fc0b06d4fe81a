//! An agent that starts before anything was written for its machine: it waits, verifies meanwhile, and enrols when the
//! token comes, as what the configuration says by then.

use std::fs;

use crate::instance::{AGENT, Instance};
use crate::loopback::{Loopback, eventually};

#[test]
fn an_agent_without_a_token_waits_verifies_and_enrols_when_it_comes() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let token = fs::read_to_string(instance.path("token")).unwrap();
    fs::remove_file(instance.path("token")).unwrap();
    fs::write(instance.path("root/etc/motd"), "tampered\n").unwrap();
    let running = instance.start();
    let status = eventually("the first scan", || {
        let status = instance.try_status()?;
        (status["open_drifts"] == 1).then_some(status)
    });
    let place = instance.path("token").display().to_string();
    assert_eq!(status["waiting_for_token"], place.as_str());
    assert!(instance.shown_status().contains(&format!(
        "not enrolled: waiting for a join token at {place}"
    )));
    let waits = instance.log().matches("waiting for a join token").count();
    assert_eq!(waits, 1, "it says so once");

    fs::write(instance.path("token"), token).unwrap();
    let report = collector.wait_for("a report", |world| {
        world.reports.first().map(|(report, _)| report.clone())
    });
    assert_eq!(report.opened.len(), 1, "what it saw while it waited");
    assert!(instance.status()["waiting_for_token"].is_null());
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn configuration_that_comes_before_the_token_holds() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let written = fs::read_to_string(instance.path("agent.toml")).unwrap();
    let token = fs::read_to_string(instance.path("token")).unwrap();
    fs::remove_file(instance.path("token")).unwrap();
    let running = instance.start();
    eventually("the agent to wait", || {
        instance.log().contains("waiting for").then_some(())
    });

    // Half written: nothing is enrolled with it, and the agent runs on.
    let half = written.replace("[enroll]\n", "[enroll]\nfleet = \"w");
    fs::write(instance.path("agent.toml"), half).unwrap();
    fs::write(instance.path("token"), &token).unwrap();
    let status = eventually("the refusal to be told", || {
        let status = instance.try_status()?;
        status["collector_trouble"].is_string().then_some(status)
    });
    let trouble = status["collector_trouble"].as_str().unwrap();
    assert!(trouble.contains("agent.toml"), "{trouble}");
    assert!(collector.world.lock().unwrap().enrol_requests.is_empty());

    let whole = written.replace("[enroll]\n", "[enroll]\nfleet = \"web\"\n");
    fs::write(instance.path("agent.toml"), whole).unwrap();
    collector.wait_for("a report", |world| world.reports.first().map(drop));
    let asked = collector.world.lock().unwrap().enrol_requests[0].clone();
    assert_eq!(asked.fleet.as_deref(), Some("web"));
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_token_of_another_fleet_gives_no_identity() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let written = fs::read_to_string(instance.path("agent.toml")).unwrap();
    let other = written.replace("[enroll]\n", "[enroll]\nfleet = \"db\"\n");
    fs::write(instance.path("agent.toml"), other).unwrap();
    let running = instance.start();
    let status = eventually("the refusal to be told", || {
        let status = instance.try_status()?;
        status["collector_trouble"].is_string().then_some(status)
    });
    let trouble = status["collector_trouble"].as_str().unwrap();
    assert!(
        trouble.contains("fleet db") && trouble.contains("web"),
        "{trouble}"
    );
    assert!(!instance.path("state/identity/instance.json").exists());
    assert_eq!(running.stop(), Some(0));

    let home = instance.path("state");
    let by_hand = std::process::Command::new(AGENT)
        .arg("enroll")
        .arg("--config")
        .arg(instance.path("agent.toml"))
        .output()
        .unwrap();
    assert_eq!(by_hand.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("fleet db"));
    let by_hand = std::process::Command::new(AGENT)
        .args(["enroll", "--fleet", "web", "--config"])
        .arg(instance.path("agent.toml"))
        .output()
        .unwrap();
    assert!(by_hand.status.success(), "{by_hand:?}");
    assert!(
        home.join("identity/instance.json").exists(),
        "where the configuration says"
    );
}

#[test]
fn an_old_token_does_not_disturb_an_enrolled_agent() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();
    collector.wait_for("a report", |world| world.reports.first().map(drop));
    fs::write(instance.path("token"), "dmjt1.not-a-token").unwrap();
    fs::write(instance.path("agent.toml"), "not a configuration").unwrap();
    fs::write(instance.path("root/etc/motd"), "tampered\n").unwrap();
    collector.wait_for("the drift", |world| {
        let drifted = world
            .reports
            .iter()
            .find(|(report, _)| !report.opened.is_empty());
        drifted.map(drop)
    });
    let status = instance.status();
    assert!(status["collector_trouble"].is_null(), "{status}");
    assert_eq!(collector.world.lock().unwrap().enrol_requests.len(), 1);
    assert_eq!(running.stop(), Some(0));
}
