//! The mutation table: one change at a time, exactly that is reported, and nothing once it is undone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::mutations::{self, Mutation};
use driftmark_tests::patience::pause;
use driftmark_tests::sandbox::possible;

use crate::base;
use crate::ground::{Ground, Pass};

/// A mark of a quick pass is only made for what changed longer ago than this before it was read.
pub(crate) const SETTLED: Duration = Duration::from_millis(40);

/// Each finds what the others find. The last one measures nothing, and reads files with fs-verity through the cache as the
/// first does, which is no clean verdict: there it is left out.
const PASSES: [Pass; 3] = [Pass::Full, Pass::Quick, Pass::Disk];

/// Something that changes without its metadata: a quick pass may not see it, a full one must.
const RAW_OFFSET: u64 = 4096;

#[test]
fn every_mutation_is_reported_exactly_and_nothing_is_once_it_is_undone() -> Result<()> {
    tell_all("the mutation table", &mutations::written())
}

#[test]
fn every_flag_kind_and_odd_name_is_reported_exactly_and_nothing_is_once_it_is_undone() -> Result<()>
{
    tell_all("flags, kinds and odd names", &mutations::made())
}

fn tell_all(story: &str, mutations: &[Mutation]) -> Result<()> {
    if !possible(story) {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    ground.bake_well("tree", "baked", None)?;
    let clean = || ground.check("tree", "baked", Pass::Full)?.is(&[], &[]);
    clean().context("the tree as it was baked")?;
    pause(SETTLED);
    ground.remember("tree", "baked")?;
    let mut wrong = Vec::new();
    for mutation in mutations {
        if let Err(error) = tell(&ground, mutation) {
            wrong.push(format!("{}: {error:#}", mutation.name));
            // What could not be undone would be found again in every row that follows.
            clean().with_context(|| wrong.join("\n"))?;
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} mutations:\n{}",
        wrong.len(),
        mutations.len(),
        wrong.join("\n")
    );
    println!("{story}: {} rows", mutations.len());
    Ok(())
}

fn tell(ground: &Ground, mutation: &Mutation) -> Result<()> {
    let were_files = files(ground, &mutation.drifts);
    ground.shell("tree", &mutation.make).context("make it")?;
    let are_files = files(ground, &mutation.drifts);
    let rows = mutation
        .drifts
        .iter()
        .zip(were_files.iter().zip(&are_files));
    let drifts: Vec<String> = rows
        .map(
            |(drift, (was, is))| match ground.has_verity() && was != is {
                // That a file has fs-verity is one of its flags.
                true => format!("{drift} flags"),
                false => drift.clone(),
            },
        )
        .collect();
    let drifts: Vec<&str> = drifts.iter().map(String::as_str).collect();
    let all_find = |drifts: &[&str], when: &str| {
        let passes = PASSES.into_iter();
        passes
            .filter(|pass| !(ground.has_verity() && *pass == Pass::Disk))
            .try_for_each(|pass| {
                let checked = ground.check("tree", "baked", pass)?;
                let told = checked.is(drifts, &[]);
                told.with_context(|| format!("a {pass:?} check{when}"))
            })
    };
    let told = all_find(&drifts, "");
    ground.shell("tree", &mutation.undo).context("undo it")?;
    let outcome = told.and_then(|()| all_find(&[], " after it was undone"));
    if ground.has_verity() && outcome.is_ok() {
        // A row takes seconds there.
        println!("told: {}", mutation.name);
    }
    outcome
}

/// Which of the changed paths are regular files.
fn files(ground: &Ground, drifts: &[String]) -> Vec<bool> {
    let changed = drifts.iter().map(|drift| {
        let path = drift.strip_prefix("changed /")?.split(' ').next()?;
        let path = ground.root().join("tree").join(path);
        Some(path.symlink_metadata().ok()?.is_file())
    });
    changed.map(|is_file| is_file == Some(true)).collect()
}

#[test]
fn what_was_changed_and_put_back_is_read_again_and_clean() -> Result<()> {
    if !possible("a quick check") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell(
        "",
        "mkdir tree; cd tree; for n in {1..50}; do seq $n > file-$n; done",
    )?;
    ground.bake_well("tree", "baked", None)?;
    pause(SETTLED);
    ground.remember("tree", "baked")?;
    let idle = ground.check("tree", "baked", Pass::Quick)?;
    idle.is(&[], &[])?;
    ensure!(
        idle.summary["rehashed"] == 0,
        "nothing moved: {}",
        idle.summary
    );
    ensure!(
        idle.summary["entries"] == 51,
        "everything is still looked at: {}",
        idle.summary
    );
    ground.shell("tree", "poke file-3 0 9; poke file-3 0 1; chmod 600 file-4; chmod 644 file-4; touch -d 1999-01-01 file-5")?;
    let moved = ground.check("tree", "baked", Pass::Quick)?;
    moved.is(&[], &[])?;
    ensure!(
        moved.summary["rehashed"] == 3,
        "three files moved: {}",
        moved.summary
    );
    pause(SETTLED);
    ground.check("tree", "baked", Pass::Quick)?.is(&[], &[])?;
    let settled = ground.check("tree", "baked", Pass::Quick)?;
    ensure!(
        settled.summary["rehashed"] == 0,
        "they are trusted again: {}",
        settled.summary
    );
    Ok(())
}

#[test]
fn a_write_to_the_disk_behind_the_file_system_is_found_once_the_cache_is_dropped() -> Result<()> {
    if !possible("a raw write") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell(
        "",
        "mkdir tree; cd tree; seq 20000 > library; cp library other; sync",
    )?;
    ground.bake_well("tree", "baked", None)?;
    ground.fs().raw_write("tree/library", RAW_OFFSET, b"#")?;
    ground.fs().drop_caches("tree/library")?;
    ground
        .check("tree", "baked", Pass::Full)?
        .is(&["changed /library content"], &[])?;
    let original = std::fs::read(ground.root().join("tree/other")).context("read the copy")?;
    let at = usize::try_from(RAW_OFFSET).context("an offset")?;
    ground
        .fs()
        .raw_write("tree/library", RAW_OFFSET, &original[at..=at])?;
    ground.fs().drop_caches("tree/library")?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])
}

#[test]
fn one_byte_of_a_large_file_is_a_change() -> Result<()> {
    if !possible("a large file") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 160)?;
    ground.shell(
        "",
        "mkdir tree; cd tree; head -c 100M /dev/zero > large; poke large 99999999 x",
    )?;
    ground.bake_well("tree", "baked", None)?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])?;
    for (make, undo, drift) in [
        (
            "printf x >> large",
            "truncate -s 100M large",
            "changed /large size content",
        ),
        (
            "poke large 52428800 x",
            r"poke large 52428800 '\0'",
            "changed /large content",
        ),
        (
            "truncate -s -1 large",
            "truncate -s +1 large",
            "changed /large size content",
        ),
    ] {
        ground.shell("tree", make)?;
        ground
            .check("tree", "baked", Pass::Full)?
            .is(&[drift], &[])
            .context(make)?;
        ground.shell("tree", undo)?;
        ground
            .check("tree", "baked", Pass::Full)?
            .is(&[], &[])
            .context(undo)?;
    }
    Ok(())
}
