//! A path in; whether the image has a file there, out.
//!
//! Finding a path in the manifest unpacks up to a whole block of it, which takes as long as starting a program does: what
//! was found is remembered. A manifest never becomes another.

use std::collections::BTreeMap;

use drift::entry::Kind;
use drift::manifest::ManifestError;
use drift::{Blake3, TreePath};

use super::Baseline;

/// Paths that were asked after, of one manifest.
#[derive(Debug)]
pub(crate) struct InImage {
    /// By the first half of the path's digest: a path may be as long as anybody likes.
    known: BTreeMap<[u8; 16], bool>,
    most: usize,
}

impl InImage {
    /// One that remembers so many paths, some 30 bytes each. Where there are more they are looked up again.
    pub(crate) fn of_most(most: usize) -> Self {
        InImage {
            known: BTreeMap::new(),
            most,
        }
    }

    /// Whether the image has a file at this path.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(crate) fn has(
        &mut self,
        baseline: &Baseline,
        path: &TreePath,
    ) -> Result<bool, ManifestError> {
        let mut name = [0; 16];
        name.copy_from_slice(&Blake3::of(path.as_bytes()).as_bytes()[..16]);
        if let Some(known) = self.known.get(&name) {
            return Ok(*known);
        }
        let entry = baseline.manifest.lookup(path)?;
        let is_there = entry.is_some_and(|entry| entry.node.kind() == Kind::File);
        self.note(name, is_there);
        Ok(is_there)
    }

    fn note(&mut self, name: [u8; 16], is_there: bool) {
        if self.known.len() >= self.most {
            self.known.clear();
        }
        self.known.insert(name, is_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let mut paths = InImage::of_most(100);
        for number in 0..350_u128 {
            paths.note(number.to_le_bytes(), true);
            assert!(paths.known.len() <= 100);
        }
        assert_eq!(paths.known.get(&349_u128.to_le_bytes()), Some(&true));
    }
}
