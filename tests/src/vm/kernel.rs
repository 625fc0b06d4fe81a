//! Receives this machine's package sources; hands on Debian's cloud kernel and its modules, unpacked and kept.
//!
//! That kernel has NVMe, ext4 and a serial line built in, so it boots a root file system without an initial RAM disk.
//! Everything else is a module and goes into the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::image::Workshop;
use crate::process::run;

/// The package that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// A kernel that a virtual machine boots.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// What the machine starts.
    pub image: PathBuf,
    /// What goes into its image: the directory below `/usr/lib/modules`.
    modules: PathBuf,
}

impl Kernel {
    /// The newest of this machine's release, fetched once and kept in the workshop.
    ///
    /// # Errors
    /// The package sources have none: this is no Debian, or its mirror is away and nothing was kept.
    pub fn newest(workshop: &Workshop) -> Result<Self> {
        let _lock = workshop.lock("kernel")?;
        if let Some(kept) = Self::kept(workshop)? {
            return Ok(kept);
        }
        let work = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(workshop.directory())
            .context("make a directory")?;
        let package = newest_package().or_else(|_| {
            // The lists may be old, or not there at all on a fresh machine.
            run(Command::new("apt-get").args(["update", "--quiet=2"]))?;
            newest_package()
        })?;
        // apt's own unprivileged user cannot write here; root fetches.
        run(Command::new("apt-get")
            .args(["download", "--quiet=2", "-o", "APT::Sandbox::User=root"])
            .arg(&package)
            .current_dir(work.path()))
        .with_context(|| format!("fetch {package}"))?;
        let file = the_only(work.path(), ".deb")?;
        let unpacked = work.path().join("unpacked");
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .arg(file)
            .arg(&unpacked))
        .with_context(|| format!("unpack {package}"))?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        fs::rename(
            unpacked,
            workshop.directory().join(format!("kernel-{release}")),
        )
        .context("keep the kernel")?;
        Self::kept(workshop)?.context("find the kernel that was just unpacked")
    }

    /// Puts the modules where the kernel looks for them in `root`, whose own `depmod` says what needs what.
    pub(crate) fn install(&self, root: &Path) -> Result<()> {
        let modules = root.join("usr/lib/modules");
        fs::create_dir_all(&modules).with_context(|| format!("make {}", modules.display()))?;
        run(Command::new("cp")
            .arg("-a")
            .arg(&self.modules)
            .arg(&modules))?;
        run(Command::new("chroot")
            .arg(root)
            .args(["depmod", &self.release]))
        .context("list what the kernel's modules need")
        .map(drop)
    }

    /// The newest that was kept.
    fn kept(workshop: &Workshop) -> Result<Option<Self>> {
        let mut releases: Vec<_> = names(workshop.directory())?
            .into_iter()
            .filter_map(|name| name.strip_prefix("kernel-").map(str::to_owned))
            .filter(|release| release != "lock" && !release.ends_with(".lock"))
            .collect();
        releases.sort();
        Ok(releases.pop().map(|release| {
            let directory = workshop.directory().join(format!("kernel-{release}"));
            Self {
                image: directory.join(format!("boot/vmlinuz-{release}")),
                modules: directory.join(format!("lib/modules/{release}")),
                release,
            }
        }))
    }
}

/// The package that the newest kernel is in.
fn newest_package() -> Result<String> {
    let text = run(Command::new("apt-cache").args(["depends", NEWEST]))?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    line.map(|release| format!("linux-image-{}", release.trim()))
        .with_context(|| format!("find what {NEWEST} depends on: are there package lists?"))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

fn the_only(directory: &Path, suffix: &str) -> Result<PathBuf> {
    let name = names(directory)?
        .into_iter()
        .find(|name| name.ends_with(suffix));
    name.map(|name| directory.join(name))
        .with_context(|| format!("find a {suffix} in {}", directory.display()))
}
