//! What is in each package, as the tools of its own world see it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::packages;
use driftmark_tests::process::{Program, finish, run};
use serde_json::Value;

const PROGRAMS: [Program; 2] = [Program::Agent, Program::Collector];
/// What every image carries: 3.5 MiB.
const AGENT_BYTES: u64 = 3_670_016;
/// What every pipeline fetches: 1.6 MiB.
const AGENT_PACKAGE_BYTES: u64 = 1_677_721;

/// A package's files, unpacked.
struct Unpacked {
    directory: tempfile::TempDir,
}

impl Unpacked {
    fn deb(program: Program) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        run(Command::new("dpkg-deb")
            .arg("--raw-extract")
            .arg(packages::deb(program)?)
            .arg(directory.path()))?;
        Ok(Self { directory })
    }

    fn rpm(program: Program) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let unpack = "rpm2cpio \"$1\" | (cd \"$2\" && cpio --extract --make-directories --quiet)";
        run(Command::new("sh")
            .args(["-euc", unpack, "sh"])
            .arg(packages::rpm(program)?)
            .arg(directory.path()))?;
        Ok(Self { directory })
    }

    fn static_agent() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        run(Command::new("tar")
            .arg("-xzf")
            .arg(packages::static_agent()?)
            .arg("--strip-components=1")
            .arg("-C")
            .arg(directory.path()))?;
        Ok(Self { directory })
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    fn program(&self, program: Program) -> PathBuf {
        self.path("usr/bin").join(program.name())
    }

    /// Every program in every kind of package.
    fn all() -> Result<Vec<(Program, Self)>> {
        let mut all = vec![(Program::Agent, Self::static_agent()?)];
        for program in PROGRAMS {
            all.push((program, Self::deb(program)?));
            all.push((program, Self::rpm(program)?));
        }
        Ok(all)
    }
}

#[test]
fn lintian_has_nothing_to_say() -> Result<()> {
    for program in PROGRAMS {
        let package = packages::deb(program)?;
        let output = finish(
            Command::new("lintian")
                .args(["--allow-root", "--no-cfg", "--fail-on=warning,error"])
                .arg(&package),
        )?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !said.contains(": "),
            "{}:\n{said}",
            package.display()
        );
    }
    Ok(())
}

#[test]
fn an_rpm_asks_for_what_it_needs_and_has_what_the_deb_has() -> Result<()> {
    for program in PROGRAMS {
        let (package, name) = (packages::rpm(program)?, program.name());
        let ask = |about: &str| {
            run(Command::new("rpm")
                .args(["--query", "--package", about])
                .arg(&package))
        };
        run(Command::new("rpm")
            .args(["--checksig", "--nosignature"])
            .arg(&package))?;

        let requires = ask("--requires")?;
        ensure!(
            requires.contains("libc.so.6(GLIBC_2.34)(64bit)"),
            "{requires}"
        );
        ensure!(
            requires.contains("libsystemd.so.0") == (program == Program::Agent),
            "{requires}"
        );
        let scripts = ask("--scripts")?;
        for said in [
            "postinstall",
            "preuninstall",
            "postuninstall",
            "preset",
            "disable",
            "try-restart",
        ] {
            ensure!(scripts.contains(said), "{said} is not in {scripts}");
        }
        ensure!(
            !scripts.contains("systemctl start") && !scripts.contains("--now"),
            "{scripts}"
        );

        let dump = ask("--dump")?;
        for line in dump.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            ensure!(fields[5] == "root" && fields[6] == "root", "{line}");
            ensure!(
                matches!(fields[4], "0100644" | "0100755" | "040755"),
                "{line}"
            );
        }
        let files = |listing: &str| -> BTreeSet<String> {
            let files = listing
                .lines()
                .filter(|line| !line.ends_with('/'))
                .map(|line| line.replace("/zsh/vendor-completions/", "/zsh/site-functions/"));
            files.collect()
        };
        let tar = "dpkg-deb --fsys-tarfile \"$1\" | tar --list | sed 's/^\\.//'";
        let deb = run(Command::new("sh")
            .args(["-euc", tar, "sh"])
            .arg(packages::deb(program)?))?;
        let debian_alone = |path: &&String| {
            let own =
                ["copyright", "changelog.gz"].map(|file| format!("/usr/share/doc/{name}/{file}"));
            own.contains(path) || path.starts_with("/usr/share/lintian/")
        };
        let (deb, rpm) = (files(&deb), files(&ask("--list")?));
        let missing: Vec<_> = deb
            .difference(&rpm)
            .filter(|path| !debian_alone(path))
            .collect();
        ensure!(missing.is_empty(), "{missing:?} is in the deb alone");
    }
    Ok(())
}

#[test]
fn the_agent_needs_libc_and_libsystemd_and_the_static_one_nothing() -> Result<()> {
    let depends = run(Command::new("dpkg-deb")
        .arg("--field")
        .arg(packages::deb(Program::Agent)?)
        .arg("Depends"))?;
    let names: Vec<_> = depends
        .trim()
        .split(", ")
        .filter_map(|dependency| dependency.split(' ').next())
        .collect();
    assert_eq!(names, ["libc6", "libsystemd0"], "{depends}");
    let unpacked = Unpacked::static_agent()?;
    let needed = run(Command::new("readelf")
        .arg("--dynamic")
        .arg(unpacked.program(Program::Agent)))?;
    ensure!(!needed.contains("NEEDED"), "{needed}");
    let says = run(Command::new(unpacked.program(Program::Agent)).arg("--version"))?;
    assert_eq!(
        says.trim(),
        format!("driftmark-agent {}", packages::VERSION)
    );
    Ok(())
}

#[test]
fn every_program_carries_its_dependencies_and_every_package_the_same_as_a_bill_of_materials()
-> Result<()> {
    for (program, unpacked) in Unpacked::all()? {
        let data = unpacked.path("audit-data");
        run(Command::new("objcopy")
            .args(["--dump-section", &format!(".dep-v0={}", data.display())])
            .arg(unpacked.program(program))
            .arg("/dev/null"))?;
        let inflate = "use Compress::Zlib; undef $/; print uncompress(<STDIN>)";
        let audit = run(Command::new("sh")
            .args(["-euc", "perl -e \"$1\" < \"$2\"", "sh", inflate])
            .arg(&data))?;
        let audit: Value =
            serde_json::from_str(&audit).with_context(|| format!("read {audit:?}"))?;
        let (built_with, runs_with): (Vec<Value>, Vec<Value>) = audit["packages"]
            .as_array()
            .context("a list")?
            .iter()
            .cloned()
            .partition(|one| one["kind"] == "build");
        let (built_with, mut runs_with) = (crates(&built_with)?, crates(&runs_with)?);
        let name = program.name();
        let own = (name.to_owned(), packages::VERSION.to_owned());
        ensure!(runs_with.remove(&own), "{name} is in its own list");
        let bill =
            fs::read_to_string(unpacked.path(&format!("usr/share/doc/{name}/{name}.cdx.json")))?;
        let bill: Value = serde_json::from_str(&bill)?;
        assert_eq!(bill["bomFormat"], "CycloneDX");
        assert_eq!(bill["metadata"]["component"]["name"], name);
        let bill = crates(bill["components"].as_array().context("components")?)?;
        for needed in ["ring", "rustls", "blake3", "drift"] {
            ensure!(
                bill.iter().any(|(name, _)| name == needed),
                "{needed} is in the bill"
            );
        }
        // The bill has what the program runs with, and the macros that wrote parts of it.
        let unlisted: Vec<_> = runs_with.difference(&bill).collect();
        ensure!(unlisted.is_empty(), "not in the bill: {unlisted:?}");
        let unknown: Vec<_> = bill
            .difference(&runs_with)
            .filter(|one| !built_with.contains(one))
            .collect();
        ensure!(unknown.is_empty(), "only in the bill: {unknown:?}");
    }
    Ok(())
}

/// Names and versions.
fn crates(list: &[Value]) -> Result<BTreeSet<(String, String)>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    list.iter()
        .map(|one| Ok((text(&one["name"])?, text(&one["version"])?)))
        .collect()
}

#[test]
fn no_package_tells_where_it_was_built() -> Result<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("a source tree")?
        .canonicalize()?;
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo =
        cargo.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let host = nix::unistd::gethostname()?;
    let mut telling = vec![own.into_os_string().into_encoded_bytes()];
    telling.extend(cargo.map(|path| path.into_os_string().into_encoded_bytes()));
    telling.push(host.into_encoded_bytes());
    // A name that is too short is in every program.
    telling.retain(|bytes| bytes.len() > 5);
    for (_, unpacked) in Unpacked::all()? {
        for bytes in &telling {
            let told = String::from_utf8_lossy(bytes);
            let found = finish(
                Command::new("grep")
                    .args([
                        "--recursive",
                        "--files-with-matches",
                        "--fixed-strings",
                        "--text",
                        "-e",
                        &told,
                    ])
                    .arg(unpacked.directory.path()),
            )?;
            let found = String::from_utf8_lossy(&found.stdout);
            ensure!(found.is_empty(), "{told} is in {found}");
        }
    }
    Ok(())
}

#[test]
fn the_agent_and_its_package_are_small() -> Result<()> {
    let unpacked = Unpacked::deb(Program::Agent)?;
    let binary = fs::metadata(unpacked.program(Program::Agent))?.len();
    ensure!(
        binary <= AGENT_BYTES,
        "the agent has {binary} bytes, {} too many",
        binary - AGENT_BYTES
    );
    let package = fs::metadata(packages::deb(Program::Agent)?)?.len();
    ensure!(
        package <= AGENT_PACKAGE_BYTES,
        "its package has {package} bytes, {} too many",
        package - AGENT_PACKAGE_BYTES
    );
    Ok(())
}

#[test]
fn manual_pages_and_completions_are_well_formed() -> Result<()> {
    let mut pages = 0;
    for program in PROGRAMS {
        let unpacked = Unpacked::deb(program)?;
        let found = run(Command::new("find")
            .arg(unpacked.path("usr/share/man"))
            .args(["-name", "*.gz"]))?;
        for page in found.lines() {
            run(Command::new("gzip").args(["--decompress", page]))?;
            let page = page.trim_end_matches(".gz");
            let output =
                finish(Command::new("mandoc").args(["-T", "lint", "-W", "style,stop", page]))?;
            ensure!(
                output.status.success() && output.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
            pages += 1;
        }
        let name = program.name();
        run(Command::new("bash").arg("-n").arg(
            unpacked
                .path("usr/share/bash-completion/completions")
                .join(name),
        ))?;
        for (file, says) in [
            (
                format!("usr/share/zsh/vendor-completions/_{name}"),
                format!("#compdef {name}"),
            ),
            (
                format!("usr/share/fish/vendor_completions.d/{name}.fish"),
                format!("complete -c {name}"),
            ),
        ] {
            ensure!(
                fs::read_to_string(unpacked.path(&file))?.contains(&says),
                "{file}"
            );
        }
    }
    assert_eq!(pages, 5);
    Ok(())
}

#[test]
fn the_default_configurations_are_accepted_as_installed() -> Result<()> {
    for (program, file) in [
        (Program::Agent, "agent.d/00-default.toml"),
        (Program::Collector, "collector.d/00-default.toml"),
    ] {
        let unpacked = Unpacked::deb(program)?;
        let file = unpacked.path("usr/lib/driftmark").join(file);
        run(Command::new(unpacked.program(program))
            .arg("check-config")
            .arg(&file))?;
    }
    Ok(())
}
