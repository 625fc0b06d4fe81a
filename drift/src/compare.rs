//! Manifest × observations → drift, gaps and held values.
//!
//! An ordered merge in constant memory: observations come in path order ([`TreePath`]'s), each meets its entry or none,
//! and what was passed over is gone. A scanner that needs to know the entry *before* it reads the content asks
//! [`Merge`] itself and hands each pair to [`judge`] in its own time; [`compare`] does both at once.

mod disk;
mod judgement;
mod links;
mod merge;
mod passing;

use crate::coverage::Gap;
use crate::finding::Drift;
use crate::manifest::{Contents, ManifestError, Source};
use crate::observation::{Found, Group, Observation};
use crate::report::HeldValue;

pub use disk::judge_disk;
pub use judgement::{Expectation, is_as_expected, judge, judge_cover, judge_missing, judge_unread};
pub use links::{LinkGroups, Settled};
pub use merge::{Merge, Met};
pub use passing::{
    Code, Stray, judge_code, judge_execution, judge_hidden_cover, judge_module, judge_passing,
};

use crate::entry::Entry;

/// What comes of comparing one path.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A difference that no rule allows, with both sides of it.
    Drift(Box<Difference>),
    /// Something that could not be verified.
    Gap(Gap),
    /// A value that is held from first sight on.
    Held(HeldValue),
}

/// A drift with what was expected and what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The drift, as it is reported.
    pub drift: Drift,
    /// What the manifest says; none for what was added.
    pub expected: Option<Entry>,
    /// What is there; none for what was removed or was not read (the drift itself says what is known of it).
    pub found: Option<Entry>,
}

/// Compares a manifest with observations in path order, telling `sink` what comes of it.
///
/// Findings come in path order, but for files with several names: these come when their group is settled.
///
/// # Errors
/// A manifest that cannot be read, or observations out of order.
pub fn compare<S: Source>(
    manifest: &Contents<S>,
    observations: impl IntoIterator<Item = Observation>,
    sink: &mut dyn FnMut(Finding),
) -> Result<(), CompareError> {
    let mut merge = Merge::new(manifest);
    let mut groups = LinkGroups::default();
    let expectation = Expectation::new(manifest.header());
    for observation in observations {
        match observation {
            Observation::Gap(gap) => {
                let missing = &mut |missing: Entry| judge_missing(&expectation, &missing, sink);
                merge.cover(&gap.path, missing, &mut |covered| groups.cover(&covered))?;
                sink(Finding::Gap(gap));
            }
            Observation::Found(found) => {
                let path = &found.entry.path;
                let met = merge.meet(path, &mut |missing| {
                    judge_missing(&expectation, &missing, sink);
                })?;
                let entry = met.map(|met| met.entry);
                match found.group {
                    None => judge(&expectation, entry.as_ref(), &found, sink),
                    Some(group) => hold(&mut groups, group, entry, found)
                        .into_iter()
                        .for_each(|settled| judge_settled(&expectation, settled, sink)),
                }
            }
        }
    }
    merge.finish(&mut |missing| judge_missing(&expectation, &missing, sink))?;
    groups
        .settle()
        .for_each(|settled| judge_settled(&expectation, settled, sink));
    Ok(())
}

/// A name of a link group that waits for the others, and with it all that is known of it.
type Whole = (Option<Entry>, Found);

fn hold(
    groups: &mut LinkGroups<Whole>,
    group: Group,
    mut expected: Option<Entry>,
    found: Found,
) -> Vec<Settled<Whole>> {
    let path = found.entry.path.clone();
    let links = expected.as_mut().and_then(|entry| entry.links.take());
    groups.hold(group, &path, links, (expected, found))
}

fn judge_settled(
    expectation: &Expectation<'_>,
    settled: Settled<Whole>,
    sink: &mut dyn FnMut(Finding),
) {
    let (mut expected, mut found) = settled.waited;
    if let Some(entry) = &mut expected {
        entry.links = settled.expected;
    }
    found.entry.links = Some(settled.links);
    judge(expectation, expected.as_ref(), &found, sink);
}

/// Why a comparison cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The manifest cannot be read.
    #[error("read an entry of the manifest")]
    Manifest(#[from] ManifestError),
    /// A walk that is not in path order: nothing that was decided so far can be relied on.
    #[error("{found} was observed after {before}, which is out of order")]
    OutOfOrder {
        /// What came first.
        before: crate::TreePath,
        /// What came after it.
        found: crate::TreePath,
    },
}
