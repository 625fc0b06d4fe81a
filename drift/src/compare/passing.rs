//! What happened to a path that is as it should be again: over before it could be looked at.

use crate::TreePath;
use crate::compare::Finding;
use crate::compare::judgement::{Expectation, difference};
use crate::entry::{AttributeSet, Entry};
use crate::finding::{Drift, DriftKind};

/// Judges what was written, made or removed at a path and is now as the image has it: a moment, and no state.
///
/// None where any rule says something about the path: something may happen there.
pub fn judge_passing(
    expectation: &Expectation<'_>,
    path: &TreePath,
    expected: Option<&Entry>,
) -> Option<Drift> {
    if expectation.rules().first_match(path).is_some() {
        return None;
    }
    let (kind, detail) = match expected {
        Some(_) => (DriftKind::Changed, Drift::PUT_BACK),
        None => (DriftKind::Added, Drift::GONE_AGAIN),
    };
    let sides = (expected.cloned(), None);
    let detail = Some(detail.to_owned());
    match difference(path, kind, AttributeSet::EMPTY, sides, detail) {
        Finding::Drift(difference) => Some(difference.drift),
        Finding::Gap(_) | Finding::Held(_) => None,
    }
}
