//! Receives a root that rpm itself filled; tells what is said of its files at bake, and of what rpm changed there later.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::Program;
use driftmark_tests::process::{finish, run};
use driftmark_tests::sandbox::possible;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A program, a configuration file, a link, files of its own, what is only owned, and what the package is to do.
const SPEC: &str = "
Name: NAME
Version: VERSION
Release: 3
EPOCH
Summary: a tiny one
License: none
BuildArch: noarch
%description
a tiny one
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/usr/share/NAME
echo NAME VERSION > %{buildroot}/usr/bin/NAME
ln -s NAME %{buildroot}/usr/bin/NAME-link
echo conf > %{buildroot}/etc/NAME.conf
for n in $(seq 1 COUNT); do echo $n VERSION > %{buildroot}/usr/share/NAME/file-number-$n; done
SCRIPT
%files
/usr/bin/NAME
/usr/bin/NAME-link
%config(noreplace) /etc/NAME.conf
/usr/share/NAME
%ghost /usr/share/NAME.ghost
";
/// As if the power had failed: rpm ends when the package is in its database and nothing was put away yet.
const CUT_OFF: &str = "%posttrans -p <lua>\nposix.kill(posix.getprocessid(\"pid\"), 9)";
const DATABASE: &str = "/var/lib/rpm";

struct World {
    place: TempDir,
    agent: PathBuf,
}

impl World {
    fn new() -> Result<Self> {
        let world = World {
            place: tempfile::tempdir()?,
            agent: Program::Agent.path()?,
        };
        fs::create_dir(world.path("root"))?;
        run(world.rpm().arg("--initdb"))?;
        run(Command::new(&world.agent)
            .args(["keygen", "--output"])
            .arg(world.path("keys")))?;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// rpm at work on the root, with the database that RHEL 9 and Amazon Linux 2023 have.
    fn rpm(&self) -> Command {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(self.path("root"));
        rpm.args(["--define", "_db_backend sqlite", "--dbpath", DATABASE]);
        rpm
    }

    /// A package that rpm built: its file.
    fn package(&self, name: &str, version: &str, count: usize, script: &str) -> Result<PathBuf> {
        let (epoch, number) = version.split_once(':').unwrap_or(("", version));
        let epoch = match epoch {
            "" => String::new(),
            epoch => format!("Epoch: {epoch}"),
        };
        let spec = SPEC
            .replace("NAME", name)
            .replace("VERSION", number)
            .replace("COUNT", &count.to_string())
            .replace("EPOCH", &epoch)
            .replace("SCRIPT", script);
        let file = self.path("package.spec");
        fs::write(&file, spec)?;
        let place = self.place.path().display();
        run(Command::new("rpmbuild")
            .args(["-bb", "--quiet"])
            .args(["--define", &format!("_topdir {place}/build")])
            .args(["--define", &format!("_rpmdir {place}")])
            .args(["--define", "_build_name_fmt %%{NAME}-%%{VERSION}.rpm"])
            .arg(&file))?;
        Ok(self.path(&format!("{name}-{number}.rpm")))
    }

    /// Bakes what `--root` or `--tar` says into a directory.
    fn bake(&self, output: &str, source: &str, path: &str) -> Result<()> {
        run(Command::new(&self.agent)
            .args(["bake", "--rules", "none", "--name", "rpm", "--version", "1"])
            .arg("--key")
            .arg(self.path("keys/driftmark.key"))
            .arg(source)
            .arg(self.path(path))
            .arg("--output")
            .arg(self.path(output)))?;
        Ok(())
    }

    fn check(&self, json: &[&str]) -> Result<String> {
        let checked = finish(
            Command::new(&self.agent)
                .arg("check")
                .args(json)
                .arg("--root")
                .arg(self.path("root"))
                .arg("--manifest")
                .arg(self.path("baked/image.manifest"))
                .arg("--trust")
                .arg(self.path("keys/driftmark.pub"))
                .arg("--state")
                .arg(self.path("state")),
        )?;
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        ensure!(checked.status.code() == Some(1), "drift is 1:\n{told}");
        String::from_utf8(checked.stdout).context("check prints text")
    }

    fn drifts(&self) -> Result<BTreeMap<String, Value>> {
        let checked = self.check(&["--json"])?;
        let drifts =
            lines(&checked).filter_map(|line| Some((line["path"].as_str()?.to_owned(), line)));
        Ok(drifts.collect())
    }

    /// What rpm says that each path is a part of.
    fn asked(&self) -> Result<BTreeMap<String, String>> {
        const FORMAT: &str =
            "[%{FILENAMES} %{=NAME}.%{=ARCH} %|EPOCH?{%{=EPOCH}:}:{}|%{=VERSION}-%{=RELEASE}\\n]";
        let asked = run(self.rpm().args(["-qa", "--qf", FORMAT]))?;
        let lines = asked.lines().filter_map(|line| line.split_once(' '));
        let there = lines.filter(|(path, _)| !path.ends_with(".ghost"));
        Ok(there
            .map(|(path, package)| (path.to_owned(), package.to_owned()))
            .collect())
    }

    /// What a baked manifest says of that.
    fn owned(&self, output: &str) -> Result<BTreeMap<String, String>> {
        let shown = run(Command::new(&self.agent)
            .args(["inspect", "--json"])
            .arg(self.path(output).join("image.manifest")))?;
        let text = |entry: &Value, key: &str| Some(entry[key].as_str()?.to_owned());
        Ok(lines(&shown)
            .filter_map(|entry| Some((text(&entry, "path")?, text(&entry, "package")?)))
            .collect())
    }
}

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
}

/// Each line of `text` but the verdict says what is expected of it, in this order.
fn said(text: &str, expected: &[&str]) -> Result<()> {
    let lines: Vec<&str> = text.lines().collect();
    ensure!(
        lines.len() == expected.len() + 1,
        "{expected:?}, not\n{text}"
    );
    for (line, told) in lines.iter().zip(expected) {
        ensure!(
            line.contains(told) && line.ends_with("(host database, unsigned)"),
            "{told:?} is not in\n{text}"
        );
    }
    Ok(())
}

#[test]
fn what_rpm_installs_upgrades_and_erases_is_a_line_each_and_a_hostile_database_takes_only_that()
-> Result<()> {
    if !possible("rpm at work on a root") {
        return Ok(());
    }
    let world = World::new()?;
    let install = |options: &str, packages: &[PathBuf]| {
        run(world.rpm().args([options, "--nodeps"]).args(packages))
    };
    install(
        "-i",
        &[
            world.package("tiny", "2:1.0", 20, "")?,
            world.package("going", "3.1", 5, "")?,
            world.package("large", "1", 1200, "")?,
        ],
    )?;
    world.bake("baked", "--root", "root")?;
    run(Command::new("tar")
        .args(["--numeric-owner", "-C"])
        .arg(world.path("root"))
        .arg("-cf")
        .arg(world.path("root.tar"))
        .arg("."))?;
    world.bake("of-tar", "--tar", "root.tar")?;
    let (owned, asked) = (world.owned("baked")?, world.asked()?);
    ensure!(asked.len() > 1230, "{} paths of rpm", asked.len());
    assert_eq!(owned, asked);
    assert_eq!(world.owned("of-tar")?, asked);
    assert_eq!(owned["/usr/bin/tiny"], "tiny.noarch 2:1.0-3");

    install("-U", &[world.package("tiny", "2:1.1", 20, "")?])?;
    install("-i", &[world.package("more", "7", 40, "")?])?;
    run(world.rpm().args(["-e", "going"]))?;
    let told = [
        "going.noarch 3.1-3 removed, ",
        "more.noarch 7-3 installed, ",
        "tiny.noarch 2:1.0-3 → 2:1.1-3, ",
        "the package database itself, in /var/lib/rpm, ",
    ];
    said(&world.check(&[])?, &told)?;
    let drifts = world.drifts()?;
    let upgraded = &drifts["/usr/bin/tiny"];
    assert_eq!(upgraded["package"], "tiny.noarch 2:1.0-3");
    assert_eq!(
        upgraded["host_package"],
        json!({"name": "tiny.noarch", "version": "2:1.1-3", "matches": true})
    );
    assert_eq!(drifts["/usr/bin/going"]["package"], "going.noarch 3.1-3");
    assert_eq!(
        drifts["/usr/share/more/file-number-40"]["host_package"]["matches"],
        true
    );

    // Somebody looks at the database, and a transaction is cut off: what it did is in the log alone.
    let cut = world.package("cut", "1", 3, CUT_OFF)?;
    let database = world.path("root").join(&DATABASE[1..]);
    let before = fs::read(database.join("rpmdb.sqlite"))?;
    let killed = finish(world.rpm().args(["-i", "--nodeps"]).arg(cut))?;
    ensure!(
        killed.status.signal() == Some(9),
        "rpm was to be cut off: {killed:?}"
    );
    ensure!(fs::read(database.join("rpmdb.sqlite"))? == before);
    ensure!(fs::metadata(database.join("rpmdb.sqlite-wal"))?.len() > 0);
    said(
        &world.check(&[])?,
        &[&["cut.noarch 1-3 installed, "], &told[..]].concat(),
    )?;

    hostile(&world, &database)
}

/// Nothing but the label goes when the database is not what it was.
fn hostile(world: &World, database: &Path) -> Result<()> {
    let file = database.join("rpmdb.sqlite");
    let without = |mut drifts: BTreeMap<String, Value>| {
        drifts.retain(|path, _| !path.starts_with(DATABASE));
        for drift in drifts.values_mut().filter_map(Value::as_object_mut) {
            drift.remove("host_package");
        }
        drifts
    };
    let before = without(world.drifts()?);
    let good = fs::read(&file)?;
    let middle = good.len() / 2;
    let cases: [(&str, Vec<u8>); 4] = [
        ("no database", b"not one".to_vec()),
        ("cut in two", good[..middle].to_vec()),
        (
            "zeros behind its schema",
            [&good[..4096], &vec![0; good.len()][..]].concat(),
        ),
        (
            "ones all over",
            [&good[..100], &vec![0xff; good.len()][..]].concat(),
        ),
    ];
    fs::remove_file(database.join("rpmdb.sqlite-wal"))?;
    for (name, bytes) in cases {
        fs::write(&file, bytes)?;
        let drifts = world.drifts()?;
        let labels = drifts.values().filter(|drift| {
            drift
                .get("host_package")
                .is_some_and(|label| !label.is_null())
        });
        assert_eq!(labels.count(), 0, "{name}");
        ensure!(
            without(drifts) == before,
            "{name} changed more than the labels"
        );
    }
    Ok(())
}
