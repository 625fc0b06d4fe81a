//! The units themselves, as systemd's own tools judge them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use driftmark_tests::process::finish;

/// The shipped units and ten times what each may be exposed.
const EXPOSED: [(&str, u32); 2] = [
    ("driftmark-agent.service", 30),
    ("driftmark-collector.service", 15),
];

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/usr/lib")
}

/// The unit in a directory of its own, naming programs that are installed on the machine that builds it.
fn verifiable(unit: &str, directory: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(shipped().join("systemd/system").join(unit))?
        .replace("/usr/bin/driftmark-agent", "/bin/true")
        .replace("/usr/bin/driftmark-collector", "/bin/true");
    let path = directory.join(unit);
    fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    verifiable("driftmark.slice", directory.path())?;
    for (unit, most) in EXPOSED {
        let path = verifiable(unit, directory.path())?;
        let verified = finish(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(&path),
        )?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let about_it: Vec<_> = said
            .lines()
            .filter(|line| line.contains("driftmark"))
            .collect();
        ensure!(about_it.is_empty(), "{unit}: {about_it:?}");

        let threshold = format!("--threshold={most}");
        let judged = finish(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", &threshold])
                .arg(&path),
        )?;
        let said = String::from_utf8_lossy(&judged.stdout).into_owned();
        ensure!(said.contains("Overall exposure level"), "{unit}: {said}");
        ensure!(
            judged.status.success(),
            "{unit} is exposed by more than {most}/10: {said}"
        );
    }
    Ok(())
}

#[test]
fn what_keeps_a_unit_exposed_is_explained_in_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for (unit, _) in EXPOSED {
        let path = verifiable(unit, directory.path())?;
        let judged = finish(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager"])
                .arg(&path),
        )?;
        let text = fs::read_to_string(&path)?;
        let comments: String = text.lines().filter(|line| line.starts_with('#')).collect();
        for line in String::from_utf8_lossy(&judged.stdout).lines() {
            let Some(finding) = line.strip_prefix('✗') else {
                continue;
            };
            let name = finding.split_whitespace().next().unwrap_or_default();
            let words = name
                .rsplit('~')
                .next()
                .unwrap_or(name)
                .trim_matches(|c| "@=()".contains(c));
            let said = words.split(['|', '(', ')', '/']).any(|word| {
                let word = word.trim_end_matches(['*', '=', '_']);
                word.len() > 2 && word != "CAP" && comments.contains(word)
            });
            ensure!(said, "{unit} does not say why {name} stays: {line}");
        }
    }
    Ok(())
}

#[test]
fn keys_of_newer_systemd_come_by_version_for_each_unit_alike() -> Result<()> {
    let units = shipped().join("driftmark/units");
    let mut scripts = Vec::new();
    for (unit, _) in EXPOSED {
        scripts.push(fs::read(units.join(unit).join("apply"))?);
        let newer = fs::read_to_string(units.join(unit).join("254.conf"))?;
        let text = fs::read_to_string(shipped().join("systemd/system").join(unit))?;
        for key in newer.lines().filter_map(|line| line.split_once('=')) {
            ensure!(
                !text.contains(&format!("\n{}=", key.0)),
                "{unit} has {} already",
                key.0
            );
        }
    }
    ensure!(scripts[0] == scripts[1], "the two scripts differ");

    // The script asks the systemctl that it finds; here it finds one of either age.
    for (version, is_installed) in [
        ("252 (252.39-1~deb12u2)", false),
        ("257 (257.9-1~deb13u1)", true),
    ] {
        let place = tempfile::tempdir()?;
        let bin = place.path().join("bin");
        fs::create_dir(&bin)?;
        let chroot = bin.join("chroot");
        fs::write(&chroot, format!("#!/bin/sh\necho 'systemd {version}'\n"))?;
        fs::set_permissions(&chroot, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let drop_in = place
            .path()
            .join("usr/lib/systemd/system/driftmark-agent.service.d/50-systemd-254.conf");
        for (arguments, expected) in [(&[][..], is_installed), (&["--remove"], false)] {
            let mut command = Command::new(units.join("driftmark-agent.service/apply"));
            let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
            let done = finish(command.args(arguments).arg(place.path()).env("PATH", path))?;
            ensure!(done.status.success(), "{done:?}");
            ensure!(drop_in.exists() == expected, "{version} {arguments:?}");
        }
        ensure!(
            !drop_in.parent().is_some_and(Path::exists),
            "a directory is left"
        );
    }
    Ok(())
}
