//! One instance with a hundred thousand drifts: told in parts, counted to the last one, and closed again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drift::finding::{Drift, set_digest};
use driftmark_tests::patience::until;
use driftmark_tests::process::finish;
use driftmark_tests::{Collector, CollectorOptions, Program, Tree};
use serde_json::Value;

use crate::OBSERVED_FLEETS;

const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 1_000;
/// The files, the directories that they are in, and the directory of those.
const DRIFTS: usize = DIRECTORIES * FILES_EACH + DIRECTORIES + 1;
/// The most drifts that the collector keeps whole.
const ROWS: usize = 10_000;
/// A build without optimisation on two busy cores.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn an_instance_with_a_hundred_thousand_drifts_is_told_whole_and_becomes_clean_again() -> Result<()>
{
    let configuration = "heartbeat = \"5s\"\n".to_owned();
    let options = CollectorOptions {
        fleets: OBSERVED_FLEETS.to_owned(),
        configuration,
        ..CollectorOptions::default()
    };
    let collector = Collector::here(options)?;
    let mut tree = Tree::new("web", "1")?;
    tree.register(&collector)?;
    tree.give_token(&collector.join_token("web", Some("vm-1"))?)?;
    tree.start("[scan]\nquick-interval = \"1s\"\n")?;
    wait_for(&collector, "clean", 0)?;
    println!("clean: {} KiB of memory at most", tree.peak_memory_kib()?);

    let many = tree.root().join("srv");
    make_files(&many)?;
    let began = Instant::now();
    tree.wait_for("everything is found", LIMIT, |status| {
        status["open_drifts"] == DRIFTS
    })?;
    let found = began.elapsed();
    let shown = wait_for(&collector, "drifted", DRIFTS)?;
    println!(
        "{DRIFTS} drifts: found after {found:?}, held after {:?}",
        began.elapsed()
    );
    println!("{} KiB of memory at most", tree.peak_memory_kib()?);
    assert_eq!(
        shown["set_digest"],
        digest_by_check(&tree)?,
        "the very drifts that `check` finds"
    );
    let whole = collector.database("SELECT count(*), count(drift) FROM drifts")?;
    assert_eq!(
        whole,
        [format!("{DRIFTS}|{ROWS}")],
        "every id, and the gravest as a whole"
    );
    tree.wait_for("nothing waits", LIMIT, |status| {
        status["waiting_reports"] == 0
    })?;

    fs::remove_dir_all(&many).context("remove the files")?;
    let began = Instant::now();
    wait_for(&collector, "clean", 0)?;
    println!(
        "clean again after {:?}; {} KiB of memory at most",
        began.elapsed(),
        tree.peak_memory_kib()?
    );
    assert_eq!(collector.database("SELECT count(*) FROM drifts")?, ["0"]);
    assert_eq!(tree.status()?["open_drifts"], 0);
    Ok(())
}

fn make_files(many: &Path) -> Result<()> {
    for directory in 0..DIRECTORIES {
        let directory = many.join(format!("{directory:03}"));
        fs::create_dir_all(&directory).context("make a directory")?;
        for file in 0..FILES_EACH {
            fs::write(directory.join(format!("{file:04}")), b"").context("make a file")?;
        }
    }
    Ok(())
}

/// Waits until the one instance is in this state with so much open; gives it.
fn wait_for(collector: &Collector, state: &str, open: usize) -> Result<Value> {
    let mut last = Value::Null;
    let waited = until(
        &format!("an instance that is {state} with {open} open"),
        LIMIT,
        || {
            last = collector.json(["instance", "list"])?[0].clone();
            Ok((last["state"] == state && last["open"] == open).then_some(()))
        },
    );
    waited.with_context(|| {
        format!(
            "the last row: {last}\nthe collector:\n{}",
            collector.output()
        )
    })?;
    collector.json([
        "instance",
        "show",
        last["id"].as_str().context("an instance has an id")?,
        "--limit",
        "1",
    ])
}

/// The digest of the state set, as another program finds it.
fn digest_by_check(tree: &Tree) -> Result<String> {
    let mut check = Command::new(Program::Agent.path()?);
    check
        .arg("check")
        .arg("--json")
        .arg("--root")
        .arg(tree.root())
        .arg("--manifest")
        .arg(tree.manifest());
    check.arg("--trust").arg(tree.public_key());
    check
        .arg("--state")
        .arg(tree.state().with_file_name("checked"));
    let output = finish(&mut check)?;
    ensure!(
        output.status.code() == Some(1),
        "check found drift: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).context("read what check says")?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("{\"summary\""));
    let ids = lines.map(|line| {
        Ok(serde_json::from_str::<Drift>(line)
            .with_context(|| format!("read {line}"))?
            .id())
    });
    let mut ids = ids.collect::<Result<Vec<_>>>()?;
    ids.sort();
    Ok(set_digest(ids).to_string())
}
