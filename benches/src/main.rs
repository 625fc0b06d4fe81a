//! `make bench`: the agent on this machine's `/usr` and on seeded trees, as tables for README, kept in `runs/`.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use driftmark_benches::parts::{PARTS, Part};
use driftmark_benches::{drain, felt, machine, writer};

/// The tree that is measured where it is not a seeded one.
const ROOT: &str = "/usr";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if felt::be_one(&words)? || drain::be_one(&words)? || writer::be_one(&words)? {
        return Ok(());
    }
    let known = |word: &String| PARTS.iter().any(|part| part.word == word);
    ensure!(
        words.iter().all(known),
        "ask for nothing, or for some of: {}",
        PARTS.map(|part| part.word).join(" ")
    );
    let root = std::env::var_os("BENCH_ROOT").map_or_else(|| PathBuf::from(ROOT), PathBuf::from);
    let asked = |part: &&Part| words.is_empty() || words.iter().any(|word| word == part.word);
    let mut text = format!(
        "# {}, {}\n\nThe tree is `{}` where it is not a seeded one. Command: `make bench{}{}`.\n",
        machine::description(),
        jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z"),
        root.display(),
        match words.is_empty() {
            true => String::new(),
            false => format!(" PARTS={:?}", words.join(" ")),
        },
        match std::env::var_os("BENCH_LARGE") {
            Some(_) => " BENCH_LARGE=1",
            None => "",
        }
    );
    for part in PARTS.iter().filter(asked) {
        eprintln!("{}", part.title);
        let before = machine::load();
        let table = (part.measure)(&root).with_context(|| part.title)?;
        let load = format!("Load average {before} before, {} after.", machine::load());
        text.push_str(&format!("\n## {}\n\n{table}{load}\n", part.title));
        keep(&text, &words)?;
    }
    print!("{text}");
    Ok(())
}

/// Keeps what there is where results are kept, after each part; one of some parts does not take the place of one of all.
fn keep(text: &str, words: &[String]) -> Result<()> {
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let parts: String = words.iter().map(|word| format!("-{word}")).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("runs")
        .join(format!("{date}-{}-cores{parts}.md", machine::threads()));
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}
