//! Programs that the image does not hold in; moments that say who wanted to run them out.
//!
//! On a thread of its own: what a process says of itself comes from its own memory, and may be as long in coming as it
//! likes. Whoever is refused waits for it, and nobody else does.

use std::io;
use std::path::Path;

use drift::compare::judge_execution;
use drift::entry::Kind;
use drift::finding::Drift;
use driftmark_kernel::fanotify::Answer;

use super::answers::Foreign;
use super::{Guarding, Told};
use crate::scan::filesystems::{Filesystems, within};
use crate::watch::attribution::{Promptness, Running, Witness};

/// Tells who wanted to run what.
pub(super) struct Telling<'a> {
    guarding: &'a Guarding<'a>,
    root: &'a Path,
    filesystems: &'a Filesystems,
    witness: Witness,
}

impl<'a> Telling<'a> {
    /// # Errors
    /// This machine's own root cannot be looked at.
    pub(super) fn new(
        guarding: &'a Guarding<'a>,
        root: &'a Path,
        filesystems: &'a Filesystems,
    ) -> io::Result<Self> {
        Ok(Telling {
            guarding,
            root,
            filesystems,
            witness: Witness::new(guarding.order.command_line)?,
        })
    }

    /// Looks at who asked while that one still waits, answers, and tells.
    pub(super) fn tell(&self, foreign: Foreign<'_>) {
        let at_once = Promptness::AtOnce;
        let by =
            (self.witness).attribute(&foreign.actor, at_once, |running| self.is_image(running));
        let detail = match foreign.waits {
            Some(question) => {
                // Killed meanwhile, it does not run either.
                let _ = question.answer(Answer::Deny);
                Drift::REFUSED
            }
            None => Drift::WOULD_BE_REFUSED,
        };
        let drift = Drift {
            detail: Some(detail.to_owned()),
            attribution: Some(Box::new(by)),
            ..judge_execution(&foreign.path)
        };
        (self.guarding.tell)(Told::Foreign(Box::new(drift)));
    }

    /// Whether this is a file of the image, at its place.
    fn is_image(&self, running: &Running) -> bool {
        let Some(path) = within(self.root, running.path()) else {
            return false;
        };
        let entry = self.guarding.order.baseline.manifest.lookup(&path);
        let is_held = matches!(entry, Ok(Some(entry)) if entry.node.kind() == Kind::File);
        is_held && running.lies_at(self.filesystems, &path)
    }
}
