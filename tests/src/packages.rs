//! Hands on what `make packages` built: the files that are shipped, by their paths.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::process::Program;

/// The version of this workspace, which every package has in its name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The directory in which all packages lie.
pub fn directory() -> PathBuf {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/packages");
    std::env::var_os("DRIFTMARK_PACKAGES").map_or(usual, PathBuf::from)
}

/// A program's package for Debian and Ubuntu.
///
/// # Errors
/// It was not built.
pub fn deb(program: Program) -> Result<PathBuf> {
    shipped(&format!("{}_{VERSION}_amd64.deb", program.name()))
}

/// A program's package for Red Hat Enterprise Linux and its relatives.
///
/// # Errors
/// It was not built.
pub fn rpm(program: Program) -> Result<PathBuf> {
    shipped(&format!("{}-{VERSION}-1.x86_64.rpm", program.name()))
}

/// The static agent, for hosts that are too old for the packages.
///
/// # Errors
/// It was not built.
pub fn static_agent() -> Result<PathBuf> {
    shipped(&format!("driftmark-agent-{VERSION}-x86_64-static.tar.gz"))
}

/// A program's bill of materials, CycloneDX as JSON.
///
/// # Errors
/// It was not built.
pub fn bill(program: Program) -> Result<PathBuf> {
    shipped(&format!("{}-{VERSION}.cdx.json", program.name()))
}

fn shipped(name: &str) -> Result<PathBuf> {
    let path = directory().join(name);
    ensure!(
        path.is_file(),
        "{} is not there: run `make packages`",
        path.display()
    );
    Ok(path)
}
