//! The sweep of the disk: what was written beneath the file system is found while every process still sees what the
//! page cache has.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::patience::{pause, until};
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass};
use crate::mutations::SETTLED;

/// Files of all lengths that could be read wrongly around the cache: an end in the middle of a block and of a sector, none
/// at all, a hole, one byte, two names, and one so long that all threads hash it together.
const TREE: &str = r#"mkdir tree; cd tree
    seq 20000 > library; seq 20000 > twin; ln twin other; head -c 4097 library > odd; head -c 262144 library > step
    printf x > tiny; : > empty; truncate -s 3000001 sparse; printf end >> sparse
    yes library | head -c 20000007 > long; sync"#;

/// Where the raw writes go: a file, an offset within its first block and one in its last.
const WRITES: [(&str, u64, &[&str]); 5] = [
    ("library", 4096, &["changed /library content"]),
    ("odd", 4096, &["changed /odd content"]),
    ("sparse", 3_000_001, &["changed /sparse content"]),
    (
        "twin",
        70_000,
        &["changed /other content", "changed /twin content"],
    ),
    ("long", 9_500_000, &["changed /long content"]),
];

#[test]
fn a_raw_write_under_a_cached_file_of_ext4_is_found_by_a_sweep_of_the_disk_alone() -> Result<()> {
    sweep(FileSystem::Ext4, 96)
}

#[test]
fn a_raw_write_under_a_cached_file_of_xfs_is_found_by_a_sweep_of_the_disk_alone() -> Result<()> {
    sweep(FileSystem::Xfs, 400)
}

fn sweep(file_system: FileSystem, mebibytes: u64) -> Result<()> {
    if !possible("a sweep of the disk") {
        return Ok(());
    }
    let ground = Ground::new(file_system, mebibytes)?;
    ground.shell("", TREE)?;
    ground.bake_well("tree", "baked", None)?;
    pause(SETTLED);
    ground.remember("tree", "baked")?;
    let check = |pass| ground.check("tree", "baked", pass);
    let clean = check(Pass::Disk)?;
    clean.is(&[], &[])?;
    ensure!(
        clean.summary["coverage"]["disk"]["entries"] == 10,
        "{}",
        clean.summary
    );
    ensure!(
        clean.summary["coverage"]["disk"]["cached"].is_null(),
        "every file was read around the cache: {}",
        clean.summary
    );
    for (name, offset, drifts) in WRITES {
        let path = format!("tree/{name}");
        // Whoever uses the file has it in the cache.
        let content = fs::read(ground.root().join(&path)).context("read the file")?;
        let at = usize::try_from(offset).context("an offset")?;
        ground.fs().raw_write(&path, offset, b"#")?;
        for pass in [Pass::Full, Pass::Quick] {
            let told = check(pass)?.is(&[], &[]);
            told.with_context(|| format!("{name}: processes see what the image has"))?;
        }
        for _ in 0..2 {
            let swept = check(Pass::Disk)?;
            swept.is(drifts, &[]).with_context(|| name.to_owned())?;
            ensure!(
                swept.lines[0]["detail"] == drift::finding::Drift::ON_DISK_ALONE,
                "{:?}",
                swept.lines
            );
        }
        ground.fs().raw_write(&path, offset, &content[at..=at])?;
        let again = check(Pass::Disk)?.is(&[], &[]);
        again.with_context(|| format!("{name}: the disk is as it was"))?;
    }
    Ok(())
}

#[test]
fn what_the_cache_has_dropped_is_drift_for_everyone_and_no_longer_the_disks_alone() -> Result<()> {
    if !possible("a sweep of the disk") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    ground.shell("", "mkdir tree; cd tree; seq 20000 > library; sync")?;
    ground.bake_well("tree", "baked", None)?;
    ground.fs().raw_write("tree/library", 4096, b"#")?;
    ground.fs().drop_caches("tree/library")?;
    for pass in [Pass::Full, Pass::Disk] {
        let checked = ground.check("tree", "baked", pass)?;
        checked.is(&["changed /library content"], &[])?;
        ensure!(checked.lines[0].get("detail").is_none(), "{checked:?}");
    }
    Ok(())
}

#[test]
fn what_no_file_system_lets_be_read_around_the_cache_is_counted_and_no_verdict_is_clean()
-> Result<()> {
    if !possible("a file system without direct reads") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    // Tiny files lie in their inodes here: ext4 takes the flag, and reads them through the cache all the same.
    ground.shell(
        "",
        r#"mkdir tree; truncate -s 16M "${WORK}inline"; mkfs.ext4 -q -F -I 256 -O inline_data "${WORK}inline"
        mount -o loop "${WORK}inline" tree; cd tree; rmdir lost+found; printf x > tiny; seq 20000 > library; sync"#,
    )?;
    ground.bake_well("tree", "baked", None)?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])?;
    let swept = ground.check("tree", "baked", Pass::Disk)?;
    ensure!(swept.drifts.is_empty() && swept.code == 2, "{swept:?}");
    let coverage = &swept.summary["coverage"];
    ensure!(coverage["disk"]["cached"] == 1, "the tiny one: {coverage}");
    ensure!(
        coverage["limits"]
            .to_string()
            .contains("1 files through the page cache"),
        "and it is told: {coverage}"
    );
    // Such content is still compared, as processes see it.
    ground.shell("tree", "poke tiny 0 y")?;
    let changed = ground.check("tree", "baked", Pass::Disk)?;
    changed.is(&["changed /tiny content"], &[])
}

/// Everything here is done in milliseconds, and sweeps come each second.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn what_a_sweep_of_the_daemon_finds_stays_open_over_all_other_scans_until_a_sweep_finds_it_gone()
-> Result<()> {
    if !possible("a sweep of the disk by the daemon") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    ground.shell("", "mkdir tree; cd tree; seq 20000 > library; sync")?;
    ground.bake_well("tree", "baked", None)?;
    let agent = ground.daemon(
        "tree",
        "baked",
        "full-interval = \"3s\"\nquick-interval = \"1s\"\ndisk-interval = \"2s\"",
    )?;
    let wait = |what: &str, is_so: &dyn Fn(&serde_json::Value) -> bool| {
        let status = until(what, SOON, || {
            let status = ground.status()?;
            Ok(is_so(&status).then_some(status))
        });
        status.with_context(|| agent.output())
    };
    let open = |number: u64| move |status: &serde_json::Value| status["open_drifts"] == number;
    let clean = wait("a first sweep", &|status| {
        status["coverage"]["disk"].is_object()
    })?;
    ensure!(clean["open_drifts"] == 0, "{clean:#}");
    let disk = &clean["coverage"]["disk"];
    ensure!(
        disk["entries"] == 2 && disk["ceiling_seconds"] == 2 + 2 * 1800,
        "how old it may get is said: {disk:#}"
    );
    let content = fs::read(ground.root().join("tree/library")).context("read the file")?;
    ground.fs().raw_write("tree/library", 4096, b"#")?;
    wait("a sweep that finds it", &open(1))?;
    let logged = |words: &str| agent.output().matches(words).count();
    let passes =
        || ["Full", "Quick", "Disk"].map(|pass| logged(&format!("scan ended pass={pass}")));
    let before = passes();
    until("two more scans of each kind", SOON, || {
        let status = ground.status()?;
        ensure!(
            status["open_drifts"] == 1,
            "it is not closed: {status:#}\n{}",
            agent.output()
        );
        let more = passes()
            .iter()
            .zip(before)
            .all(|(now, then)| *now >= then + 2);
        Ok(more.then_some(()))
    })
    .with_context(|| agent.output())?;
    ground
        .fs()
        .raw_write("tree/library", 4096, &content[4096..=4096])?;
    wait("a sweep that finds it gone", &open(0)).map(drop)
}
