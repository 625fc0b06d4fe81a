//! More changes than anybody can look at as they come: what the agent ends in, and what it says of the time in which it was
//! blind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::agent::Agent;
use crate::machine;
use crate::table::{Figure, budgets};
use crate::watched::{self, Home, Watched, instance, is_exact};

/// Made, and then removed, by one thread on the agent's processor.
const CREATED: usize = 50_000;
/// Of all kinds, by one thread for each core.
const MIXED: usize = 200_000;
const MIXED_TIME: Duration = Duration::from_secs(10);
/// They come in so many bursts a second.
const BURSTS: usize = 100;
const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 100;
const MOST_KIB: u64 = 32 * 1024;

/// A story and what came of it.
struct Storm {
    what: String,
    took: Duration,
    exact_after: Duration,
    blind: Vec<u64>,
}

pub(super) fn measure(_: &Path) -> Result<String> {
    let home = Home::new()?;
    plant(&home.root())?;
    let agent = Agent::new(&home.root())?;
    agent.bake()?;
    let collector = watched::collector(&agent)?;
    let all = sched_getaffinity(None).context("ask for processors")?;
    sched_setaffinity(None, &first_of(&all)).context("take one processor")?;
    let watched = Watched::start(&agent, "")?;
    instance(&collector, |row| row["state"] == "clean")?;
    let mut storms = Vec::new();
    let mut run = |what: &str, storm: &mut dyn FnMut() -> Result<usize>| {
        let _ = watched.all_said();
        let began = Instant::now();
        let done = storm()?;
        let (took, ended) = (began.elapsed(), Instant::now());
        is_exact(&agent, &collector)?;
        storms.push(Storm {
            what: format!("{done} {what}"),
            took,
            exact_after: ended.elapsed(),
            blind: blind(&watched),
        });
        Ok::<_, anyhow::Error>(())
    };
    let many = home.root().join("many");
    run("files made, on the agent's processor", &mut || {
        create(&many)
    })?;
    run("of them removed, on the agent's processor", &mut || {
        fs::remove_dir_all(&many).context("remove the files")?;
        Ok(CREATED)
    })?;
    sched_setaffinity(None, &all).context("take all processors")?;
    run("mixed changes", &mut || mixed(&home.root()))?;
    let status = watched.daemon().status(&agent)?;
    let peak = watched.daemon().peak_kib()?;
    let mut figures: Vec<Figure> = storms.iter().map(figure).collect();
    figures.push(Figure::held(
        "the agent's peak memory in all of that",
        "≤ 32 MiB",
        format!("{:.1} MiB", peak as f64 / 1024.0),
        peak <= MOST_KIB,
    ));
    Ok(format!(
        "{}\nThe agent has one processor all the time. Exact: the open set that the collector has is the one that a full `check` finds. \
         What the coverage says in the end: {}.\n",
        budgets(&figures),
        status["coverage"]["notes"]
    ))
}

fn figure(storm: &Storm) -> Figure {
    let Storm {
        what,
        took,
        exact_after,
        blind,
    } = storm;
    let blind = match blind.len() {
        0 => "no event lost".to_owned(),
        times => format!(
            "events lost {times} times, blind for {} ms",
            blind.iter().sum::<u64>()
        ),
    };
    // A story whose state never is exact ends all of this with an error.
    Figure::held(
        format!("{what}, in {:.1} s", took.as_secs_f64()),
        "final state exact, blind time said",
        format!("exact {:.1} s later; {blind}", exact_after.as_secs_f64()),
        true,
    )
}

/// How long it says that it saw nothing, in milliseconds, each time.
fn blind(watched: &Watched) -> Vec<u64> {
    let all = watched.all_said().into_iter();
    let lost = all.filter(|said| said.line.contains("events were lost"));
    lost.filter_map(|said| {
        let (_, after) = said.line.split_once("milliseconds")?;
        let digits = after.trim_start_matches(|it: char| !it.is_ascii_digit());
        let end = digits.find(|it: char| !it.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().ok()
    })
    .collect()
}

fn first_of(all: &CpuSet) -> CpuSet {
    let mut one = CpuSet::new();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu));
    one.set(first.unwrap_or(0));
    one
}

fn plant(root: &Path) -> Result<()> {
    for directory in 0..DIRECTORIES {
        let directory = root.join(format!("held-{directory}"));
        fs::create_dir(&directory).context("make the tree")?;
        for file in 0..FILES_EACH {
            fs::write(directory.join(file.to_string()), "as it was baked\n")
                .context("make the tree")?;
        }
    }
    Ok(())
}

fn create(many: &Path) -> Result<usize> {
    for nth in 0..CREATED {
        let directory = many.join((nth / 500).to_string());
        if nth % 500 == 0 {
            fs::create_dir_all(&directory).context("make a directory")?;
        }
        fs::write(directory.join(nth.to_string()), "new\n").context("make a file")?;
    }
    Ok(CREATED)
}

/// How many there were.
fn mixed(root: &Path) -> Result<usize> {
    let threads = machine::threads();
    std::thread::scope(|scope| {
        let changing: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || change(root, number, threads)))
            .collect();
        let done = changing.into_iter();
        Ok(done
            .map(|thread| thread.join().expect("it does not panic"))
            .sum())
    })
}

/// One thread's part of the mixed changes, in directories of its own, at its part of the rate.
fn change(root: &Path, number: usize, threads: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let own: Vec<PathBuf> = (0..DIRECTORIES)
        .filter(|directory| directory % threads == number)
        .map(|directory| root.join(format!("held-{directory}")))
        .collect();
    let (wanted, began) = (MIXED / threads, Instant::now());
    let mut done = 0;
    while done < wanted {
        for _ in 0..wanted / (BURSTS * MIXED_TIME.as_secs() as usize) {
            done += usize::from(change_one(&own, &mut random));
        }
        let due = MIXED_TIME.mul_f64(done as f64 / wanted as f64);
        machine::let_pass(due.saturating_sub(began.elapsed()));
    }
    done
}

/// Whether something has changed: most names are there or not by chance.
fn change_one(own: &[PathBuf], random: &mut fastrand::Rng) -> bool {
    let mut any = || {
        let directory = &own[random.usize(..own.len())];
        directory.join(random.usize(..2 * FILES_EACH).to_string())
    };
    let (one, other) = (any(), any());
    match random.u8(..8) {
        0..3 => fs::write(&one, [random.u8(..); 64]),
        3 => fs::remove_file(&one),
        4 => fs::rename(&one, &other),
        5 => fs::set_permissions(&one, Permissions::from_mode(0o600 | random.u32(..0o100))),
        6 => fs::create_dir(&one),
        _ => fs::remove_dir(&one),
    }
    .is_ok()
}
