//! Callgrind over `driftmark-counted`, step by step.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use driftmark_tests::process::{finish, run};
use driftmark_tests::sandbox::skip;
use serde_json::Value;

use crate::committed::{Committed, Counts};

const FILE: &str = "instructions.json";
const STEPS: [&str; 5] = ["decode", "look-up", "merge", "compare", "rules"];
/// Threads that count at the same time.
const LANES: usize = 2;

#[test]
fn the_pure_code_needs_no_more_instructions_than_it_did() -> Result<()> {
    let compiler = run(Command::new("rustc").arg("--version"))?
        .trim()
        .to_owned();
    let writing = std::env::var_os("DRIFTMARK_WRITE_COUNTS").is_some();
    if !writing {
        let committed = Committed::read(FILE)?.compiler;
        if committed.as_ref() != Some(&compiler) {
            let reason =
                format!("what is committed is the code of {committed:?}, and this is {compiler}");
            skip("counting instructions", &reason);
            return Ok(());
        }
    }
    let program = build()?;
    let (nothing, entries) = count(&program, "nothing")?;
    let mut counts = Counts::new();
    for steps in STEPS.chunks(LANES) {
        let counted = std::thread::scope(|scope| {
            let lanes: Vec<_> = steps
                .iter()
                .map(|step| scope.spawn(|| count(&program, step)))
                .collect();
            let lanes = lanes.into_iter();
            let counted = lanes.map(|lane| lane.join().expect("a lane does not panic"));
            counted.collect::<Result<Vec<_>>>()
        })?;
        for (step, (all, _)) in steps.iter().zip(counted) {
            let cost = all.checked_sub(nothing).context("a step costs something")?;
            ensure!(cost > entries, "{step} did nothing: {cost} instructions");
            counts.insert((*step).to_owned(), cost as f64);
        }
    }
    let counted = Committed {
        what: format!(
            "instructions by callgrind for {entries} entries, as the agent is built; without hashing"
        ),
        compiler: Some(compiler),
        counts,
        parts: [].into(),
    };
    counted.hold(FILE)
}

/// Builds it with the agent's profile: what is counted is the code that ships.
fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--locked",
            "--profile",
            "agent",
            "-p",
            "driftmark-counted",
        ])
        .args(["--message-format", "json"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let messages = run(&mut cargo).context("build driftmark-counted")?;
    let messages = messages.lines().map(serde_json::from_str::<Value>);
    for message in messages {
        if let Some(path) = message.context("read cargo's message")?["executable"].as_str() {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cargo built no program");
}

/// Instructions of one step with all that comes before it, and the number of entries.
fn count(program: &Path, step: &str) -> Result<(u64, u64)> {
    let mut callgrind = Command::new("valgrind");
    callgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(step);
    let output = finish(&mut callgrind)?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "valgrind {step}: {:?}\n{told}",
        output.status
    );
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .with_context(|| format!("no count of instructions:\n{told}"))?
        .1;
    let entries = String::from_utf8_lossy(&output.stdout);
    Ok((
        collected.trim().parse().context("read the count")?,
        entries
            .trim()
            .parse()
            .context("read the number of entries")?,
    ))
}
