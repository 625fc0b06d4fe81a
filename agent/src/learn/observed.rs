//! Receives the output of `check --json`; hands on what was seen, instance by instance and check by check.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use drift::entry::{AttributeSet, Shown};
use drift::finding::DriftKind;
use drift::report::ImageRef;
use drift::{TreePath, from_base64};
use serde::Deserialize;

use crate::check::{Checked, DriftLine};

/// What was observed of one image.
#[derive(Debug, Default)]
pub struct Observations {
    /// The image.
    pub image: Option<ImageRef>,
    /// One for each instance.
    pub instances: Vec<Instance>,
    /// What could not be verified, in all checks together: no rule can be learned from that.
    pub gaps: u64,
    sights: usize,
}

/// One instance: what its checks found, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Instance {
    /// The drifts of each.
    pub checks: Vec<Vec<Sight>>,
}

/// One drift, as far as a rule can depend on it. Class and severity are not taken from an observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Where.
    pub path: TreePath,
    /// What happened.
    pub kind: DriftKind,
    /// What differs.
    pub changed: AttributeSet,
    /// What the image has.
    pub expected: Option<Shown>,
    /// What was there.
    pub found: Option<Shown>,
    /// What the attributes do not tell.
    pub detail: Option<String>,
}

/// Why an observation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadObservation {
    /// It cannot be read.
    #[error("read it")]
    Read(#[source] io::Error),
    /// A line that is longer than any that `check` prints.
    #[error("line {0} is longer than {MAX_LINE_BYTES} bytes")]
    LongLine(usize),
    /// A line that `check --json` does not print.
    #[error("line {line} is not of `check --json`")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A path that cannot be one.
    #[error("line {0} has a path that cannot be one")]
    Path(usize),
    /// It ends before a summary, as where a check was interrupted.
    #[error("it ends without a summary: the check did not finish")]
    Unfinished,
    /// A check of another image than the others.
    #[error("line {0} is of another image, or of another bake of it, than what came before")]
    OtherImage(usize),
    /// More than is looked at.
    #[error("more than {MAX_SIGHTS} drifts in all observations together: this is no first boot")]
    TooMany,
    /// More files than are looked at.
    #[error("more than {MAX_INSTANCES} instances")]
    TooManyInstances,
}

/// The longest line: one drift with everything that can hang on it.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// Fifty times what a first boot without any rules changes.
const MAX_SIGHTS: usize = 100_000;
/// More boots than anybody waits for.
const MAX_INSTANCES: usize = 64;

#[derive(Deserialize)]
struct Line {
    path: Option<String>,
    path_bytes: Option<String>,
    kind: Option<DriftKind>,
    #[serde(default)]
    changed: AttributeSet,
    expected: Option<Shown>,
    found: Option<Shown>,
    detail: Option<String>,
    gap: Option<serde::de::IgnoredAny>,
    summary: Option<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    image: ImageRef,
}

impl Observations {
    /// What one check of this host found.
    pub fn of_check(checked: &Checked) -> Self {
        let sights: Vec<Sight> = checked.drifts().iter().map(Sight::from).collect();
        Observations {
            image: Some(checked.baseline().image()),
            gaps: checked.gaps().len() as u64,
            sights: sights.len(),
            instances: vec![Instance {
                checks: vec![sights],
            }],
        }
    }

    /// Adds an instance: the checks in one file, `-` being standard input.
    ///
    /// # Errors
    /// See [`BadObservation`].
    pub fn add_file(&mut self, path: &Path) -> Result<(), BadObservation> {
        if path == Path::new("-") {
            return self.add(io::stdin().lock());
        }
        self.add(File::open(path).map_err(BadObservation::Read)?)
    }

    /// Adds an instance.
    ///
    /// # Errors
    /// See [`BadObservation`].
    pub fn add(&mut self, from: impl Read) -> Result<(), BadObservation> {
        if self.instances.len() == MAX_INSTANCES {
            return Err(BadObservation::TooManyInstances);
        }
        let mut reader = BufReader::new(from);
        let mut instance = Instance::default();
        let mut check = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = (&mut reader)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut text)
                .map_err(BadObservation::Read)?;
            if read == 0 {
                break;
            }
            if read as u64 == MAX_LINE_BYTES {
                return Err(BadObservation::LongLine(line));
            }
            let read: Line = serde_json::from_slice(&text)
                .map_err(|source| BadObservation::Line { line, source })?;
            if let Some(summary) = read.summary {
                let image = self.image.get_or_insert_with(|| summary.image.clone());
                if *image != summary.image {
                    return Err(BadObservation::OtherImage(line));
                }
                instance.checks.push(std::mem::take(&mut check));
            } else if read.gap.is_some() {
                self.gaps += 1;
            } else {
                self.sights += 1;
                if self.sights > MAX_SIGHTS {
                    return Err(BadObservation::TooMany);
                }
                check.push(read.sight().ok_or(BadObservation::Path(line))?);
            }
        }
        if !check.is_empty() || instance.checks.is_empty() {
            return Err(BadObservation::Unfinished);
        }
        self.instances.push(instance);
        Ok(())
    }
}

impl Line {
    fn sight(self) -> Option<Sight> {
        let bytes = match (self.path_bytes, self.path) {
            (Some(bytes), _) => from_base64(&bytes).ok()?,
            (None, path) => path?.into_bytes(),
        };
        Some(Sight {
            path: TreePath::new(&bytes).ok()?,
            kind: self.kind?,
            changed: self.changed,
            expected: self.expected,
            found: self.found,
            detail: self.detail,
        })
    }
}

impl From<&DriftLine> for Sight {
    fn from(line: &DriftLine) -> Self {
        Sight {
            path: line.tree_path().clone(),
            kind: line.kind.clone(),
            changed: line.changed,
            expected: line.expected.clone(),
            found: line.found.clone(),
            detail: line.detail.clone(),
        }
    }
}
