//! Counts in; hands on whether they are what was committed, and rewrites that where it is asked to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a count may grow by before a test fails.
pub(crate) const GROWTH: f64 = 0.03;

/// Set it to write what was counted instead of comparing.
const WRITE: &str = "DRIFTMARK_WRITE_COUNTS";

/// What was counted, by what it is of.
pub(crate) type Counts = BTreeMap<String, f64>;

/// A committed file.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Committed {
    /// How it is to be read, for people.
    pub(crate) what: String,
    /// The compiler, where counts depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compiler: Option<String>,
    /// The sums that may not grow.
    pub(crate) counts: Counts,
    /// What they are made of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parts: BTreeMap<String, Counts>,
}

impl Committed {
    /// Holds what was counted against the file `name` beside this one, or writes that.
    pub(crate) fn hold(&self, name: &str) -> Result<()> {
        if std::env::var_os(WRITE).is_some() {
            let text = serde_json::to_string_pretty(self)?;
            return fs::write(path(name), text + "\n").with_context(|| format!("write {name}"));
        }
        let before = Self::read(name)?;
        let (grown, shrunk) = differences(&before.counts, &self.counts);
        if !shrunk.is_empty() {
            println!(
                "fewer than {name} says, which may hold what was won (run this test with {WRITE}=1):\n{}",
                shrunk.join("\n")
            );
        }
        ensure!(
            grown.is_empty(),
            "more than {name} says by over {:.0} %:\n{}\nwas, is:\n{:#?}\n{:#?}\nif that is what it costs, run this \
             test with {WRITE}=1 and say in the commit why",
            GROWTH * 100.0,
            grown.join("\n"),
            before.parts,
            self.parts
        );
        Ok(())
    }

    /// What is committed.
    pub(crate) fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(path(name)).with_context(|| format!("read {name}"))?;
        serde_json::from_str(&text).with_context(|| format!("understand {name}"))
    }
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/counters")
        .join(name)
}

/// Lines for what grew, or is only on one side, and for what shrank, by more than may be.
fn differences(before: &Counts, now: &Counts) -> (Vec<String>, Vec<String>) {
    let (mut grown, mut shrunk) = (Vec::new(), Vec::new());
    for (of, &is) in now {
        match before.get(of) {
            None => grown.push(format!("  {of}: {is} was never counted")),
            Some(&was) if is > was * (1.0 + GROWTH) => grown.push(format!("  {of}: {was} → {is}")),
            Some(&was) if is < was * (1.0 - GROWTH) => shrunk.push(format!("  {of}: {was} → {is}")),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|of| !now.contains_key(*of));
    grown.extend(gone.map(|of| format!("  {of} is counted no more")));
    (grown, shrunk)
}

#[test]
fn what_grew_by_more_than_three_percent_fails_and_what_shrank_is_only_told() {
    let counts = |counts: &[(&str, f64)]| -> Counts {
        let counts = counts.iter();
        counts.map(|&(of, count)| (of.to_owned(), count)).collect()
    };
    let before = counts(&[("a", 100.0)]);
    for (now, grown, shrunk) in [
        (&[("a", 100.0)][..], 0, 0),
        (&[("a", 102.9)], 0, 0),
        (&[("a", 103.1)], 1, 0),
        (&[("a", 96.0)], 0, 1),
        (&[], 1, 0),
        (&[("a", 100.0), ("b", 1.0)], 1, 0),
    ] {
        let (more, less) = differences(&before, &counts(now));
        assert_eq!((more.len(), less.len()), (grown, shrunk), "{now:?}");
    }
}
