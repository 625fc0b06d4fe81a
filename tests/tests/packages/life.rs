//! A package's life on a running machine and in an image that is being built: install, check, start, upgrade, remove, purge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::process::{Program, run};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Image, Instance, InstanceOptions, Lab, Recipe, Sandbox, Workshop, packages};

/// Every path of the file system with mode, owner and target.
///
/// Left out: the kernel's and systemd's own file systems, logs, what the package manager and systemd write down about
/// their own work, and what the tools that make and end users keep of the state before.
const TREE: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
    -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/tmp -o -path /var/lib/systemd \
    -o -path '/etc/*-' -o -path /etc/.pwd.lock -o -path /etc/.updated -o -path /var/.updated \\) -prune \
    -o -printf '%M %u:%g %p -> %l\\n' | sort";

/// Directories of shells that this Debian does not have; no package of ours owns them, and none may take them away.
const OF_SHELLS: &str = "mkdir -p /usr/share/fish/vendor_completions.d /usr/share/zsh/vendor-completions \
    /usr/share/zsh/site-functions";

#[test]
fn a_package_in_an_image_that_is_being_built_is_enabled_and_neither_starts_nor_leaves_an_identity()
-> Result<()> {
    if !possible("installing into an image") {
        return Ok(());
    }
    let root = Chroot::of(&debian()?)?;
    let before = root.exec(TREE)?;
    root.install(Program::Agent)?;
    let enabled = root.exec("systemctl is-enabled driftmark-agent.service")?;
    assert_eq!(enabled.trim(), "enabled");
    root.exec(
        "test ! -e /var/lib/driftmark && test ! -e /run/driftmark && test ! -e /etc/driftmark",
    )?;
    root.exec("driftmark-agent --version && driftmark-agent check-config")?;
    root.exec("dpkg --purge driftmark-agent")?;
    same(&before, &root.exec(TREE)?)
}

#[test]
fn the_static_agent_goes_into_an_image_and_out_again() -> Result<()> {
    if !possible("installing into an image") {
        return Ok(());
    }
    let root = Chroot::of(&debian()?)?;
    root.exec(OF_SHELLS)?;
    let before = root.exec(TREE)?;
    let directory = root.sandbox.directory();
    let unpacked = directory.join("unpacked");
    fs::create_dir(&unpacked)?;
    run(Command::new("tar")
        .arg("-xzf")
        .arg(packages::static_agent()?)
        .arg("-C")
        .arg(&unpacked)
        .arg("--strip-components=1"))?;
    let install = |arguments: &[&str]| {
        run(root
            .sandbox
            .command(unpacked.join("install"))
            .args(arguments)
            .arg(directory.join("root")))
    };
    install(&[])?;
    assert_eq!(
        root.exec("systemctl is-enabled driftmark-agent.service")?
            .trim(),
        "enabled"
    );
    root.exec(
        "driftmark-agent --version && driftmark-agent check-config && test ! -e /var/lib/driftmark",
    )?;
    install(&["--remove"])?;
    same(&before, &root.exec(TREE)?)
}

#[test]
fn an_rpm_is_installed_into_an_image_and_erased_with_what_its_scripts_did() -> Result<()> {
    if !possible("installing into an image") {
        return Ok(());
    }
    for (program, preset) in [
        (Program::Agent, "enabled"),
        (Program::Collector, "disabled"),
    ] {
        let root = Chroot::of(&debian()?)?;
        let name = program.name();
        // Debian's package manager does not know what this one asks for; that is looked at beside.
        root.rpm(&["--initdb"])?;
        root.exec(OF_SHELLS)?;
        let before = root.exec(TREE)?;
        let package = packages::rpm(program)?;
        root.rpm(&["--install", "--nodeps", &package.to_string_lossy()])?;
        let enabled = root.exec(&format!("systemctl is-enabled {name}.service || true"))?;
        assert_eq!(enabled.trim(), preset);
        root.exec(&format!("{name} --version && {name} check-config"))?;
        root.exec("test ! -e /var/lib/driftmark && test ! -e /run/driftmark")?;
        let verified = root.rpm(&["--verify", "--nodeps", name])?;
        assert_eq!(verified, "", "what is installed is what was packed");
        root.rpm(&["--erase", "--nodeps", name])?;
        same(&before, &root.exec(TREE)?)?;
    }
    Ok(())
}

#[test]
fn the_agents_package_is_installed_checked_started_upgraded_removed_and_purged() -> Result<()> {
    if !possible("a package's life") {
        return Ok(());
    }
    let machine = Machine::new()?;
    let before = machine.exec(TREE)?;
    machine.install(&packages::deb(Program::Agent)?)?;
    assert_eq!(
        machine.exec("systemctl is-enabled driftmark-agent")?.trim(),
        "enabled"
    );
    machine.exec("test ! -e /var/lib/driftmark")?;
    machine.refuses("systemctl is-active driftmark-agent")?;
    life(&machine, Program::Agent, "/var/lib/driftmark")?;
    same(&before, &machine.exec(TREE)?)
}

#[test]
fn the_collectors_package_is_installed_checked_started_upgraded_removed_and_purged() -> Result<()> {
    if !possible("a package's life") {
        return Ok(());
    }
    let machine = Machine::new()?;
    let before = machine.exec(TREE)?;
    machine.install(&packages::deb(Program::Collector)?)?;
    machine.exec("getent passwd driftmark")?;
    machine.refuses("systemctl is-enabled driftmark-collector")?;
    machine.refuses("systemctl is-active driftmark-collector")?;
    life(&machine, Program::Collector, "/var/lib/driftmark-collector")?;
    machine.refuses("getent passwd driftmark")?;
    machine.refuses("getent group driftmark")?;
    same(&before, &machine.exec(TREE)?)
}

/// From the check of its configuration to the purge.
fn life(machine: &Machine, program: Program, state: &str) -> Result<()> {
    let name = program.name();
    machine.exec(&format!("{name} check-config"))?;
    machine.exec(&format!(
        "systemctl start {name} && systemctl is-active {name}"
    ))?;
    machine.exec(&format!("test -d {state}"))?;

    let main_process =
        || machine.exec(&format!("systemctl show --value --property=MainPID {name}"));
    let first = main_process()?;
    machine.install(&newer(machine.lab.directory(), program)?)?;
    machine.exec(&format!("systemctl is-active {name}"))?;
    let version = machine.exec(&format!(
        "dpkg-query --show --showformat='${{Version}}' {name}"
    ))?;
    assert_eq!(version, format!("{}+newer", packages::VERSION));
    ensure!(main_process()? != first, "an upgrade restarts what runs");

    machine.exec(&format!("dpkg --remove {name}"))?;
    machine.refuses(&format!("systemctl is-active {name}"))?;
    machine.refuses(&format!("command -v {name}"))?;
    machine.exec(&format!("test -d {state}"))?;
    machine.exec(&format!("dpkg --purge {name}"))?;
    machine.exec(&format!("test ! -e {state}"))?;
    machine
        .exec("test -z \"$(systemctl --failed --quiet)\"")
        .map(drop)
}

/// The same package with a later version.
fn newer(directory: &Path, program: Program) -> Result<PathBuf> {
    let (tree, newer) = (directory.join("newer"), directory.join("newer.deb"));
    run(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .arg(packages::deb(program)?)
        .arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("read control")?;
    let version = format!("Version: {}", packages::VERSION);
    ensure!(text.contains(&version), "{text}");
    fs::write(
        &control,
        text.replace(&version, &format!("{version}+newer")),
    )?;
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&tree)
        .arg(&newer))?;
    Ok(newer)
}

fn debian() -> Result<Image> {
    Recipe::new("packages", "1").build_without_agent(&Workshop::open()?)
}

/// Says which paths came and went.
fn same(before: &str, after: &str) -> Result<()> {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    ensure!(
        before.len() > 1_000,
        "a Debian has more than {} paths",
        before.len()
    );
    let gone = before
        .iter()
        .filter(|line| after.binary_search(line).is_err());
    let come = after
        .iter()
        .filter(|line| before.binary_search(line).is_err());
    let changes: Vec<_> = gone
        .map(|line| format!("- {line}"))
        .chain(come.map(|line| format!("+ {line}")))
        .collect();
    ensure!(
        changes.is_empty(),
        "purge leaves something:\n{}",
        changes.join("\n")
    );
    Ok(())
}

/// A machine that runs.
struct Machine {
    instance: Instance,
    lab: Lab,
}

impl Machine {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let instance = lab.boot(&debian()?, "installed", &InstanceOptions::default())?;
        Ok(Self { instance, lab })
    }

    fn exec(&self, line: &str) -> Result<String> {
        self.instance.exec(&format!("export LC_ALL=C; {line}"))
    }

    /// Runs a line that must not end well.
    fn refuses(&self, line: &str) -> Result<()> {
        let output = self.instance.try_exec(line)?;
        ensure!(
            !output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(())
    }

    fn install(&self, package: &Path) -> Result<()> {
        let inside = self.instance.root().join("var/tmp/package.deb");
        fs::copy(package, &inside).with_context(|| format!("copy {}", package.display()))?;
        self.exec("dpkg --install /var/tmp/package.deb; rm /var/tmp/package.deb")
            .map(drop)
    }
}

/// An image's root file system as a builder has it open: nothing runs in it.
struct Chroot {
    sandbox: Sandbox,
}

impl Chroot {
    fn of(image: &Image) -> Result<Self> {
        let sandbox = Sandbox::new()?;
        let (directory, image) = (sandbox.directory().display(), image.file_system.display());
        sandbox.shell(&format!(
            "cd '{directory}'; mkdir lower rw root; mount -o loop,ro '{image}' lower; mount -t tmpfs tmpfs rw; \
             mkdir rw/upper rw/work; mount -t overlay overlay -o lowerdir=lower,upperdir=rw/upper,workdir=rw/work root"
        ))?;
        Ok(Self { sandbox })
    }

    fn exec(&self, line: &str) -> Result<String> {
        let root = self.sandbox.directory().join("root");
        run(self.sandbox.command("chroot").arg(root).args([
            "/bin/sh",
            "-euc",
            &format!("export LC_ALL=C; {line}"),
        ]))
    }

    /// Red Hat's package manager, at work on this root.
    fn rpm(&self, arguments: &[&str]) -> Result<String> {
        let root = self.sandbox.directory().join("root");
        let mut rpm = self.sandbox.command("rpm");
        rpm.arg("--root").arg(root);
        run(rpm.args(["--dbpath", "/var/lib/dpkg/rpm"]).args(arguments))
    }

    fn install(&self, program: Program) -> Result<()> {
        let package = self.sandbox.directory().join("root/tmp/package.deb");
        let shipped = packages::deb(program)?;
        fs::copy(&shipped, self.sandbox.path(&package))
            .with_context(|| format!("copy {}", shipped.display()))?;
        self.exec("dpkg --install /tmp/package.deb && rm /tmp/package.deb")
            .map(drop)
    }
}
