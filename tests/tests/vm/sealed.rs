//! dm-verity: a machine runs from the root hash that its build was sealed with, or it drifted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::{pause, until};
use driftmark_tests::process::run;
use driftmark_tests::{Machine, MachineOptions, vm};
use serde_json::Value;

use crate::world::World;

/// Whatever is waited for takes seconds on a real machine; this one is emulated, on two busy cores.
const LIMIT: Duration = Duration::from_secs(150);
const CONFIGURATION: &str = "[scan]\nquick-interval = \"5s\"\n";
/// What systemd mounts where an image has a `/usr` of its own is no drift in itself.
const RULES: &str = "[[rule]]\ntype = \"covered\"\npath = \"/usr\"\n";
/// Hashes of 4,096 bytes for every 128 of them: far less than this for what is in `/usr`.
const HASHES_BYTES: u64 = 16 * 1024 * 1024;
const BLOCK_BYTES: u64 = 4096;
const SPARE_BYTES: u64 = 1024 * 1024;

struct Story {
    world: World,
    machine: Machine,
}

#[test]
#[ignore = "takes minutes of an emulated processor: make soak"]
fn a_machine_runs_from_the_root_hash_that_its_build_was_sealed_with_or_it_drifted() -> Result<()> {
    if !vm::possible("dm-verity") {
        return Ok(());
    }
    let world = World::of(CONFIGURATION, |recipe| {
        recipe.package("cryptsetup-bin").rules(RULES)
    })?;
    let data = world.lab.directory().join("usr.squashfs");
    let hashes = world.lab.directory().join("usr.hashes");
    copy_of_usr(&world, &data)?;
    std::fs::File::create(&hashes)
        .and_then(|file| file.set_len(HASHES_BYTES))
        .context("make a disk for hashes")?;
    let blocks = std::fs::metadata(&data).context("look at the disk")?.len() / BLOCK_BYTES;
    let options = MachineOptions {
        disks: vec![data, hashes],
        ..MachineOptions::default()
    };
    let machine = world.boot("vm-1", options)?;
    let story = Story { world, machine };
    story.is("clean", "a machine without verity", |roots, _| {
        roots.as_array().is_some_and(Vec::is_empty)
    })?;

    // No statement says a root hash: it is shown, and held against nobody.
    let format = story
        .machine
        .exec("veritysetup format /dev/nvme1n1 /dev/nvme2n1")?;
    let root_hash = format
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"))
        .with_context(|| format!("no root hash in {format}"))?
        .trim()
        .to_owned();
    story.machine.exec(&format!(
        "veritysetup open /dev/nvme1n1 usr /dev/nvme2n1 {root_hash}; mount -o ro /dev/mapper/usr /usr; \
         veritysetup status usr | grep verified"
    ))?;
    let runs_from = |roots: &Value| {
        roots[0]["mount_point"] == "/usr"
            && roots[0]["root_hash"] == *root_hash
            && roots[0]["algorithm"] == "sha256"
            && roots[0]["corrupted"] == false
    };
    let shown = story.is("clean", "its root hash", |roots, _| runs_from(roots))?;
    println!("shown: {}", shown["coverage"]["verity_roots"]);
    let table = story
        .world
        .collector
        .cli(["instance", "show", text(&shown["id"])?])?;
    ensure!(
        table.contains(&format!("/usr sha256:{root_hash}")),
        "{table}"
    );

    let wrong = "0".repeat(64);
    story.seal("another", &wrong)?;
    let shown = story.is("drifted", "another root hash", |roots, drift| {
        runs_from(roots) && says(drift, "sealed with")
    })?;
    println!("sealed with another: {}", shown["drifts"][0]["drift"]);
    ensure!(shown["drifts"][0]["drift"]["path"] == "/usr", "{shown:#}");
    ensure!(shown["sealed_root_hashes"][0] == *wrong, "{shown:#}");
    story.seal("this", &root_hash)?;
    story.is("clean", "its own root hash", |roots, _| runs_from(roots))?;

    // What somebody writes beneath it is met by the kernel at the next read of it, and told at the next pass.
    // Not by its name in /dev/mapper: udev makes that anew when somebody has written to the device beneath.
    let last = blocks - 1;
    let read = format!("dd if=/dev/dm-0 of=/dev/null bs=4096 skip={last} count=1 iflag=direct");
    let ended = story.machine.try_exec(&format!(
        "{read}; dd if=/dev/urandom of=/dev/nvme1n1 bs=4096 seek={last} count=1 oflag=direct conv=notrunc; {read}"
    ))?;
    let said = String::from_utf8_lossy(&ended.stdout);
    ensure!(said.contains("Input/output error"), "{said}");
    let shown = story.is("drifted", "a corrupted device", |roots, drift| {
        roots[0]["corrupted"] == true && says(drift, "does not fit")
    })?;
    println!("corrupted: {}", shown["drifts"][0]["drift"]);

    story.machine.exec("umount -l /usr")?;
    let shown = story.is("drifted", "no verity", |roots, drift| {
        roots.as_array().is_some_and(Vec::is_empty) && says(drift, "neither / nor /usr")
    })?;
    println!("without: {}", shown["drifts"][0]["drift"]);
    Ok(())
}

/// A squashfs of what the image has in `/usr`, and behind it something that nobody reads and that can be corrupted.
fn copy_of_usr(world: &World, target: &Path) -> Result<()> {
    let sandbox = world.lab.sandbox();
    let mounted = world.lab.directory().join("image");
    std::fs::create_dir(&mounted).context("make a mount point")?;
    run(sandbox
        .command("mount")
        .args(["-o", "loop,ro,noload"])
        .arg(&world.image.file_system)
        .arg(&mounted))?;
    run(sandbox
        .command("mksquashfs")
        .arg(mounted.join("usr"))
        .arg(target)
        .args(["-comp", "lz4", "-quiet", "-no-progress"]))?;
    run(sandbox.command("umount").arg(&mounted))?;
    let file = std::fs::File::options().write(true).open(target);
    file.and_then(|file| {
        file.set_len(file.metadata()?.len().next_multiple_of(SPARE_BYTES) + SPARE_BYTES)
    })
    .context("make room behind it")
}

impl Story {
    /// Waits until the collector holds the machine to be this, and what it shows of it is so.
    fn is(&self, state: &str, what: &str, so: impl Fn(&Value, &Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until(&format!("{what}, {state}"), LIMIT, || {
            pause(Duration::from_millis(500));
            // It has to enrol first.
            let Ok(row) = self.world.row("vm-1") else {
                return Ok(None);
            };
            last = self
                .world
                .collector
                .json(["instance", "show", text(&row["id"])?])?;
            let drift = &last["drifts"][0]["drift"];
            let raised = state == "clean"
                || (last["open"] == 1
                    && drift["kind"] == "baseline"
                    && drift["severity"] == "critical");
            let is_so = so(&last["coverage"]["verity_roots"], drift);
            Ok((last["state"] == state && raised && is_so).then_some(()))
        });
        waited.with_context(|| {
            let status = self.machine.agent_status().unwrap_or_default();
            format!("the last shown: {last:#}\nthe agent: {status:#}")
        })?;
        Ok(last)
    }

    /// Hands in a second statement with this root hash.
    fn seal(&self, platform: &str, root_hash: &str) -> Result<()> {
        let file = self.world.lab.directory().join(format!("{platform}.json"));
        let said = serde_json::json!({"platform": platform, "verityRootHash": root_hash});
        std::fs::write(&file, said.to_string()).context("write a statement")?;
        let builds = self.world.collector.json(["image", "list"])?;
        let build = text(&builds[0]["build"])?;
        let file = file.to_str().context("a path that is text")?;
        let arguments = ["image", "artifact", "web", "1", file, "--build", build];
        self.world.collector.cli(arguments).map(drop)
    }
}

fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .with_context(|| format!("{value} is no text"))
}

fn says(drift: &Value, words: &str) -> bool {
    drift["detail"]
        .as_str()
        .is_some_and(|detail| detail.contains(words))
}
