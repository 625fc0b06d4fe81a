//! The same tree gives the same bytes: by one thread or two, on this disk or another, on ext4 or xfs.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::loopfs::kernel_has;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::{possible, skip};

use crate::base;
use crate::ground::{Ground, Pass};

/// What `cp -a` does not carry over.
const AFTER_COPY: &str = "chattr +dA data/flagged; chattr +i data/locked
setfattr -n security.selinux -v system_u:object_r:bin_t:s0 bin/labelled";

fn manifest(ground: &Ground, output: &str) -> Result<Vec<u8>> {
    fs::read(ground.outside(output).join("image.manifest")).context("read a manifest")
}

#[test]
fn threads_and_disks_do_not_change_a_byte() -> Result<()> {
    if !possible("baking twice") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    // `cp` names what it copies by whole paths, and xfs has no device numbers as large.
    ground.shell("tree", "rm dev/large; rm -r \"$(printf 'd%.0s' {1..200})\"")?;
    for (output, threads) in [("one", "1"), ("two", "2"), ("again", "2"), ("many", "16")] {
        let run = ground.bake("tree", output, &["--rules", "none", "--threads", threads])?;
        ensure!(run.code == 0, "{}", run.err);
    }
    let first = manifest(&ground, "one")?;
    for output in ["two", "again", "many"] {
        ensure!(manifest(&ground, output)? == first, "{output} differs");
    }
    for file_system in [FileSystem::Ext4, FileSystem::Xfs] {
        if file_system == FileSystem::Xfs && !kernel_has("xfs") {
            skip("xfs", "is not known to this kernel");
            continue;
        }
        let other = Ground::new(file_system, 400)?;
        run(Command::new("cp")
            .arg("-a")
            .arg(ground.root().join("."))
            .arg(other.root()))?;
        other.shell("tree", AFTER_COPY)?;
        other.bake_well("tree", "copy", None)?;
        let theirs = manifest(&other, "copy")?;
        if theirs != first {
            fs::write(other.outside("first"), &first).context("write a manifest")?;
            let diff = other.agent(&[
                "diff",
                &other.text("first"),
                &other.text("copy/image.manifest"),
            ])?;
            anyhow::bail!(
                "on {file_system:?} it differs: {}",
                String::from_utf8_lossy(&diff.out)
            );
        }
        other.check("tree", "copy", Pass::Full)?.is(&[], &[])?;
    }
    Ok(())
}
