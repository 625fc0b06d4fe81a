//! A full scan of the daemon that takes its time: quick ones go on beside it, and tell what they find long before it ends.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use serde_json::Value;

use crate::ground::Ground;

/// The full scan takes half of it, on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(120);
/// Each change is made in one go: half a file would be another drift. Read at [`SLOW`], this takes half a minute; a quick scan has to end within its interval and does not wait for that.
const LONG: &str = "head -c 30000000 /dev/urandom > keep/long; mv keep/long tree/usr; sync";
const SLOW: &str = "full-interval = \"1s\"\nquick-interval = \"1s\"\ndisk-interval = \"off\"\nmax-bytes-per-second = 1000000";

#[test]
fn a_quick_scan_finds_drift_long_before_the_full_scan_ends_that_goes_on_and_nothing_is_closed_and_opened_again()
-> Result<()> {
    if !possible("quick scans beside a full one") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    let tree = "mkdir -p tree/etc tree/usr; cd tree; seq 9 > etc/before; seq 9 > etc/behind; seq 9 > etc/fine; sync";
    ground.shell("", tree)?;
    ground.bake_well("tree", "baked", None)?;
    let agent = ground.daemon("tree", "baked", SLOW)?;
    let ended = |pass: &str| {
        let words = format!("scan ended pass={pass}");
        agent.output().matches(&words).count()
    };
    let open = |number: u64| {
        let is_so = || {
            let status = ground.status()?;
            Ok((status["open_drifts"] == number).then_some(status))
        };
        until(&format!("{number} open drifts"), SOON, is_so).with_context(|| agent.output())
    };
    until("a first scan", SOON, || {
        Ok((ended("Full") > 0).then_some(()))
    })
    .with_context(|| agent.output())?;
    // Not in the image: an open drift from now on, and what the full scans take their time for.
    ground.shell("", LONG)?;
    open(1)?;
    let slow = until("a full scan that takes its time", SOON, || {
        let (full, quick) = (ended("Full"), ended("Quick"));
        let more = until("two quick scans", SOON, || {
            Ok((ended("Quick") >= quick + 2).then_some(ended("Full")))
        })?;
        Ok((more == full).then_some(full))
    })
    .with_context(|| agent.output())?;
    // What the full scan has come by, in the order of paths, and what it has not are found alike.
    ground.shell("", "echo x > keep/behind; mv keep/behind tree/etc")?;
    open(2)?;
    ground.shell(
        "",
        "echo x > keep/new; mv keep/new tree/usr; mv tree/etc/before tree/usr/after",
    )?;
    open(5)?;
    ensure!(
        ended("Full") == slow,
        "none of them by a full scan: {}",
        agent.output()
    );
    let is_open = |status: &Value| status["open_drifts"] == 5;
    until(
        "the end of that full scan, and two quick ones",
        SOON,
        || {
            let status = ground.status()?;
            ensure!(is_open(&status), "{status:#}\n{}", agent.output());
            Ok((ended("Full") > slow).then_some(()))
        },
    )
    .with_context(|| agent.output())?;
    let quick = ended("Quick");
    until("two quick scans more", SOON, || {
        let status = ground.status()?;
        ensure!(is_open(&status), "{status:#}\n{}", agent.output());
        Ok((ended("Quick") >= quick + 2).then_some(()))
    })
    .with_context(|| agent.output())?;
    // Every report, as it waits for a collector that there is not. A list that is empty is not in it.
    let mut reports = String::new();
    for entry in fs::read_dir(ground.outside("daemon/spool")).context("list the spool")? {
        let bytes = fs::read(entry?.path()).context("read a segment")?;
        reports.push_str(&String::from_utf8_lossy(&bytes));
    }
    let told = |list: &str| reports.matches(&format!("\"{list}\":[")).count();
    ensure!(told("opened") >= 3, "reports of what was found: {reports}");
    ensure!(told("closed") == 0, "a state was closed: {reports}");
    Ok(())
}
