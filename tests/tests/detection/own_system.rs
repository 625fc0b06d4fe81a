//! This machine's own programs: baked and checked where they lie.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use driftmark_tests::Program;
use driftmark_tests::process::{finish, run};
use driftmark_tests::sandbox::possible;

/// Bounded, real, and of every kind of name that a distribution has.
const TREES: [&str; 2] = ["/usr/bin", "/usr/share/doc"];

#[test]
fn this_machines_own_files_are_clean_against_their_own_manifest() -> Result<()> {
    if !possible("a check of this machine's own files") {
        return Ok(());
    }
    let directory = tempfile::tempdir().context("make a directory")?;
    let at = |name: &str| directory.path().join(name);
    run(Program::Agent
        .command()?
        .arg("keygen")
        .arg("--output")
        .arg(at("keys")))?;
    for tree in TREES.iter().filter(|tree| Path::new(tree).is_dir()) {
        let mut bake = Program::Agent.command()?;
        bake.args([
            "bake",
            "--root",
            tree,
            "--name",
            "own",
            "--version",
            "1",
            "--rules",
            "none",
            "--output",
        ]);
        run(bake
            .arg(at("out"))
            .arg("--key")
            .arg(at("keys/driftmark.key")))?;
        let mut check = Program::Agent.command()?;
        check
            .args(["check", "--json", "--root", tree, "--manifest"])
            .arg(at("out/image.manifest"));
        check
            .arg("--trust")
            .arg(at("keys/driftmark.pub"))
            .arg("--state")
            .arg(at("state"));
        let output = finish(&mut check)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(0),
            "{tree}: {:?}\n{text}",
            output.status
        );
        println!("{tree}: {}", text.trim_end());
    }
    Ok(())
}
