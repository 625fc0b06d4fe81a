//! Receives a running fleet; tells what its reports say after packages were installed, upgraded and removed on an instance.

mod rpm;
mod watched;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Instance, Recipe, relay};
use serde_json::Value;

/// Whatever is waited for takes seconds; this is for two busy cores.
const LIMIT: Duration = Duration::from_secs(90);

/// A tiny package with a program, a library's worth of files, and a configuration file; built by dpkg itself.
fn package(place: &Path, name: &str, version: &str, files: usize) -> Result<Vec<u8>> {
    let root = place.join(format!("{name}-{version}"));
    let write = |path: &str, content: &str| -> Result<()> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(path, content)?;
        Ok(())
    };
    write(
        "DEBIAN/control",
        &format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a tiny one\n"
        ),
    )?;
    write("DEBIAN/conffiles", &format!("/etc/{name}.conf\n"))?;
    write(&format!("etc/{name}.conf"), &format!("# of {version}\n"))?;
    for nth in 0..files {
        write(
            &format!("usr/share/{name}/{nth}"),
            &format!("{nth} of {version}\n"),
        )?;
    }
    write(
        &format!("usr/bin/{name}"),
        &format!("#!/bin/sh\necho {version}\n"),
    )?;
    write("DEBIAN/md5sums", "")?;
    run(Command::new("sh")
        .args([
            "-c",
            "chmod 755 usr/bin/* && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums",
        ])
        .current_dir(&root))?;
    let deb = place.join(format!("{name}_{version}.deb"));
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(&root)
        .arg(&deb))?;
    fs::read(&deb).context("read a package")
}

fn check(instance: &Instance) -> Result<(String, Vec<Value>)> {
    let text = instance.try_exec("driftmark-agent check")?;
    assert_eq!(text.status.code(), Some(1), "a transaction is drift");
    let json = instance.try_exec("driftmark-agent check --json")?;
    let drifts = String::from_utf8(json.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line.get("summary").is_none())
        .collect();
    Ok((String::from_utf8(text.stdout)?, drifts))
}

/// Whether a line of a text has all of these, and this at its end.
fn has_line(text: &str, parts: &[&str], end: &str) -> bool {
    let mut lines = text.lines().filter(|line| line.trim_end().ends_with(end));
    lines.any(|line| parts.iter().all(|part| line.contains(part)))
}

fn recipe(place: &Path) -> Result<Recipe> {
    // In the image from the start, as if its base had brought them.
    let installed = |name: &str, version: &str, files: usize| -> Result<String> {
        let package = drift::base64(&package(place, name, version, files)?);
        Ok(format!(
            "echo {package} | base64 -d > /{name}.deb && dpkg -i /{name}.deb && rm /{name}.deb"
        ))
    };
    Ok(Recipe::new("transactions", "1")
        .step(&installed("tiny", "1.0", 20)?)
        .step(&installed("going", "3.1", 5)?)
        .file("/srv/tiny.deb", 0o644, package(place, "tiny", "1.1", 20)?)
        .file("/srv/more.deb", 0o644, package(place, "more", "7", 40)?))
}

/// What apt does: a package of the archive, another, an upgrade, and a removal.
fn transactions(machine: &mut Instance) -> Result<()> {
    let apt = format!(
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::http::Proxy=http://{}",
        relay::ADDRESS
    );
    machine.exec(&format!(
        "{apt} update && {apt} --download-only install hello"
    ))?;
    // Nothing looks at what is half done, so each label is that of the end.
    machine.kill_agent("STOP")?;
    let done = machine.exec(&format!(
        "{apt} install hello /srv/tiny.deb /srv/more.deb && {apt} purge going"
    ));
    machine.kill_agent("CONT")?;
    done.map(drop)
}

#[test]
fn an_installation_an_upgrade_and_a_removal_are_a_line_each_and_one_for_the_database() -> Result<()>
{
    if !possible("installing packages on an instance") {
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let fleet = Fleet::new(&FleetOptions {
        policy: "mode = \"observe\"\n".to_owned(),
        recipe: Some(recipe(place.path())?),
        ..FleetOptions::default()
    })?;
    relay::open(&fleet.lab)?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;
    fleet.cloud.with(&vm, transactions)?;

    let (text, drifts) = fleet.cloud.with(&vm, |machine| check(machine))?;
    let lines: Vec<&str> = text.lines().collect();
    let counted = drifts.len();
    ensure!(lines.len() == 6, "five lines and a verdict, not\n{text}");
    for (line, told) in lines.iter().zip([
        "going 3.1 removed, ",
        "hello 2.",
        "more 7 installed, ",
        "tiny 1.0 → 1.1, ",
        "the package database itself, in /var/lib/dpkg, ",
    ]) {
        ensure!(
            line.contains(told) && line.ends_with("(host database, unsigned)"),
            "{told:?} is not in {line:?}"
        );
    }
    ensure!(
        lines[5].contains(&format!("{counted} differences")) && counted > 100,
        "{counted}: {}",
        lines[5]
    );
    // Each by itself for machines, with class and severity as ever.
    let of = |path: &str| {
        drifts
            .iter()
            .find(|drift| drift["path"] == path)
            .context(path.to_owned())
    };
    let upgraded = of("/usr/bin/tiny")?;
    assert_eq!(upgraded["package"], "tiny 1.0");
    assert_eq!(
        upgraded["host_package"],
        serde_json::json!({"name": "tiny", "version": "1.1", "matches": true})
    );
    assert_eq!(upgraded["severity"], "critical");
    assert_eq!(of("/etc/tiny.conf")?["host_package"]["matches"], true);
    assert_eq!(of("/usr/share/more/39")?["host_package"]["name"], "more");
    assert_eq!(of("/usr/bin/hello")?["host_package"]["name"], "hello");
    assert_eq!(of("/usr/bin/going")?["package"], "going 3.1");

    // The agent that runs says the same to the collector, which counts every file as ever.
    let show = || fleet.collector.cli(["instance", "show", &id]);
    let mut last = String::new();
    let shown = until("the labels to arrive", LIMIT, || {
        last = show()?;
        let all = ["tiny 1.0 → 1.1, ", "more 7 installed, ", "hello 2."];
        let told = |what: &&str| {
            let parts = [what, "(host database, unsigned)"];
            has_line(&last, &parts, "/usr/bin/dpkg")
        };
        Ok(all.iter().all(told).then_some(()))
    });
    shown.with_context(|| last.clone())?;
    for path in ["/usr/bin/tiny", "/usr/bin/hello", "/usr/share/more/39"] {
        ensure!(
            !last.contains(path),
            "{path} is in no line of its own:\n{last}"
        );
    }
    assert_eq!(fleet.show(&id)?["open"], counted);

    // An intruder in the shadow of it: nothing of theirs is in any line on a package.
    fleet.cloud.with(&vm, |machine| {
        machine.exec("echo evil >> /usr/bin/tiny; cp /usr/bin/id /usr/bin/more2; chmod u+s /usr/share/more/1; echo evil > /usr/bin/id")
    })?;
    let (text, _) = fleet.cloud.with(&vm, |machine| check(machine))?;
    let intruded = [
        "/usr/bin/tiny",
        "/usr/bin/more2",
        "/usr/share/more/1",
        "/usr/bin/id",
    ];
    for path in intruded {
        ensure!(
            text.lines()
                .any(|line| line.contains(&format!(" {path}  "))),
            "{path} has no line of its own in\n{text}"
        );
    }
    let shown = until("a line on each", LIMIT, || {
        last = show()?;
        Ok(intruded
            .iter()
            .all(|path| last.contains(path))
            .then_some(()))
    });
    shown.with_context(|| last.clone())
}
