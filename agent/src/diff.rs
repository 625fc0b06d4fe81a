//! What changed between two images, by their manifests alone.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use drift::class::classify;
use drift::compare::CompareError;
use drift::compare::{Difference, Merge};
use drift::entry::{AttributeSet, Entry, Shown};
use drift::finding::{Drift, DriftKind};

use crate::baseline::{BaselineError, open_unverified};

/// Show what changed between two images.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 the images are the same, 1 they differ.")]
pub struct DiffArguments {
    /// The manifest of the older image.
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The manifest of the newer image.
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Why two images cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A manifest cannot be opened.
    #[error("open the manifest")]
    Open(#[from] BaselineError),
    /// A manifest cannot be read to the end.
    #[error("compare the manifests")]
    Compare(#[from] CompareError),
    /// The output could not be written.
    #[error("write the result")]
    Output(#[from] io::Error),
}

/// Prints what changed, and returns how many paths did.
///
/// # Errors
/// See [`DiffError`].
pub fn diff(arguments: &DiffArguments, out: &mut dyn Write) -> Result<u64, DiffError> {
    let old = open_unverified(&arguments.old)?;
    let new = open_unverified(&arguments.new)?;
    let mut merge = Merge::new(&old);
    let mut removed: Vec<Entry> = Vec::new();
    let mut count = 0;
    let mut print = |expected: Option<Entry>, found: Option<Entry>| -> io::Result<()> {
        if let Some(difference) = difference(expected, found) {
            count += 1;
            print_one(&difference, arguments.json, out)?;
        }
        Ok(())
    };
    for entry in new.entries() {
        let entry = entry.map_err(CompareError::from)?;
        let met = merge.meet(&entry.path, &mut |missing| removed.push(missing))?;
        for missing in removed.drain(..) {
            print(Some(missing), None)?;
        }
        print(met.map(|met| met.entry), Some(entry))?;
    }
    merge
        .finish(&mut |missing| removed.push(missing))
        .map_err(CompareError::from)?;
    for missing in removed.drain(..) {
        print(Some(missing), None)?;
    }
    out.flush()?;
    Ok(count)
}

fn difference(expected: Option<Entry>, found: Option<Entry>) -> Option<Difference> {
    let (kind, changed) = match (&expected, &found) {
        (Some(expected), Some(found)) => (DriftKind::Changed, expected.differences(found)),
        (None, _) => (DriftKind::Added, AttributeSet::EMPTY),
        (_, None) => (DriftKind::Removed, AttributeSet::EMPTY),
    };
    if kind == DriftKind::Changed && changed.is_empty() {
        return None;
    }
    let path = found.as_ref().or(expected.as_ref())?.path.clone();
    let class = classify(&path, &kind, changed, found.as_ref());
    let drift = Drift {
        attribution: None,
        path,
        kind,
        changed,
        found: found.as_ref().map(Shown::from),
        detail: None,
        class: class.class,
        severity: class.severity,
        technique: class
            .techniques
            .iter()
            .map(|&technique| technique.into())
            .collect(),
    };
    Some(Difference {
        drift,
        expected,
        found,
    })
}

fn print_one(difference: &Difference, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let Difference {
        drift, expected, ..
    } = difference;
    if json {
        let mut line = serde_json::to_value(drift)?;
        // As `check --json` has it: each key in every line, and a path that is text.
        line["path"] = drift.path.to_text().into();
        if !drift.path.is_utf8() {
            line["path_bytes"] = drift::base64(&drift.path.to_absolute()).into();
        }
        line["changed"] = serde_json::to_value(drift.changed)?;
        line["found"] = serde_json::to_value(&drift.found)?;
        line["expected"] = serde_json::to_value(expected.as_ref().map(Shown::from))?;
        return writeln!(out, "{line}");
    }
    let sign = match drift.kind.cmp(&DriftKind::Removed) {
        Ordering::Less => '+',
        Ordering::Equal => '-',
        Ordering::Greater => '~',
    };
    let words: Vec<&str> = drift
        .changed
        .iter()
        .map(drift::entry::Attribute::word)
        .collect();
    writeln!(out, "{sign} {}  {}", drift.path, words.join(" "))
}
