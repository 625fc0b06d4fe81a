//! Each image builder's script, run by the builder itself on a real Debian root: what it leaves is what was signed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::process::{Program, finish, run};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Recipe, Sandbox, Workshop};

use crate::world::scripts;

/// A root file system with the agent in it and no manifest, and keys of a kind that key vaults have.
struct Ground {
    sandbox: Sandbox,
    root: PathBuf,
    path: String,
}

impl Ground {
    /// Unpacked from the root that these packages make.
    fn new(packages: &[&str]) -> Result<Self> {
        let workshop = Workshop::open()?;
        let recipe = packages
            .iter()
            .fold(Recipe::new("web", "1"), |recipe, package| {
                recipe.package(package)
            });
        let sandbox = Sandbox::new()?;
        let directory = sandbox.directory().to_owned();
        let (root, bin) = (directory.join("root"), directory.join("bin"));
        recipe.unpack(&workshop, &root)?;
        fs::create_dir(&bin).context("make a directory for programs")?;
        let agent = Program::Agent.path()?;
        for place in [
            bin.join("driftmark-agent"),
            root.join("usr/bin/driftmark-agent"),
        ] {
            fs::copy(&agent, &place).with_context(|| format!("install {}", place.display()))?;
        }
        let keys = "openssl ecparam -name prime256v1 -genkey -noout -out key.ec; \
                    openssl pkcs8 -topk8 -nocrypt -in key.ec -out key.pem; \
                    openssl pkey -in key.pem -pubout -out key.pub";
        run(Command::new("sh")
            .args(["-euc", keys])
            .current_dir(&directory))?;
        let trust = root.join("usr/lib/driftmark/trust.d");
        fs::create_dir_all(&trust).context("make trust.d")?;
        fs::copy(directory.join("key.pub"), trust.join("pipeline.pub")).context("trust")?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(Self {
            root,
            path: format!("{}:{path}", bin.display()),
            sandbox,
        })
    }

    fn directory(&self) -> &Path {
        self.sandbox.directory()
    }

    /// What signs as a key vault does: it reads the bytes and writes an ECDSA signature.
    fn sign(&self) -> String {
        let key = self.directory().join("key.pem");
        format!("openssl dgst -sha256 -sign {}", key.display())
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.sandbox.command(program);
        command
            .env("PATH", &self.path)
            .env("NAME", "web")
            .env("VERSION", "1");
        command
    }

    /// What drifted in `root`, as `kind path`.
    fn drifted(&self, root: &Path) -> Result<Vec<String>> {
        let output = finish(
            self.command("driftmark-agent")
                .args(["check", "--json", "--root"])
                .arg(root)
                .arg("--manifest")
                .arg(root.join("usr/lib/driftmark/image.manifest"))
                .arg("--trust")
                .arg(self.directory().join("key.pub"))
                .arg("--state")
                .arg(self.directory().join("state")),
        )?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut drifted = Vec::new();
        for line in said.lines() {
            let line: serde_json::Value = serde_json::from_str(line).context("a line of JSON")?;
            if let (Some(kind), Some(path)) = (line["kind"].as_str(), line["path"].as_str()) {
                drifted.push(format!("{kind} {path}"));
            }
        }
        Ok(drifted)
    }

    /// Leaves in the root what a builder's machine leaves in it.
    fn live_in(&self) -> Result<()> {
        let line = "mkdir -p root/.ssh home/admin/.ssh var/lib/cloud/instances/i-1 var/log/amazon/ssm var/log/journal/x \
                    var/lib/dhcp var/lib/driftmark etc/sudoers.d etc/ssh; \
                    echo key | tee root/.ssh/authorized_keys home/admin/.ssh/authorized_keys etc/ssh/ssh_host_rsa_key >etc/ssh/ssh_host_rsa_key.pub; \
                    echo id | tee etc/machine-id etc/hostname etc/locale.conf etc/.updated etc/sudoers.d/90-cloud-init-users >var/.updated; \
                    echo log | tee var/log/cloud-init.log var/log/boot.log var/log/amazon/ssm/x var/log/journal/x/y >var/tmp/x; \
                    echo typed >root/.bash_history; echo seed >var/lib/systemd/random-seed; echo lease >var/lib/dhcp/eth0.leases; \
                    echo data >var/lib/cloud/instances/i-1/user-data.txt; echo state >var/lib/driftmark/run";
        run(Command::new("sh")
            .args(["-euc", line])
            .current_dir(&self.root))
        .map(drop)
    }
}

#[test]
fn ec2_image_builder_finds_nothing_to_clean_after_the_bake() -> Result<()> {
    if !possible("baking before a cleanup") {
        return Ok(());
    }
    let ground = Ground::new(&[])?;
    ground.live_in()?;
    let script = scripts().join("ec2-image-builder/bake-last");
    run(ground
        .command("sh")
        .arg(&script)
        .arg(&ground.root)
        .env("SIGN", ground.sign())
        .env("TMPDIR", ground.directory()))?;
    ec2_cleanup(&ground.root)?;
    assert_eq!(ground.drifted(&ground.root)?, Vec::<String>::new());

    // The other way round it is as the page says: what a component baked, the cleanup changes.
    fs::write(ground.root.join("etc/locale.conf"), "LANG=C.UTF-8\n").context("write a file")?;
    let home = ground.root.join("usr/lib/driftmark");
    run(ground
        .command("driftmark-agent")
        .args(["bake", "--name", "web", "--version", "1", "--root"])
        .arg(&ground.root)
        .arg("--key")
        .arg(ground.directory().join("key.pem"))
        .arg("--output")
        .arg(&home))?;
    ec2_cleanup(&ground.root)?;
    assert_eq!(ground.drifted(&ground.root)?, ["removed /etc/locale.conf"]);
    Ok(())
}

/// What the documentation of EC2 Image Builder says that its cleanup removes, removed.
fn ec2_cleanup(root: &Path) -> Result<()> {
    let line = "rm -f etc/sudoers.d/90-cloud-init-users etc/locale.conf var/log/cloud-init.log var/log/cloud-init-output.log \
                etc/.updated etc/aliases.db etc/hostname var/lib/misc/postfix.aliasesdb-stamp var/lib/postfix/master.lock \
                var/spool/postfix/pid/master.pid var/.updated var/cache/yum/x86_64/2/.gpgkeyschecked.yum \
                etc/ssh/ssh_host_rsa_key etc/ssh/ssh_host_rsa_key.pub etc/ssh/ssh_host_ecdsa_key etc/ssh/ssh_host_ecdsa_key.pub \
                etc/ssh/ssh_host_ed25519_key etc/ssh/ssh_host_ed25519_key.pub root/.ssh/authorized_keys \
                home/*/.ssh/authorized_keys var/log/audit/audit.log var/log/boot.log var/log/dmesg var/log/cron \
                var/log/sa/sa* var/lib/dhclient/dhclient*.lease var/lib/rsyslog/imjournal.state; \
                rm -rf var/lib/cloud/* var/log/amazon/ssm var/tmp/* var/log/journal/*; touch etc/machine-id";
    run(Command::new("sh").args(["-euc", line]).current_dir(root)).map(drop)
}

#[test]
fn a_volume_of_a_finished_image_is_baked_from_outside() -> Result<()> {
    if !possible("baking a volume") {
        return Ok(());
    }
    let ground = Ground::new(&[])?;
    let volume = ground.directory().join("volume");
    let mounted = ground.directory().join("mounted");
    ground.sandbox.shell(&format!(
        "cd '{0}'; truncate -s 1G volume; mkfs.ext4 -q -d root volume; mkdir mounted; losetup --find --show volume >device",
        ground.directory().display()
    ))?;
    let device = fs::read_to_string(ground.directory().join("device")).context("a device")?;
    let baked = run(ground
        .command("sh")
        .arg(scripts().join("ec2-image-builder/bake-volume"))
        .args([device.trim(), "web", "1"])
        .arg(ground.directory().join("key.pem"))
        .arg(ground.directory().join("out")));
    let checked = baked.and_then(|_| {
        ground.sandbox.shell(&format!(
            "mount -o ro {} '{}'",
            device.trim(),
            mounted.display()
        ))?;
        ground.drifted(&mounted)
    });
    let _ = ground.sandbox.shell(&format!(
        "umount '{}'; losetup -d {}",
        mounted.display(),
        device.trim()
    ));
    assert_eq!(checked?, Vec::<String>::new());
    assert!(
        ground.directory().join("out/image.manifest.sig").exists(),
        "{}",
        volume.display()
    );
    Ok(())
}

#[test]
fn azure_image_builder_bakes_after_the_real_waagent_deprovisioned() -> Result<()> {
    if !possible("deprovisioning with waagent") {
        return Ok(());
    }
    let ground = Ground::new(&["waagent"])?;
    ground.live_in()?;
    let (tmp, key) = (ground.root.join("tmp"), ground.root.join("run/key.pem"));
    let ours = scripts();
    for (from, to) in [
        (ours.join("clean"), tmp.join("clean")),
        (
            ours.join("azure-image-builder/DeprovisioningScript.sh"),
            tmp.join("DeprovisioningScript.sh"),
        ),
        // The vault's key: /run is no part of the image.
        (ground.directory().join("key.pem"), key),
    ] {
        fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    fs::write(
        tmp.join("driftmark.env"),
        "NAME=web VERSION=1 SIGN='openssl dgst -sha256 -sign /run/key.pem'\n",
    )
    .context("write settings")?;
    let said = ground.sandbox.shell(&format!(
        "cd '{}'; mount -t proc proc proc; mount --bind /dev dev; chroot . sh /tmp/DeprovisioningScript.sh 2>&1; umount proc dev",
        ground.root.display()
    ))?;
    assert!(said.contains("identity   sha256"), "it was baked:\n{said}");
    assert!(
        !ground.root.join("etc/ssh/ssh_host_rsa_key").exists(),
        "waagent did its work:\n{said}"
    );
    assert_eq!(ground.drifted(&ground.root)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn mkosi_finalizes_an_image_with_its_manifest() -> Result<()> {
    if !possible("building with mkosi") {
        return Ok(());
    }
    let ground = Ground::new(&[])?;
    let directory = ground.directory();
    run(ground
        .command("mkosi")
        .arg(format!("--directory={}", directory.display()))
        .args([
            "--distribution=debian",
            "--release=bookworm",
            "--format=directory",
            "--force",
            "--bootable=no",
            "--with-docs=yes",
            "--nspawn-keep-unit=yes",
        ])
        .arg(format!("--base-image={}", ground.root.display()))
        .arg(format!(
            "--output-dir={}",
            directory.join("built").display()
        ))
        .arg("--output=image")
        .arg(format!(
            "--finalize-script={}",
            scripts().join("mkosi/mkosi.finalize").display()
        ))
        .args(["--environment=NAME=web", "--environment=VERSION=1"])
        .arg(format!(
            "--environment=KEY={}",
            directory.join("key.pem").display()
        ))
        .arg(format!("--environment=PATH={}", ground.path))
        .arg("build"))?;
    // With a base image the output is a layer over that.
    let built = directory.join("whole");
    ground.sandbox.shell(&format!(
        "cd '{}'; mkdir whole; mount -t overlay overlay -o lowerdir='built/debian~bookworm/image':root whole",
        directory.display()
    ))?;
    assert_eq!(ground.drifted(&built)?, Vec::<String>::new());
    assert!(
        directory
            .join("built/debian~bookworm/image.manifest.sig")
            .exists()
    );
    Ok(())
}

#[test]
fn a_container_image_is_baked_from_its_export_and_gets_the_manifest_as_a_layer() -> Result<()> {
    if !possible("baking a container image") {
        return Ok(());
    }
    let ground = Ground::new(&[])?;
    let directory = ground.directory();
    let podman = format!(
        "podman --root {0}/storage --runroot {0}/runroot --storage-driver overlay --cgroup-manager cgroupfs",
        directory.display()
    );
    // Whoever enters a sandbox is in its root directory.
    let shell = |line: &str| {
        let line = format!("cd '{}'; {line}", directory.display());
        run(ground
            .command("sh")
            .args(["-euc", &line])
            .env("DOCKER", &podman)
            .env("TMPDIR", directory)
            .env("BUILDAH_ISOLATION", "chroot"))
    };
    shell("tar -C root -c . | $DOCKER import - localhost/web:unbaked")?;
    let docker = scripts().join("docker");
    shell(&format!(
        "'{}/bake-export' localhost/web:unbaked web 1 out",
        docker.display()
    ))?;
    shell("driftmark-agent sign out/image.manifest --key key.pem")?;
    shell(&format!(
        "'{}/add-manifest' localhost/web:unbaked localhost/web:1 out",
        docker.display()
    ))?;
    shell(
        "mkdir final; c=$($DOCKER create localhost/web:1 /bin/true); $DOCKER export $c | tar -x -p --numeric-owner -C final",
    )?;
    assert_eq!(
        ground.drifted(&directory.join("final"))?,
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn a_key_vault_is_asked_for_a_signature_as_it_wants_to_be_asked() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let vault = crate::vault::Vault::start(directory.path())?;
    let signed = finish(
        Command::new("sh")
            .args(["-euc", "printf 'the bytes' | sh \"$0\" >signature"])
            .arg(scripts().join("azure-image-builder/key-vault-sign"))
            .env("IDENTITY_ENDPOINT", format!("{}/identity", vault.url()))
            .env("VAULT_ENDPOINT", vault.url())
            .envs([
                ("VAULT", "pipeline.vault.azure.net"),
                ("VAULT_KEY", "images/1"),
            ])
            .current_dir(directory.path()),
    )?;
    ensure!(
        signed.status.success(),
        "{}",
        String::from_utf8_lossy(&signed.stderr)
    );
    let signature = fs::read(directory.path().join("signature")).context("a signature")?;
    vault.verify(b"the bytes", &signature)
}

#[test]
fn every_script_is_one_and_shellcheck_has_nothing_to_say() -> Result<()> {
    let mut seen = 0;
    for directory in [scripts()].into_iter().chain(
        [
            "packer",
            "azure-image-builder",
            "ec2-image-builder",
            "mkosi",
            "docker",
        ]
        .map(|name| scripts().join(name)),
    ) {
        for entry in fs::read_dir(&directory).context("list scripts")?.flatten() {
            let text = fs::read(entry.path()).unwrap_or_default();
            if !text.starts_with(b"#!/bin/sh") {
                continue;
            }
            seen += 1;
            let mode = entry.metadata()?.permissions().mode();
            ensure!(
                mode & 0o111 == 0o111,
                "{} cannot be run",
                entry.path().display()
            );
            run(Command::new("shellcheck")
                .args(["--severity=info", "--exclude=SC1091"])
                .arg(entry.path()))?;
        }
    }
    ensure!(seen >= 10, "{seen} scripts");
    Ok(())
}
