//! Receives a root file system that is being made into an image; does to it what a pipeline does.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{finish, run};

/// The agent's half of the tree that `systemd/` lays out.
pub(super) const AGENT_FILES: [&str; 4] = [
    "usr/lib/systemd/system/driftmark-agent.service",
    "usr/lib/systemd/system/driftmark.slice",
    "usr/lib/systemd/system-preset/80-driftmark-agent.preset",
    "usr/lib/tmpfiles.d/driftmark-agent.conf",
];
/// Where the manifest lies in an image.
pub(super) const HOME: &str = "usr/lib/driftmark";

/// Unpacks a tar of a root file system at `root`, which is made.
pub(super) fn unpack(base: &Path, root: &Path) -> Result<()> {
    fs::create_dir(root).with_context(|| format!("make {}", root.display()))?;
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(base)
        .arg("-C")
        .arg(root))
    .map(drop)
}

/// Takes out what would tell one instance from another, or this machine from the world.
pub(super) fn make_anonymous(root: &Path) -> Result<()> {
    for path in [
        "etc/hostname",
        "etc/resolv.conf",
        "var/lib/dbus/machine-id",
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
    ] {
        match fs::remove_file(root.join(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {path}"));
            }
            _ => {}
        }
    }
    // Empty, not missing: missing means "first boot of the vendor's image" to systemd, with presets and questions.
    write(root, "/etc/machine-id", 0o444, b"")
}

/// Installs the agent's package in the root, with the root's own dpkg; presets enable it.
pub(super) fn install_package(root: &Path, package: &Path, public_key: &Path) -> Result<()> {
    let inside = "/tmp/driftmark-agent.deb";
    let content = fs::read(package).with_context(|| format!("read {}", package.display()))?;
    write(root, inside, 0o644, &content)?;
    let key = fs::read(public_key).with_context(|| format!("read {}", public_key.display()))?;
    write(root, &format!("/{HOME}/trust.d/driftmark.pub"), 0o644, &key)?;
    in_root(root, &format!("dpkg --install {inside}; rm {inside}"))
        .context("install the agent's package")
}

/// Runs a line of shell in a root, as a pipeline's provisioner does.
pub(super) fn in_root(root: &Path, line: &str) -> Result<()> {
    run(Command::new("chroot")
        .arg(root)
        .args(["/bin/sh", "-euc", line])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive"))
    .map(drop)
}

/// Puts the agent where its package would put it, and enables it.
pub(super) fn install(root: &Path, agent: &Path, public_key: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    write(root, "/usr/bin/driftmark-agent", 0o755, &read(agent)?)?;
    write(
        root,
        &format!("/{HOME}/trust.d/driftmark.pub"),
        0o644,
        &read(public_key)?,
    )?;
    for file in AGENT_FILES {
        write(
            root,
            &format!("/{file}"),
            0o644,
            &read(&installed_tree(file))?,
        )?;
    }
    let wanted = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wanted).context("make multi-user.target.wants")?;
    symlink(
        "/usr/lib/systemd/system/driftmark-agent.service",
        wanted.join("driftmark-agent.service"),
    )
    .context("enable the agent")
}

/// A file that is shipped, in this source tree.
pub(super) fn installed_tree(file: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd")).join(file)
}

pub(super) fn write(root: &Path, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let relative = path
        .strip_prefix('/')
        .with_context(|| format!("{path} is not absolute"))?;
    let target = root.join(relative);
    let parent = target.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&target, content).with_context(|| format!("write {}", target.display()))?;
    fs::set_permissions(&target, fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {path}"))
}

/// Packs a tree as erofs, else as squashfs; both read-only by nature.
pub(super) fn pack(root: &Path, target: &Path) -> Result<()> {
    if crate::loopfs::kernel_has("erofs") {
        let packed = finish(Command::new("mkfs.erofs").arg(target).arg(root));
        if packed.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        let _ = fs::remove_file(target);
    }
    ensure!(
        crate::loopfs::kernel_has("squashfs"),
        "this kernel has neither erofs nor squashfs"
    );
    run(Command::new("mksquashfs").arg(root).arg(target).args([
        "-comp",
        "lz4",
        "-quiet",
        "-no-progress",
    ]))?;
    Ok(())
}
