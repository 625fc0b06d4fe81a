//! Distributions whose packages are not to be had here: their rules are held to what is documented.
//!
//! A tree with their os-release, the programs that rules name, and every documented path is baked; then everything
//! that is documented happens to it, and a check finds nothing. And none of their rules lets a program come or change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use driftmark_tests::Program;
use driftmark_tests::process::{finish, run};

/// Name, os-release, what is done there that is documented, and to which paths.
const DISTRIBUTIONS: [(&str, &str, &[&str]); 4] = [
    (
        "rocky",
        "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.5\"\n",
        RHEL,
    ),
    (
        "almalinux",
        "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.6\"\n",
        RHEL,
    ),
    (
        "rhel",
        "ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"\n",
        RHEL,
    ),
    (
        "amazon",
        "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n",
        AMAZON,
    ),
];

/// Programs that rules name: a rule whose program is not there does not count.
const PROGRAMS: [&str; 15] = [
    "usr/bin/cloud-init",
    "usr/bin/dnf",
    "usr/bin/rpm",
    "usr/sbin/NetworkManager",
    "usr/sbin/anacron",
    "usr/sbin/subscription-manager",
    "usr/sbin/rsyslogd",
    "usr/sbin/sssd",
    "usr/sbin/tuned",
    "usr/bin/grub2-editenv",
    "usr/sbin/lvmdevices",
    "usr/bin/amazon-ssm-agent",
    "usr/sbin/sshd",
    "usr/sbin/chronyd",
    "usr/sbin/update-motd",
];

/// What the image has of what changes.
const IN_IMAGE: [&str; 8] = [
    "etc/passwd",
    "etc/shadow",
    "etc/group",
    "etc/tuned/active_profile",
    "etc/fstab",
    "boot/grub2/grubenv",
    "var/lib/rpm/rpmdb.sqlite-shm",
    ".autorelabel",
];

const RHEL: &[&str] = &[
    "var/cache/dnf/baseos-1/repodata/repomd.xml",
    "var/lib/rpm/.rpm.lock",
    "var/lib/rpm/rpmdb.sqlite-shm",
    "etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection",
    "var/lib/NetworkManager/secret_key",
    "etc/passwd",
    "etc/shadow",
    "etc/group",
    "etc/passwd-",
    "etc/sudoers.d/90-cloud-init-users",
    "home/cloud-user/.bashrc",
    "home/cloud-user/.ssh/authorized_keys",
    "var/spool/mail/cloud-user",
    "etc/ssh/sshd_config.d/50-cloud-init.conf",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/fstab",
    "var/spool/anacron/cron.daily",
    "var/lib/rsyslog/imjournal.state",
    "var/lib/sss/db/cache_implicit_files.ldb",
    "var/lib/tuned/saved",
    "etc/tuned/active_profile",
    "boot/grub2/grubenv",
    "etc/lvm/devices/system.devices",
    "var/lib/chrony/drift",
    "var/lib/cloud/instances/i-1/obj.pkl",
    "var/lib/cloud/data/status.json",
    "var/log/messages",
    "var/log/dnf.log",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/timers/stamp-dnf-makecache.timer",
];

const AMAZON: &[&str] = &[
    "var/cache/dnf/amazonlinux-1/repodata/repomd.xml",
    "etc/dnf/vars/awsregion",
    "var/lib/amazon/ssm/Vault/Store/RegistrationKey",
    "var/lib/amazon/ssm/i-0123456789abcdef0/document/state",
    "var/lib/update-motd/motd",
    "home/ec2-user/.bashrc",
    "home/ec2-user/.ssh/authorized_keys",
    "etc/passwd",
    "etc/shadow",
    "var/lib/chrony/drift",
    "var/log/cloud-init.log",
];

/// Where a program, a unit or a job must not come from, whatever the distribution.
const NEVER: [&str; 12] = [
    "usr/bin/x",
    "usr/sbin/dnf2",
    "usr/lib64/libx.so",
    "usr/lib/systemd/system/x.service",
    "etc/systemd/system/x.service",
    "etc/cron.d/x",
    "etc/sudoers.d/x",
    "etc/ld.so.preload",
    "etc/profile.d/x.sh",
    "usr/libexec/x",
    "etc/yum.repos.d/x.repo",
    "etc/pki/rpm-gpg/x",
];

#[test]
fn what_is_documented_of_a_distribution_that_was_not_booted_is_no_drift_and_no_program_is_let_in()
-> Result<()> {
    let world = tempfile::tempdir().context("make a directory")?;
    let keys = world.path().join("keys");
    run(Program::Agent
        .command()?
        .arg("keygen")
        .arg("--output")
        .arg(&keys))?;
    for (name, release, documented) in DISTRIBUTIONS {
        let root = world.path().join(name);
        for program in PROGRAMS {
            put(&root, program, 0o755, "program")?;
        }
        for file in IN_IMAGE {
            put(&root, file, 0o644, "in the image")?;
        }
        // A package database of no packages: anything else would have to be one.
        put(&root, "var/lib/rpm/rpmdb.sqlite", 0o644, "")?;
        for directory in [
            "home",
            "var/log",
            "var/spool/mail",
            "var/lib",
            "var/cache",
            "etc/dnf/vars",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        for file in documented.iter().chain(&NEVER) {
            parents_of_the_package(&root, file)?;
        }
        put(&root, "usr/lib/os-release", 0o644, release)?;
        let out = world.path().join(format!("{name}.out"));
        run(Program::Agent
            .command()?
            .args(["bake", "--name", name, "--version", "1", "--root"])
            .arg(&root)
            .arg("--key")
            .arg(keys.join("driftmark.key"))
            .arg("--output")
            .arg(&out))
        .with_context(|| name.to_owned())?;
        let check = || {
            let mut check = Program::Agent.command()?;
            check.args(["check", "--json", "--root"]).arg(&root);
            check.arg("--manifest").arg(out.join("image.manifest"));
            check.arg("--trust").arg(keys.join("driftmark.pub"));
            check.arg("--state").arg(world.path().join("state"));
            let output = finish(&mut check)?;
            anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        for file in documented {
            put(&root, file, 0o600, "what is documented")?;
        }
        fs::remove_file(root.join(".autorelabel"))?;
        let said = check()?;
        ensure!(!said.contains("\"kind\""), "{name}: {said}");
        for file in NEVER {
            put(&root, file, 0o755, "#!/bin/sh\n")?;
        }
        let said = check()?;
        for file in NEVER {
            ensure!(
                said.contains(&format!("\"path\":\"/{file}\"")),
                "{name} lets /{file} in: {said}"
            );
        }
    }
    Ok(())
}

fn put(root: &Path, file: &str, mode: u32, content: &str) -> Result<()> {
    let path = root.join(file);
    let parent = path.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // Content changes, mode and owner stay, as a program that writes into its file leaves them.
    let is_new = !path.exists();
    fs::write(&path, content).with_context(|| format!("write {file}"))?;
    if is_new {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The directories that packages bring: all of them, but below /home none and below /var the first.
fn parents_of_the_package(root: &Path, file: &str) -> Result<()> {
    let parents: Vec<_> = file.split('/').collect();
    let (_, parents) = parents.split_last().context("a file has a name")?;
    let brought = match parents.first() {
        Some(&"home") => 1,
        Some(&"var") => parents.len().min(3),
        _ => parents.len(),
    };
    let directory = root.join(parents[..brought].join("/"));
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))
}
