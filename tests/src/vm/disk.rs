//! Receives a root file system that is to boot without a container manager; hands on a disk of it, raw ext4.
//!
//! Besides the kernel's modules it gets what a laboratory needs and every cloud's image has in its own way: a network
//! address, and a way in. Both are in the image before it is baked, so both are entries and neither is drift.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::process::run;

/// What a root file system needs more than a container's: devices and modules.
pub(crate) const PACKAGES: [&str; 3] = ["udev", "kmod", "b3sum"];
/// Room on the disk beside what the image holds.
const FREE: u64 = 256 * 1024 * 1024;

/// The modules of the machine's network card and of its way in.
const MODULES: &str = "virtio_pci\nvirtio_net\nvirtio_console\n";

/// Reads a line of base64, runs it as a script, answers with a line: how it ended, and in base64 what it wrote.
/// Nothing of it needs a disk that can be written.
const SHELL: &str = r#"#!/bin/bash
exec 3<>/dev/virtio-ports/lab || exit 1
while :; do
  while IFS= read -r line <&3; do
    script=$(printf %s "$line" | base64 -d)
    answer=$(sh -uc "$script" 2>&1 </dev/null 3<&- | base64 -w0; printf ' %s' "${PIPESTATUS[0]}")
    printf '%s\n' "$answer" >&3
  done
  sleep 0.2
done
"#;

const SHELL_UNIT: &str = "[Unit]
Description=The laboratory's way in
DefaultDependencies=no
After=systemd-modules-load.service systemd-udev-trigger.service dev-virtio\\x2dports-lab.device
Wants=dev-virtio\\x2dports-lab.device

[Service]
ExecStart=/usr/lib/driftmark-lab/shell
Restart=always
RestartSec=1
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
";

const NETWORK_UNIT: &str = "[Unit]
Description=The laboratory's network
DefaultDependencies=no
After=systemd-modules-load.service systemd-udev-trigger.service sys-subsystem-net-devices-eth0.device
Wants=sys-subsystem-net-devices-eth0.device network.target
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/driftmark-lab/network

[Install]
WantedBy=multi-user.target
";

const NETWORK: &str = r#"#!/bin/bash
set -eu
read -r arguments </proc/cmdline
address=${arguments##*lab.address=}
ip link set lo up
ip address add "${address%% *}/24" dev eth0
ip link set eth0 up
"#;

/// Makes `root` one that boots as a machine.
pub(crate) fn prepare(root: &Path, kernel: &Kernel) -> Result<()> {
    kernel.install(root)?;
    for (path, mode, content) in [
        ("etc/modules-load.d/driftmark-lab.conf", 0o644, MODULES),
        ("etc/fstab", 0o644, ""),
        ("usr/lib/driftmark-lab/shell", 0o755, SHELL),
        ("usr/lib/driftmark-lab/network", 0o755, NETWORK),
        (
            "etc/systemd/system/driftmark-lab-shell.service",
            0o644,
            SHELL_UNIT,
        ),
        (
            "etc/systemd/system/driftmark-lab-network.service",
            0o644,
            NETWORK_UNIT,
        ),
    ] {
        let target = root.join(path);
        let parent = target.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&target, content))
            .and_then(|()| fs::set_permissions(&target, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("write {path}"))?;
    }
    let wanted = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wanted).context("make multi-user.target.wants")?;
    for unit in [
        "driftmark-lab-shell.service",
        "driftmark-lab-network.service",
    ] {
        symlink(format!("/etc/systemd/system/{unit}"), wanted.join(unit))
            .with_context(|| format!("enable {unit}"))?;
    }
    // Every ext4 has it, so the image has it before it is baked.
    let lost = root.join("lost+found");
    fs::create_dir(&lost)
        .and_then(|()| fs::set_permissions(&lost, fs::Permissions::from_mode(0o700)))
        .context("make lost+found")
}

/// Makes a raw ext4 of `root` with some room.
pub(crate) fn pack(root: &Path, target: &Path) -> Result<()> {
    let used = run(Command::new("du")
        .args(["--summarize", "--block-size=1"])
        .arg(root))?;
    let used: u64 = used
        .split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .context("read what du says")?;
    let size = used + used / 8 + FREE;
    let file = fs::File::create(target).with_context(|| format!("make {}", target.display()))?;
    file.set_len(size)
        .with_context(|| format!("make room in {}", target.display()))?;
    run(Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            // Costs nothing where no file has it.
            "-O",
            "verity",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            "-d",
        ])
        .arg(root)
        .arg(target))
    .context("make the disk's file system")
    .map(drop)
}
