//! What others lose by the watch: an archive that is unpacked, and something that is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::drain::Drain;
use crate::machine;
use crate::table::{Figure, budgets};
use crate::turns::{Racer, Run, race};
use crate::watched::{Home, Watched};

/// Files in the archive.
const FILES: usize = 50_000;
/// Odd, so that there is a median.
const UNPACKED: usize = 7;
const BUILT: usize = 5;
/// Whoever was started before has ended what it does when it starts.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn unpack(_: &Path) -> Result<String> {
    let (home, agent) = watched_tree()?;
    let archive = archive(&home)?;
    let place = home.root().join("new");
    let unpack = |place: &Path| {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(place);
        timed(&mut tar)
    };
    let mut racers = [
        Racer::new("`tar x`, nobody watches", || fresh(&place, &unpack)),
        Racer::new("`tar x`, bare reader", || {
            let _drain = Drain::start(&home.root())?;
            fresh(&place, &unpack)
        }),
        Racer::new("`tar x`, agent", || {
            let _watched = Watched::start(&agent, "")?;
            fresh(&place, &unpack)
        }),
    ];
    let runs = race(UNPACKED, &settle, &mut racers)?;
    let [nobody, bare, agent] = [0, 1, 2].map(|nth: usize| seconds(&runs[nth]));
    let shown = |what: &str, seconds: f64| Figure::shown(what, format!("{seconds:.2} s"));
    Ok(format!(
        "{}\nMedians of {UNPACKED} runs in turn, {HOW} The bare reader asks for the same events and reads them every 5 ms.\n",
        budgets(&[
            shown(&format!("`tar x` of {FILES} files, nobody watches"), nobody),
            shown("with a bare reader", bare),
            shown("with the agent", agent),
            Figure::shown("agent to nobody", format!("{:.2} ×", agent / nobody)),
            Figure::held(
                "agent to bare reader",
                "≤ 1.15 ×",
                format!("{:.2} ×", agent / bare),
                agent / bare <= 1.15,
            ),
        ])
    ))
}

pub(super) fn build(_: &Path) -> Result<String> {
    let (home, agent) = watched_tree()?;
    let place = home.root().join("new");
    let sources = home.beside("sources");
    copy_sources(&sources)?;
    let build = |place: &Path| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--offline", "--quiet"]);
        cargo.args(["-p", "drift", "--target-dir"]).arg(place);
        timed(cargo.current_dir(&sources))
    };
    let mut racers = [
        Racer::new("`cargo build`, nobody watches", || fresh(&place, &build)),
        Racer::new("`cargo build`, agent", || {
            let _watched = Watched::start(&agent, "")?;
            fresh(&place, &build)
        }),
    ];
    let runs = race(BUILT, &settle, &mut racers)?;
    let [nobody, agent] = [0, 1].map(|nth: usize| seconds(&runs[nth]));
    let shown = |what: &str, seconds: f64| Figure::shown(what, format!("{seconds:.2} s"));
    let lost = 100.0 * (agent / nobody - 1.0);
    Ok(format!(
        "{}\nMedians of {BUILT} runs in turn, {HOW} What is built is this project's `drift` and what it needs, from nothing.\n",
        budgets(&[
            shown("`cargo build`, nobody watches", nobody),
            shown("with the agent", agent),
            Figure::held("slower by", "≤ 5 %", format!("{lost:.1} %"), lost <= 5.0),
        ])
    ))
}

/// What both have in common, as a sentence that ends one.
const HOW: &str = "`sync` before each; what is made is new in the watched tree, and so is drift. The agent has no collector: \
                   that would run on other machines.";

fn watched_tree() -> Result<(Home, Agent)> {
    let home = Home::new()?;
    fs::write(home.root().join("held"), "held").context("make the tree")?;
    let agent = Agent::new(&home.root())?;
    agent.bake()?;
    Ok((home, agent))
}

fn seconds(run: &Run) -> f64 {
    run.wall.as_secs_f64()
}

/// What was made before is being written back, and what was started before is ending.
fn settle() -> Result<()> {
    rustix::fs::sync();
    machine::let_pass(QUIET);
    Ok(())
}

/// Does it in a new directory, which is removed again.
fn fresh(place: &Path, work: &dyn Fn(&Path) -> Result<Run>) -> Result<Run> {
    fs::create_dir(place).context("make a directory")?;
    let run = work(place)?;
    fs::remove_dir_all(place).context("remove a directory")?;
    Ok(run)
}

fn timed(command: &mut Command) -> Result<Run> {
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("start {command:?}"))?;
    let wall = began.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Run {
        wall,
        cpu: None,
        entries: 0,
        bytes: 0,
        peak_kib: None,
    })
}

/// Small files, a hundred in each directory.
fn archive(home: &Home) -> Result<PathBuf> {
    let from = home.beside("unpacked");
    for nth in 0..FILES {
        let directory = from.join((nth / 100).to_string());
        if nth % 100 == 0 {
            fs::create_dir_all(&directory).context("make a directory")?;
        }
        let content = vec![nth as u8; 1024 + nth % 4096];
        fs::write(directory.join(nth.to_string()), content).context("make a file")?;
    }
    let archive = home.beside("archive.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(&from).arg(".");
    timed(&mut tar)?;
    fs::remove_dir_all(from).context("remove the files")?;
    Ok(archive)
}

/// What git has of this project, so that a build cannot find what was built before.
fn copy_sources(to: &Path) -> Result<()> {
    fs::create_dir(to).context("make a directory")?;
    let mut copy = Command::new("sh");
    copy.args([
        "-c",
        "git ls-files -z | tar --null -T - -cf - | tar -xf - -C \"$1\"",
        "sh",
    ]);
    copy.arg(to);
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    timed(copy.current_dir(top)).map(drop)
}
