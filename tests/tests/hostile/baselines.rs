//! Manifests that are not the registered one: swapped on an instance together with its key, or only named.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use drift::report::ImageRef;
use driftmark_tests::{Program, Running};
use serde_json::{Value, json};

use crate::world::{FLEET, World};

#[test]
fn a_manifest_swapped_with_its_key_on_an_instance_is_drift() -> Result<()> {
    let world = World::with(crate::world::OBSERVED, "heartbeat = \"1s\"")?;
    // The instance's own tree, with the manifest and the key that it trusts: all within reach of its root.
    let (image, trust) = (world.path("instance/image"), world.path("instance/trust.d"));
    fs::create_dir_all(&image)?;
    fs::create_dir_all(&trust)?;
    let install = |from: &str, keys: &str| -> Result<()> {
        for file in ["image.manifest", "image.manifest.sig"] {
            fs::copy(world.path(from).join(file), image.join(file))
                .with_context(|| format!("install {file}"))?;
        }
        let _ = fs::remove_dir_all(&trust);
        fs::create_dir_all(&trust)?;
        fs::copy(
            world.path(keys).join("driftmark.pub"),
            trust.join("image.pub"),
        )
        .context("install a key")?;
        Ok(())
    };
    install("1", "keys")?;
    let token = world.path("instance/token");
    fs::write(&token, world.collector.join_token(FLEET, Some("vm-1"))?)?;
    fs::write(world.path("instance/cloud-id"), "vm-1\n")?;
    let config = world.path("instance/agent.toml");
    let text = format!(
        "root = {:?}\nstate-directory = {:?}\nstatus-socket = {:?}\n[enroll]\ntoken-file = {token:?}\n\
         cloud-id-file = {:?}\n[image]\nmanifest = {:?}\ntrust = [{trust:?}]\n[scan]\nquick-interval = \"1s\"\n\
         [probe]\nlisten = \"off\"\n",
        world.path("1-root"),
        world.path("instance/state"),
        world.path("instance/agent.sock"),
        world.path("instance/cloud-id"),
        image.join("image.manifest"),
    );
    fs::write(&config, text)?;
    let start = || -> Result<Running> {
        let mut command = Program::Agent.command()?;
        command.arg("run").arg("--config").arg(&config);
        Running::start("agent", command)
    };
    let state = |agent: &Running, wanted: &str| -> Result<Value> {
        let mut last = Value::Null;
        let waited = driftmark_tests::patience::until(
            &format!("a {wanted} instance"),
            Duration::from_secs(30),
            || {
                let everybody = world.everybody()?;
                last = everybody.values().next().cloned().unwrap_or_default();
                Ok((last["state"] == wanted).then(|| last.clone()))
            },
        );
        waited.with_context(|| format!("{last:#}\nthe agent wrote:\n{}", agent.output()))
    };
    let agent = start()?;
    let shown = state(&agent, "clean")?;
    assert_eq!(shown["reported_manifest"], world.image.manifest.to_string());
    drop(agent);
    // The intruder changes a program, bakes the result as the very same image, and brings a key of their own.
    fs::write(world.path("1-root/usr/bin/tool"), "#!/bin/sh\necho owned\n")?;
    fs::create_dir_all(world.path("forged-root"))?;
    world.agent(["keygen", "--output", &world.text("forged-keys")])?;
    let root = world.text("1-root");
    let (output, key) = (
        world.text("forged"),
        world.text("forged-keys/driftmark.key"),
    );
    let bake = [
        "bake",
        "--root",
        &root,
        "--name",
        FLEET,
        "--version",
        "1",
        "--build",
        "test",
        "--output",
        &output,
    ];
    world.agent(bake.into_iter().chain(["--key", &key, "--rules", "none"]))?;
    // With the manifest alone nothing can be verified any more …
    for file in ["image.manifest", "image.manifest.sig"] {
        fs::copy(world.path("forged").join(file), image.join(file))?;
    }
    let agent = start()?;
    let shown = state(&agent, "unverifiable")?;
    assert!(
        shown["unverifiable"]
            .as_str()
            .is_some_and(|why| !why.is_empty()),
        "{shown:#}"
    );
    drop(agent);
    // … and with the key too the agent finds itself clean, but it is not what was registered.
    install("forged", "forged-keys")?;
    let agent = start()?;
    let shown = state(&agent, "drifted")?;
    let drifts = shown["drifts"].as_array().context("drifts")?;
    assert_eq!(drifts.len(), 1, "{shown:#}");
    assert_eq!(
        drifts[0]["raised"], true,
        "the collector says so, not the agent"
    );
    assert_eq!(drifts[0]["drift"]["kind"], "baseline");
    assert_eq!(drifts[0]["severity"], "critical");
    assert_ne!(shown["reported_manifest"], world.image.manifest.to_string());
    assert_eq!(shown["manifest"], world.image.manifest.to_string());
    drop(agent);
    Ok(())
}

#[test]
fn clean_by_another_images_manifest_is_not_clean() -> Result<()> {
    let world = World::new()?;
    world.bake("2", "the second")?;
    let second = world.register("2", None)?;
    let mut machine = world.clean("vm-1")?;
    // It enrolled for version 1: version 2, good as it is, is another image.
    machine.image = Some(second.clone());
    assert_eq!(machine.report_clean()?.state.word(), "drifted");
    let shown = world.instance(&machine.id)?;
    assert_eq!(shown["drifts"][0]["drift"]["kind"], "baseline", "{shown:#}");
    assert_eq!(
        shown["image"],
        format!("{FLEET} 1 test"),
        "it is still held to be what it enrolled for"
    );
    // The name of the first with the manifest of the second.
    machine.image = Some(ImageRef {
        manifest: second.manifest,
        ..world.image.clone()
    });
    assert_eq!(machine.report_clean()?.state.word(), "drifted");
    machine.image = Some(world.image.clone());
    assert_eq!(machine.report_clean()?.state.word(), "clean");
    Ok(())
}

#[test]
fn an_image_that_is_not_registered_is_never_clean() -> Result<()> {
    let world = World::new()?;
    let nobodys = drift::Blake3::of(b"nobody registered this");
    let unknown = [
        ImageRef {
            version: "99".to_owned(),
            ..world.image.clone()
        },
        ImageRef {
            build: "other".to_owned(),
            ..world.image.clone()
        },
        ImageRef {
            name: "other".to_owned(),
            manifest: nobodys,
            ..world.image.clone()
        },
        ImageRef {
            name: "web' --".to_owned(),
            ..world.image.clone()
        },
        ImageRef {
            name: "WEB".to_owned(),
            ..world.image.clone()
        },
    ];
    for (number, image) in unknown.into_iter().enumerate() {
        let mut machine =
            world.enrol_in(FLEET, Some(&format!("vm-{number}")), Some(image.clone()))?;
        assert_eq!(
            machine.report_clean()?.state.word(),
            "unverifiable",
            "{image:?}"
        );
    }
    let mut silent_about_it = world.enrol_in(FLEET, Some("vm-none"), None)?;
    assert_ne!(silent_about_it.report_clean()?.state.word(), "clean");
    assert_eq!(world.instance(&silent_about_it.id)?["image"], json!(null));
    Ok(())
}

#[test]
fn who_stops_naming_an_image_is_not_clean_by_what_it_said_before() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.clean("vm-1")?;
    machine.image = None;
    let verdict = machine.report_clean()?;
    assert_ne!(
        verdict.state.word(),
        "clean",
        "{:#}",
        world.instance(&machine.id)?
    );
    Ok(())
}
