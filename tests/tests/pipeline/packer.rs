//! Packer, the real one, over SSH to a running machine: installs the package, cleans, bakes, and has the signature come back.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use driftmark_tests::process::{Program, run};
use driftmark_tests::sandbox::possible;
use driftmark_tests::{InstanceOptions, Lab, Recipe, Workshop, packages};
use serde_json::Value;

use crate::world::scripts;

#[test]
fn packer_leaves_a_machine_that_is_what_was_signed() -> Result<()> {
    if !possible("building with Packer") {
        return Ok(());
    }
    let workshop = Workshop::open()?;
    let recipe = ["openssh-server", "sudo"]
        .iter()
        .fold(Recipe::new("builder", "1"), |recipe, package| {
            recipe.package(package)
        });
    let image = recipe.build_without_agent(&workshop)?;
    let lab = Lab::new()?;
    let directory = lab.directory().to_owned();
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
        .arg(directory.join("id")))?;
    let options = InstanceOptions {
        files: vec![(
            "/root/.ssh/authorized_keys".to_owned(),
            fs::read_to_string(directory.join("id.pub")).context("read a key")?,
        )],
        ..InstanceOptions::default()
    };
    let mut machine = lab.boot(&image, "builder", &options)?;
    machine.exec("ssh-keygen -A; systemctl restart ssh")?;
    run(lab
        .command(Program::Agent.path()?)
        .args(["keygen", "--output"])
        .arg(directory.join("keys")))?;
    fs::create_dir(directory.join("out")).context("make a directory")?;

    let bin = Program::Agent.path()?;
    let bin = bin.parent().context("a program is in a directory")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let variable = |name: &str, value: &str| format!("-var={name}={value}");
    run(lab
        .command("env")
        .arg(format!("--chdir={}", directory.display()))
        .args(["CHECKPOINT_DISABLE=1", "PACKER_CONFIG_DIR=."])
        .arg(format!("PATH={path}"))
        .args(["packer", "build", "-color=false"])
        .arg(variable("host", machine.address()))
        .arg(variable(
            "ssh_key",
            &directory.join("id").display().to_string(),
        ))
        .arg(variable("version", "7"))
        .arg(variable(
            "deb",
            &packages::deb(Program::Agent)?
                .canonicalize()?
                .display()
                .to_string(),
        ))
        .arg(scripts().join("packer").canonicalize()?))?;

    let made = fs::read(directory.join("out/packer-manifest.json")).context("Packer's manifest")?;
    let made: Value = serde_json::from_slice(&made).context("Packer's manifest")?;
    assert_eq!(
        made["builds"][0]["custom_data"]["driftmark.version"], "7",
        "{made}"
    );
    machine.poweroff()?;
    let root = machine.root_in_lab();
    run(lab
        .command(Program::Agent.path()?)
        .args(["check", "--root"])
        .arg(&root)
        .arg("--manifest")
        .arg(root.join("usr/lib/driftmark/image.manifest"))
        .arg("--trust")
        .arg(directory.join("keys/driftmark.pub"))
        .arg("--state")
        .arg(directory.join("state")))?;
    Ok(())
}
