//! Files of the collector that others can write, or that say what it does not know: refused, with exit code 78.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use driftmark_tests::process::finish;
use driftmark_tests::{Collector, CollectorOptions, Program, Running};

use crate::world::{OBSERVED, World};

fn chmod(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", path.display()))
}

/// Checks a configuration; the fleets file lies beside it.
fn check(directory: &Path) -> Result<Output> {
    let mut command = Program::Collector.command()?;
    command
        .arg("check-config")
        .arg(directory.join("collector.toml"))
        .arg("--data")
        .arg(directory.join("data"));
    finish(&mut command)
}

/// Serves by a configuration that is to be refused; its exit code and output.
fn serve(directory: &Path) -> Result<(Option<i32>, String)> {
    let mut command = Program::Collector.command()?;
    command
        .arg("serve")
        .arg("--config")
        .arg(directory.join("collector.toml"))
        .arg("--data");
    command.arg(directory.join("data")).args([
        "--agents",
        "127.0.0.1:0",
        "--operators",
        "127.0.0.1:0",
    ]);
    let mut running = Running::start("collector", command)?;
    let status = running.wait(Duration::from_secs(20))?;
    Ok((status.code(), running.output()))
}

fn write(directory: &Path, config: &str, fleets: &str) -> Result<()> {
    fs::write(directory.join("fleets.toml"), fleets).context("write fleets")?;
    let path = directory.join("fleets.toml");
    fs::write(
        directory.join("collector.toml"),
        format!("fleets = {path:?}\n{config}\n"),
    )
    .context("write")?;
    chmod(&directory.join("fleets.toml"), 0o644)?;
    chmod(&directory.join("collector.toml"), 0o644)
}

#[test]
fn what_a_configuration_does_not_know_is_refused_with_78() -> Result<()> {
    let home = tempfile::tempdir()?;
    let cases = [
        ("an unknown key", "hartbeat = \"1s\"", OBSERVED, "hartbeat"),
        (
            "an unknown section",
            "[tls]\nverify = false",
            OBSERVED,
            "tls",
        ),
        (
            "a key twice",
            "heartbeat = \"1s\"\nheartbeat = \"2s\"",
            OBSERVED,
            "duplicate",
        ),
        ("no TOML", "\u{1b}[2J", OBSERVED, "understand"),
        (
            "a certificate for ever",
            "certificate-life = \"3650d\"",
            OBSERVED,
            "certificate-life",
        ),
        (
            "an unknown key of a fleet",
            "",
            "[[fleet]]\nname = \"web\"\nstop-abowe = \"1%\"",
            "stop-abowe",
        ),
        (
            "an unknown section of fleets",
            "",
            "[[fleets]]\nname = \"web\"",
            "fleets",
        ),
        (
            "an unknown key of a replacer",
            "",
            "[[fleet]]\nname = \"web\"\nreplacer = { command = [\"/x\"], shell = true }",
            "shell",
        ),
        (
            "a relative program",
            "",
            "[[fleet]]\nname = \"web\"\nreplacer = { command = [\"x\"] }",
            "absolute",
        ),
        (
            "a fleet twice",
            "",
            "[[fleet]]\nname = \"web\"\n[[fleet]]\nname = \"web\"",
            "twice",
        ),
        (
            "a fleet without a name",
            "",
            "[[fleet]]\nmode = \"replace\"",
            "name",
        ),
        (
            "a name that leaves",
            "",
            "[[fleet]]\nname = \"../web\"",
            "name",
        ),
        (
            "a share of more than all",
            "",
            "[[fleet]]\nname = \"web\"\nstop-above = \"101%\"",
            "stop-above",
        ),
    ];
    for (what, config, fleets, word) in cases {
        write(home.path(), config, fleets)?;
        for (code, said) in [checked(home.path())?, serve(home.path())?] {
            println!("{what}: {said}");
            assert_eq!(code, Some(78), "{what}: {said}");
            assert!(said.contains(word), "{what} is not named: {said}");
            assert!(
                !said
                    .chars()
                    .any(|letter| letter.is_control() && letter != '\n'),
                "{what} draws: {said:?}"
            );
        }
    }
    Ok(())
}

fn checked(directory: &Path) -> Result<(Option<i32>, String)> {
    let output = check(directory)?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn a_file_that_anyone_may_write_is_refused_with_78() -> Result<()> {
    let home = tempfile::tempdir()?;
    for file in ["collector.toml", "fleets.toml"] {
        write(home.path(), "", OBSERVED)?;
        assert_eq!(check(home.path())?.status.code(), Some(0));
        chmod(&home.path().join(file), 0o666)?;
        for (code, said) in [checked(home.path())?, serve(home.path())?] {
            assert_eq!(code, Some(78), "{file}: {said}");
            assert!(said.contains("chmod") && said.contains(file), "{said}");
        }
    }
    Ok(())
}

#[test]
fn secrets_that_others_can_read_or_write_are_refused_with_78() -> Result<()> {
    let collector = Collector::here(CollectorOptions {
        fleets: OBSERVED.to_owned(),
        ..CollectorOptions::default()
    })?;
    let data = collector.data();
    for mode in [0o644, 0o640, 0o606] {
        chmod(&data.join("operator.token"), mode)?;
        let output = collector.try_cli(["instance", "list"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(78),
            "a token of mode {mode:o} was used: {said}"
        );
        assert!(
            said.contains("operator.token") && said.contains("chmod"),
            "{said}"
        );
    }
    chmod(&data.join("operator.token"), 0o600)?;
    collector.cli(["instance", "list"])?;
    collector.kill_hard()?;
    let directory = data.parent().context("a directory")?.to_owned();
    for (path, mode, back) in [
        (data.join("ca.key"), 0o644, 0o600),
        (data.join("ca.key"), 0o602, 0o600),
        (data.clone(), 0o755, 0o700),
        (data.clone(), 0o777, 0o700),
    ] {
        chmod(&path, mode)?;
        let (code, said) = serve(&directory)?;
        assert_eq!(
            code,
            Some(78),
            "{} of mode {mode:o}: {said}",
            path.display()
        );
        assert!(said.contains("chmod"), "{said}");
        chmod(&path, back)?;
    }
    for secret in ["ca.key", "operator.token", "collector.db"] {
        let mode = fs::metadata(data.join(secret))?.permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{secret}");
    }
    Ok(())
}

#[test]
fn a_bad_fleets_file_keeps_what_held_before_and_says_so() -> Result<()> {
    let world = World::new()?;
    let fleets = world
        .collector
        .data()
        .parent()
        .context("a directory")?
        .join("fleets.toml");
    let says = |text: &str| {
        world.wait(text, || {
            Ok(world.collector.output().contains(text).then_some(()))
        })
    };
    fs::write(
        &fleets,
        "[[fleet]]\nname = \"web\"\nmode = \"replace\"\nchanel = \"stable\"\n",
    )?;
    says("what held before holds on")?;
    says("chanel")?;
    assert!(world.collector.is_running());
    world.clean("vm-1")?;
    fs::write(&fleets, format!("{OBSERVED}grace = \"1m\"\n"))?;
    says("other policies hold from now on")?;
    fs::write(&fleets, OBSERVED)?;
    chmod(&fleets, 0o666)?;
    says("can be written by everyone")?;
    fs::remove_file(&fleets)?;
    world.clean("vm-2")?;
    assert!(world.collector.is_running());
    Ok(())
}

#[test]
fn a_data_directory_has_one_collector() -> Result<()> {
    let collector = Collector::here(CollectorOptions {
        fleets: OBSERVED.to_owned(),
        ..CollectorOptions::default()
    })?;
    let directory = collector.data().parent().context("a directory")?.to_owned();
    let (code, said) = serve(&directory)?;
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("another collector"), "{said}");
    collector.cli(["instance", "list"])?;
    Ok(())
}

#[test]
fn a_ca_with_another_key_is_refused() -> Result<()> {
    let collector = Collector::here(CollectorOptions {
        fleets: OBSERVED.to_owned(),
        ..CollectorOptions::default()
    })?;
    let data = collector.data();
    collector.kill_hard()?;
    let directory = data.parent().context("a directory")?.to_owned();
    let key = fs::read(data.join("ca.key"))?;
    fs::write(data.join("ca.key"), crate::forge::p256()?.serialize_pem())?;
    let (code, said) = serve(&directory)?;
    assert_ne!(code, Some(0));
    assert!(said.contains("does not belong to the key"), "{said}");
    fs::write(data.join("ca.key"), &key[..key.len() / 2])?;
    assert_ne!(serve(&directory)?.0, Some(0));
    fs::remove_file(data.join("ca.key"))?;
    let (code, said) = serve(&directory)?;
    assert_ne!(
        code,
        Some(0),
        "a new key beside the old certificate: {said}"
    );
    Ok(())
}
