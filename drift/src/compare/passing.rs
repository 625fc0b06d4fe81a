//! What happened at a path and is over: it was other than it should be before it could be looked at, or it was run.

use crate::TreePath;
use crate::compare::judgement::{Expectation, differing};
use crate::entry::{AttributeSet, Entry};
use crate::finding::{Drift, DriftKind};

/// Judges that a program was started that the image does not contain.
pub fn judge_execution(path: &TreePath) -> Drift {
    happened(path, DriftKind::Executed, None, Drift::STARTED)
}

/// Where code in a process comes from, if not from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stray {
    /// A file that the image does not contain.
    Foreign,
    /// A file of the image that is other than in the image.
    Drifted,
    /// A file that was removed, or replaced, and was none of the image's.
    Deleted,
    /// No file at all (`memfd_create`).
    Memory,
}

/// What code is in the process that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Its program.
    Program,
    /// Anything else that it can run: a library.
    Library,
}

/// Judges that a process was found to have code that is not the image's.
pub fn judge_code(path: &TreePath, code: Code, stray: Stray) -> Drift {
    let subject = match code {
        Code::Program => "a process runs it",
        Code::Library => "a process has loaded it as code",
    };
    let why = match stray {
        Stray::Foreign => "it is not in the image",
        Stray::Drifted => "it is other than in the image",
        Stray::Deleted => "the file was deleted and was none of the image's",
        Stray::Memory => "it is in memory alone and in no file",
    };
    let detail = format!("{subject}, and {why}");
    happened(path, DriftKind::Executed, None, &detail)
}

/// Judges that some processes see something else at a path of the image, in a mount namespace of their own: `what` is
/// mounted there.
pub fn judge_hidden_cover(path: &TreePath, what: &str) -> Drift {
    let detail = format!("{what}, for processes in a mount namespace of their own");
    happened(path, DriftKind::Covered, None, &detail)
}

/// Judges that the kernel has loaded a module that no file of the image brings. `path` is its directory in `/sys/module`.
pub fn judge_module(path: &TreePath) -> Drift {
    happened(path, DriftKind::Executed, None, Drift::MODULE)
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
