//! What happened at a path and is over: it was other than it should be before it could be looked at, or it was run.

use crate::TreePath;
use crate::compare::judgement::{Expectation, differing};
use crate::entry::{AttributeSet, Entry};
use crate::finding::{Drift, DriftKind};

/// Judges that a program was started that the image does not contain.
pub fn judge_execution(path: &TreePath) -> Drift {
    happened(path, DriftKind::Executed, None, Drift::STARTED)
}

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
    Some(happened(path, kind, expected, detail))
}

fn happened(path: &TreePath, kind: DriftKind, expected: Option<&Entry>, detail: &str) -> Drift {
    let sides = (expected.cloned(), None);
    let detail = Some(detail.to_owned());
    differing(path, kind, AttributeSet::EMPTY, sides, detail).drift
}
