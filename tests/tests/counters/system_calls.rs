//! Two trees of the same directories and not as many files: the difference is what a file costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::process::{Program, run};
use driftmark_tests::sandbox::{possible, skip};

use crate::committed::{Committed, Counts};

const DIRECTORIES: usize = 20;
/// Files in each directory of the one and the other tree.
const FILES: [usize; 2] = [10, 60];

/// Not a file's: how threads wait for each other differs from run to run, and `fcntl` is what a debug build of Rust's
/// library asks of every descriptor before it closes it.
const LEFT_OUT: &str = "trace=!futex,sched_yield,restart_syscall,fcntl";

#[test]
fn a_small_file_costs_no_more_system_calls_than_it_did() -> Result<()> {
    // Without the right to look beneath mounts, a scan has to ask what each name is.
    if !possible("counting system calls") {
        return Ok(());
    }
    let traced = Command::new("strace").arg("true").output();
    if !traced.is_ok_and(|output| output.status.success()) {
        skip(
            "counting system calls",
            "needs strace, and the right to trace",
        );
        return Ok(());
    }
    let work = tempfile::tempdir().context("make a directory")?;
    let agent = Program::Agent.path()?;
    let keys = work.path().join("keys");
    run(Command::new(&agent)
        .arg("keygen")
        .arg("--output")
        .arg(&keys))?;
    let [few, many] = FILES.map(|files| -> Result<[Counts; 2]> {
        let tree = work.path().join(files.to_string());
        plant(&tree.join("root"), files)?;
        bake(&agent, &keys, &tree)?;
        Ok([
            check(&agent, &keys, &tree, &[])?,
            check(&agent, &keys, &tree, &["--quick"])?,
        ])
    });
    let (few, many) = (few?, many?);
    let mut counted = Committed {
        what: "system calls for each small file, directories apart, by `strace -f -c`; the budget is 7 in full, 1 quick"
            .to_owned(),
        compiler: None,
        counts: Counts::new(),
        parts: BTreeMap::new(),
    };
    for (pass, (few, many)) in ["full", "quick"].into_iter().zip(few.iter().zip(&many)) {
        let each = for_each_file(few, many);
        counted
            .counts
            .insert(pass.to_owned(), rounded(each.values().sum()));
        counted.parts.insert(pass.to_owned(), each);
    }
    counted.hold("system-calls.json")
}

/// Small files, each of another length, in directories of one level.
fn plant(root: &Path, files: usize) -> Result<()> {
    for directory in 0..DIRECTORIES {
        let directory = root.join(format!("directory-{directory}"));
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for file in 0..files {
            let content = vec![b'x'; 1 + (file * 67) % 4000];
            fs::write(directory.join(format!("file-{file}")), content).context("write a file")?;
        }
    }
    Ok(())
}

fn bake(agent: &Path, keys: &Path, tree: &Path) -> Result<()> {
    let mut bake = Command::new(agent);
    bake.args([
        "bake",
        "--name",
        "counted",
        "--version",
        "1",
        "--rules",
        "none",
    ])
    .args(["--filesystem", "none", "--root"])
    .arg(tree.join("root"))
    .arg("--key")
    .arg(keys.join("driftmark.key"))
    .arg("--output")
    .arg(tree.join("out"));
    run(&mut bake).map(drop)
}

/// Checks a tree, which must be as it was baked, and counts its system calls by name.
fn check(agent: &Path, keys: &Path, tree: &Path, arguments: &[&str]) -> Result<Counts> {
    let table = tree.join("table");
    let mut check = Command::new("strace");
    check
        .args(["-f", "-c", "-U", "calls,name", "-e", LEFT_OUT, "-o"])
        .arg(&table)
        .arg(agent)
        .args(["check", "--json", "--root"])
        .arg(tree.join("root"))
        .arg("--manifest")
        .arg(tree.join("out/image.manifest"))
        .arg("--trust")
        .arg(keys.join("driftmark.pub"))
        .arg("--state")
        .arg(tree.join("state"))
        .args(arguments);
    run(&mut check)?;
    let table = fs::read_to_string(table).context("read strace's table")?;
    let counts: Counts = table.lines().filter_map(counted).collect();
    ensure!(counts.contains_key("statx"), "no table of strace:\n{table}");
    Ok(counts)
}

/// A line of the table: how often, and what.
fn counted(line: &str) -> Option<(String, f64)> {
    let (count, name) = line.trim().split_once(char::is_whitespace)?;
    let name = name.trim();
    (name != "total").then_some((name.to_owned(), count.parse().ok()?))
}

/// What only some files cost is a fraction; less than a hundredth is not a file's.
fn for_each_file(few: &Counts, many: &Counts) -> Counts {
    let files = (DIRECTORIES * (FILES[1] - FILES[0])) as f64;
    many.iter()
        .map(|(name, many)| {
            let each = rounded((many - few.get(name).unwrap_or(&0.0)) / files);
            (name.clone(), each)
        })
        .filter(|(_, each)| *each > 0.01)
        .collect()
}

fn rounded(each: f64) -> f64 {
    (each * 100.0).round() / 100.0
}
