//! Receives a path of an image; hands on a short text of it, or the names in a directory.
//!
//! What is decided by looking into an image and not by walking it: its distribution, its `fstab`, what is left of an
//! instance. No symbolic link is ever followed.

use std::io::{self, Read as _};

use drift::TreePath;
use driftmark_kernel::{Names, Scratch, Stat};

use crate::scan::filesystems::Filesystems;

/// An image that can be looked into.
#[derive(Clone, Copy)]
pub(super) struct Glance<'a>(pub(super) &'a Filesystems);

impl Glance<'_> {
    /// What is at a path.
    pub(super) fn look(self, path: &[u8]) -> io::Result<Stat> {
        self.0.look_up(&tree_path(path)?)
    }

    /// The first bytes of the regular file at a path, up to a limit.
    pub(super) fn read(self, path: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let path = tree_path(path)?;
        let parent = path.parent().ok_or(io::ErrorKind::IsADirectory)?;
        let file = self.0.directory(&parent)?.open_file(path.name())?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The names in the directory at a path, sorted.
    pub(super) fn names(self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Names::new();
        let mut directory = self.0.directory(&tree_path(path)?)?;
        directory.names(&mut names, &mut Scratch::default())?;
        names.sort();
        let listed = names.iter().map(|listed| listed.name.to_bytes().to_vec());
        Ok(listed.collect())
    }

    /// A short text; none if it is not there, not text, or longer than any text that is looked for.
    pub(super) fn text(self, path: &str) -> Option<String> {
        const MAX_BYTES: u64 = 64 * 1024;
        String::from_utf8(self.read(path.as_bytes(), MAX_BYTES).ok()?).ok()
    }
}

fn tree_path(path: &[u8]) -> io::Result<TreePath> {
    TreePath::new(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
