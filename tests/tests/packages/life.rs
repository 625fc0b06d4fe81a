//! A package's life on a running machine and in an image that is being built: install, check, start, upgrade, remove, purge.

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::process::{Program, run};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Image, Recipe, Sandbox, Workshop, packages};

/// What belongs to the packages of this house, and everything that lies where they may leave something.
///
/// Left out: the kernel's and systemd's own file systems, the journal, and the package manager's records of its work.
const TREE: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
    -o -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/tmp -o -path /var/lib/systemd/timers \\) -prune \
    -o -printf '%M %u:%g %p -> %l\\n' | sort";

#[test]
fn a_package_in_an_image_that_is_being_built_is_enabled_and_neither_starts_nor_leaves_an_identity()
-> Result<()> {
    if !possible("installing into an image") {
        return Ok(());
    }
    let root = Chroot::of(&debian()?)?;
    let before = root.exec(TREE)?;
    root.install(Program::Agent)?;
    let wanted =
        root.exec("readlink /etc/systemd/system/multi-user.target.wants/driftmark-agent.service")?;
    assert_eq!(wanted.trim(), "/lib/systemd/system/driftmark-agent.service");
    root.exec(
        "test ! -e /var/lib/driftmark && test ! -e /run/driftmark && test ! -e /etc/driftmark",
    )?;
    root.exec("driftmark-agent --version && driftmark-agent check-config")?;
    root.exec("dpkg --purge driftmark-agent")?;
    same(&before, &root.exec(TREE)?)
}

fn debian() -> Result<Image> {
    Recipe::new("packages", "1").build_without_agent(&Workshop::open()?)
}

/// Says which paths came and went.
fn same(before: &str, after: &str) -> Result<()> {
    let gone = before
        .lines()
        .filter(|line| !after.lines().any(|other| other == *line));
    let come = after
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line));
    let changes: Vec<_> = gone
        .map(|line| format!("- {line}"))
        .chain(come.map(|line| format!("+ {line}")))
        .collect();
    ensure!(
        changes.is_empty(),
        "purge leaves nothing as it was:\n{}",
        changes.join("\n")
    );
    Ok(())
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
        run(self
            .sandbox
            .command("chroot")
            .arg(root)
            .args(["/bin/sh", "-euc", line]))
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
