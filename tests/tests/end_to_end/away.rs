//! The collector is away: an agent that has never met it works all the same, and one that has keeps its place.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::{Collector, CollectorOptions, Tree};
use serde_json::Value;

use crate::{LIMIT, OBSERVED_FLEETS};

const QUICK: &str = "[scan]\nquick-interval = \"1s\"\n";

fn collector(configuration: &str) -> Result<Collector> {
    let (fleets, configuration) = (OBSERVED_FLEETS.to_owned(), configuration.to_owned());
    Collector::here(CollectorOptions {
        fleets,
        configuration,
        ..CollectorOptions::default()
    })
}

fn only(collector: &Collector) -> Result<Value> {
    Ok(collector.json(["instance", "list"])?[0].clone())
}

#[test]
fn an_agent_that_starts_before_its_collector_enrols_later_and_has_lost_nothing() -> Result<()> {
    let collector = collector("heartbeat = \"1s\"\n")?;
    let mut tree = Tree::new("web", "1")?;
    tree.register(&collector)?;
    tree.give_token(&collector.join_token("web", Some("vm-1"))?)?;
    collector.kill_hard()?;

    tree.write("usr/bin/first", "before the agent\n")?;
    tree.start(QUICK)?;
    tree.wait_for("the first drift waits", LIMIT, |status| {
        status["open_drifts"] == 1
            && status["waiting_reports"] != 0
            && status["collector_trouble"].is_string()
    })?;
    tree.write("usr/bin/second", "while the collector is away\n")?;
    let status = tree.wait_for("the second is found", LIMIT, |status| {
        status["open_drifts"] == 2
    })?;
    ensure!(
        status["instance"].is_null() && status["healthy"] == true,
        "{status}"
    );
    // Killed too: what waits is on disk.
    tree.agent()?.kill_hard()?;
    tree.start(QUICK)?;
    tree.wait_for("both are found again", LIMIT, |status| {
        status["open_drifts"] == 2
    })?;

    collector.start()?;
    let mut last = Value::Null;
    let waited = until("both drifts at the collector", LIMIT, || {
        last = only(&collector)?;
        Ok((last["state"] == "drifted" && last["open"] == 2).then_some(()))
    });
    waited.with_context(|| format!("the last row: {last}"))?;
    let status = tree.wait_for("nothing waits", LIMIT, |status| {
        status["waiting_reports"] == 0 && status["collector_trouble"].is_null()
    })?;
    assert_eq!(status["instance"], last["id"]);
    assert_eq!(
        (last["proven"].clone(), last["cloud_id"].clone()),
        (true.into(), "vm-1".into())
    );
    let runs = collector.database("SELECT count(DISTINCT run) FROM runs")?;
    assert_eq!(runs, ["2"], "the run that was killed is told of too");
    Ok(())
}

#[test]
fn an_agent_renews_its_certificate_while_it_runs_whatever_becomes_of_the_collector() -> Result<()> {
    let collector = collector("heartbeat = \"1s\"\ncertificate-life = \"12s\"\n")?;
    let mut tree = Tree::new("web", "1")?;
    tree.register(&collector)?;
    tree.give_token(&collector.join_token("web", Some("vm-1"))?)?;
    tree.start(QUICK)?;
    until("a clean instance", LIMIT, || {
        Ok((only(&collector)?["state"] == "clean").then_some(()))
    })?;
    let id = only(&collector)?["id"]
        .as_str()
        .context("an instance has an id")?
        .to_owned();
    let show = || collector.json(["instance", "show", &id]);
    let before = show()?;

    let mut certificates = BTreeSet::from([before["certificate_until_ms"].as_i64()]);
    let began = Instant::now();
    while certificates.len() < 4 {
        ensure!(
            began.elapsed() < LIMIT,
            "certificates until {certificates:?}; the agent: {}",
            tree.agent()?.output()
        );
        pause(Duration::from_millis(100));
        let shown = show()?;
        if certificates.insert(shown["certificate_until_ms"].as_i64()) && certificates.len() == 3 {
            collector.kill_hard()?;
            pause(Duration::from_secs(2));
            collector.start()?;
        }
    }
    println!("three renewals in {:?}", began.elapsed());
    // Past the life of the first certificates it is still the same agent, and welcome.
    tree.write("etc/motd", "changed\n")?;
    until("a drift by the new certificate", LIMIT, || {
        Ok((only(&collector)?["state"] == "drifted").then_some(()))
    })?;
    let after = show()?;
    assert_eq!(after["run"], before["run"], "it was never restarted");
    assert_eq!(
        collector
            .json(["instance", "list"])?
            .as_array()
            .map(Vec::len),
        Some(1),
        "it is no new instance"
    );
    ensure!(
        tree.status()?["collector_trouble"].is_null(),
        "{}",
        tree.status()?
    );
    Ok(())
}
