//! One run of one command, and the table of all.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was run.
    pub what: String,
    /// How long it took, whole process.
    pub wall: Duration,
    /// Paths looked at.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// VmHWM of the process, in KiB; none for what ran in this one.
    pub peak_kib: Option<u64>,
}

impl Row {
    /// The median of several runs by their time; all other figures are that run's.
    ///
    /// # Panics
    /// There are no runs.
    pub fn median(mut runs: Vec<Row>) -> Row {
        runs.sort_by_key(|row| row.wall);
        runs.swap_remove(runs.len() / 2)
    }
}

/// Runs the agent and reads the last line of JSON that it prints.
///
/// # Errors
/// It did not end with 0.
pub fn run(what: &str, program: &Path, arguments: &[&str]) -> Result<Row> {
    let started = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("start {what}"))?;
    let wall = started.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{what}: {:?}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .context("read the last line")?;
    let summary = last.get("summary").unwrap_or(&last);
    let number = |key: &str| summary[key].as_u64();
    Ok(Row {
        what: what.to_owned(),
        wall,
        entries: number("entries").unwrap_or_default(),
        bytes: number("bytes").unwrap_or_default(),
        peak_kib: number("peak_resident_kib"),
    })
}

/// The rows as a Markdown table, each against the first.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | wall | paths | content | peak memory | time against the ceiling |\n|---|---|---|---|---|---|\n",
    );
    let ceiling = rows.first().map_or(1.0, |row| row.wall.as_secs_f64());
    for row in rows {
        let peak = row.peak_kib.map_or_else(
            || "—".to_owned(),
            |kib| format!("{:.1} MiB", kib as f64 / 1024.0),
        );
        text.push_str(&format!(
            "| {} | {:.2} s | {} | {:.2} GiB | {peak} | {:.2} × |\n",
            row.what,
            row.wall.as_secs_f64(),
            row.entries,
            row.bytes as f64 / f64::from(1 << 30),
            row.wall.as_secs_f64() / ceiling
        ));
    }
    text
}
