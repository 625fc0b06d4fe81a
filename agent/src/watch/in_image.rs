//! A path in; whether the image has a program there, out.
//!
//! Finding a path in the manifest unpacks up to a whole block of it, which takes as long as starting the program does: what
//! was found is remembered. The manifest of a watch never becomes another.

use std::collections::HashMap;

use drift::TreePath;
use drift::entry::Kind;
use drift::manifest::ManifestError;

use crate::baseline::Baseline;

/// Paths that were asked after.
#[derive(Debug, Default)]
pub(crate) struct InImage(HashMap<TreePath, bool>);

impl InImage {
    /// More programs than a machine starts again and again. Whoever makes a new one for each start has all of them
    /// forgotten, and paths that nobody would use are not remembered: a hundred kilobytes at most.
    const MOST: usize = 512;
    const MOST_BYTES: usize = 192;

    /// Whether the image has a file at this path. What cannot be read is not known to be the image's, now.
    pub(super) fn has(&mut self, baseline: &Baseline, path: &TreePath) -> bool {
        self.look(baseline, path).unwrap_or(false)
    }

    /// The same.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn look(
        &mut self,
        baseline: &Baseline,
        path: &TreePath,
    ) -> Result<bool, ManifestError> {
        if let Some(known) = self.0.get(path) {
            return Ok(*known);
        }
        let entry = baseline.manifest.lookup(path)?;
        let is_there = entry.is_some_and(|entry| entry.node.kind() == Kind::File);
        self.note(path, is_there);
        Ok(is_there)
    }

    fn note(&mut self, path: &TreePath, is_there: bool) {
        if path.as_bytes().len() > InImage::MOST_BYTES {
            return;
        }
        if self.0.len() >= InImage::MOST {
            self.0.clear();
        }
        self.0.insert(path.clone(), is_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let mut programs = InImage::default();
        for number in 0..3 * InImage::MOST {
            let path = TreePath::new(format!("tmp/{number}").as_bytes()).unwrap();
            programs.note(&path, false);
            assert!(programs.0.len() <= InImage::MOST);
        }
        let long = TreePath::new(
            "a/".repeat(InImage::MOST_BYTES)
                .trim_end_matches('/')
                .as_bytes(),
        );
        let before = programs.0.len();
        programs.note(&long.unwrap(), true);
        assert_eq!(programs.0.len(), before);
    }
}
