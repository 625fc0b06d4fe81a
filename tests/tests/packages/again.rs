//! Archives are the same, byte for byte, when they are made again. Here of what is compiled and laid out already, which
//! takes seconds; `make reproducible` makes them from two directories, compiling everything twice, which takes many minutes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::packages;
use driftmark_tests::process::run;

#[test]
fn made_again_every_package_is_the_same() -> Result<()> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("a source tree")?;
    let again = tempfile::tempdir()?;
    let first = digests(&packages::directory())?;
    ensure!(first.len() >= 8, "{first:?}: run `make packages`");
    // What cargo tells a test of itself is not for another cargo.
    let mut build = Command::new(tree.join("packaging/build"));
    build.arg(again.path()).arg("again").env_clear();
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "SOURCE_DATE_EPOCH",
        "DRIFTMARK_TOOLS",
    ] {
        if let Some(value) = std::env::var_os(name) {
            build.env(name, value);
        }
    }
    run(&mut build)?;
    assert_eq!(digests(again.path())?, first);
    Ok(())
}

fn digests(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        let digest = blake3::hash(&fs::read(entry.path())?).to_hex().to_string();
        digests.insert(entry.file_name().to_string_lossy().into_owned(), digest);
    }
    Ok(digests)
}
