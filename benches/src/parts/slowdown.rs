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

pub(super) fn measure(_: &Path) -> Result<String> {
    let home = Home::new()?;
    fs::write(home.root().join("held"), "held").context("make the tree")?;
    let agent = Agent::new(&home.root())?;
    agent.bake()?;
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
    let tar = race(UNPACKED, &settle, &mut racers)?;
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
    let built = race(BUILT, &settle, &mut racers)?;
    let seconds = |run: &Run| run.wall.as_secs_f64();
    let (to_bare, to_nothing) = (
        seconds(&tar[2]) / seconds(&tar[1]),
        seconds(&tar[2]) / seconds(&tar[0]),
    );
    let lost = 100.0 * (seconds(&built[1]) / seconds(&built[0]) - 1.0);
    let shown = |what: &str, run: &Run| Figure::shown(what, format!("{:.2} s", seconds(run)));
    Ok(format!(
        "{}\nMedians of {UNPACKED} and {BUILT} runs in turn, `sync` before each; what is unpacked and built is new in the watched tree, and so is \
         drift. The bare reader asks for the same events and reads them every 5 ms. The agent has no collector: that would run on other \
         machines. What is built is this project's `drift` and what it needs, from nothing.\n",
        budgets(&[
            shown(
                &format!("`tar x` of {FILES} files, nobody watches"),
                &tar[0]
            ),
            shown("with a bare reader", &tar[1]),
            shown("with the agent", &tar[2]),
            Figure::shown("agent to nobody", format!("{to_nothing:.2} ×")),
            Figure::held(
                "agent to bare reader",
                "≤ 1.15 ×",
                format!("{to_bare:.2} ×"),
                to_bare <= 1.15,
            ),
            shown("`cargo build`, nobody watches", &built[0]),
            shown("with the agent", &built[1]),
            Figure::held("slower by", "≤ 5 %", format!("{lost:.1} %"), lost <= 5.0,),
        ])
    ))
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
