//! `make bench`: the agent on this machine's `/usr`, warm, against the ceiling, as a table for the README.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use driftmark_benches::ceiling;
use driftmark_benches::table::{Row, markdown, run};

/// Odd, so that there is a median.
const RUNS: usize = 5;

fn main() -> Result<()> {
    let root = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("/usr"), PathBuf::from);
    let agent = build_agent()?;
    let work = tempfile::tempdir().context("make a directory")?;
    let at = |name: &str| work.path().join(name).to_string_lossy().into_owned();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let root_text = root.to_string_lossy().into_owned();
    let run_quiet = |arguments: &[&str]| -> Result<()> {
        let status = Command::new(&agent)
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .status()?;
        ensure!(status.success(), "{arguments:?}: {status}");
        Ok(())
    };
    run_quiet(&["keygen", "--output", &at("keys")])?;

    let (key, public, manifest) = (
        at("keys/driftmark.key"),
        at("keys/driftmark.pub"),
        at("out/image.manifest"),
    );
    let (out, state) = (at("out"), at("state"));
    let bake = [
        "bake",
        "--root",
        &root_text,
        "--name",
        "bench",
        "--version",
        "1",
        "--rules",
        "none",
        "--filesystem",
        "none",
        "--key",
        &key,
        "--output",
        &out,
        "--json",
    ];
    let check = [
        "check",
        "--root",
        &root_text,
        "--manifest",
        &manifest,
        "--trust",
        &public,
        "--state",
        &state,
        "--json",
    ];
    let quick: Vec<&str> = check.iter().copied().chain(["--quick"]).collect();
    // Once unmeasured, so that everything is in the page cache for everyone.
    let files = ceiling::files(&root).context("list the files")?;
    ceiling::read_and_hash(&files, threads)?;
    run("bake", &agent, &bake)?;
    run("check", &agent, &check)?;

    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); 4];
    for _ in 0..RUNS {
        let (bytes, wall) = ceiling::read_and_hash(&files, threads)?;
        let what = format!("ceiling: read and BLAKE3, {threads} threads, nothing else");
        rows[0].push(Row {
            what,
            wall,
            entries: files.len() as u64,
            bytes,
            peak_kib: None,
        });
        let mut baked = run("`bake`, both digests", &agent, &bake)?;
        baked.bytes = bytes;
        rows[1].push(baked);
        rows[2].push(run("`check`", &agent, &check)?);
        rows[3].push(run("`check --quick`", &agent, &quick)?);
    }
    let rows: Vec<Row> = rows.into_iter().map(Row::median).collect();
    let text = format!(
        "{}\nMedian of {RUNS} runs in turn on `{}`, page cache warm, {}. Command: `make bench`. \
         Manifest: {:.1} bytes an entry.\n",
        markdown(&rows),
        root_text,
        machine(),
        std::fs::metadata(&manifest)?.len() as f64 / rows[1].entries as f64
    );
    print!("{text}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs");
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let file = directory.join(format!("{date}-{threads}-cores.md"));
    std::fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
    Ok(())
}

/// Builds the agent as it ships.
fn build_agent() -> Result<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--quiet",
            "--profile",
            "agent",
            "-p",
            "driftmark-agent",
        ])
        .current_dir(&top)
        .status()
        .context("build the agent")?;
    ensure!(status.success(), "the agent does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    target
        .join("agent/driftmark-agent")
        .canonicalize()
        .context("find the agent")
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{cores} cores{}, Linux {}",
        model.replacen("\t:", ",", 1).trim_end(),
        kernel.split('-').next().unwrap_or_default()
    )
}
