//! What is looked into of an archive in; a small file system with just that out.
//!
//! Package databases and the like are read from a file system, whatever the image comes from. In memory and mounted
//! nowhere if this process may; else in a directory of its own that goes with it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use drift::TreePath;
use drift::entry::Node;
use driftmark_kernel::Tree;

use crate::bake::traces;
use crate::confine::Place;
use crate::scan::filesystems::{Filesystems, below};

/// Package databases and the like, all together: several times those of a large image.
pub(super) const MAX_KEPT: u64 = 256 * 1024 * 1024;

/// An empty file system, made before the archive is looked at.
pub(in crate::bake) struct Shelf {
    tree: Tree,
    /// How it is reached.
    at: PathBuf,
    directory: Option<OwnDirectory>,
}

/// The directory that a shelf is where it had to be one; it goes when this is dropped.
pub(in crate::bake) struct OwnDirectory(PathBuf);

impl Shelf {
    /// Makes one.
    pub(in crate::bake) fn make() -> io::Result<Self> {
        let (tree, directory) = match Tree::in_memory() {
            Ok(tree) => (tree, None),
            Err(_) => {
                let directory = OwnDirectory::make()?;
                (Tree::plain(&directory.0)?, Some(directory))
            }
        };
        Ok(Shelf {
            at: format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd()).into(),
            tree,
            directory,
        })
    }

    /// Where it is written, and where its directory goes from.
    pub(in crate::bake) fn places(&self) -> Vec<Place<'_>> {
        let parent = self.directory.as_ref().and_then(|own| own.0.parent());
        let removed = parent.map(Place::RemovedFrom);
        [Place::Below(&self.at)]
            .into_iter()
            .chain(removed)
            .collect()
    }

    /// Puts up what is looked into: contents of what is read, lengths of what is only seen, links at the root.
    pub(super) fn fill<'a>(
        self,
        members: impl Iterator<Item = (&'a TreePath, &'a Node, Option<&'a [u8]>)>,
    ) -> io::Result<(Filesystems, Option<OwnDirectory>)> {
        for (path, node, content) in members {
            let is_link_at_root = matches!(node, Node::Symlink { .. })
                && path.parent().is_some_and(|parent| parent.is_root());
            if content.is_some() || is_link_at_root || is_seen(path) {
                put(&self.at, path, node, content)?;
            }
        }
        Ok((Filesystems::of_tree(self.tree), self.directory))
    }
}

impl OwnDirectory {
    fn make() -> io::Result<Self> {
        let name = format!("driftmark-bake-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(OwnDirectory(directory))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a file's content is looked into, but for traces.
pub(super) fn is_read(path: &TreePath) -> bool {
    let path = path.as_bytes();
    let within = |directory: &[u8]| path.starts_with(directory);
    let ends = |ends: &[&[u8]]| ends.iter().any(|end| path.ends_with(end));
    matches!(
        path,
        b"etc/os-release"
            | b"usr/lib/os-release"
            | b"var/lib/dpkg/status"
            | b"var/lib/rpm/rpmdb.sqlite"
            | b"var/lib/rpm/rpmdb.sqlite-wal"
            | b"usr/lib/sysimage/rpm/rpmdb.sqlite"
            | b"usr/lib/sysimage/rpm/rpmdb.sqlite-wal"
    ) || (within(b"var/lib/dpkg/info/") && ends(&[b".list", b".md5sums", b".conffiles"]))
        || within(b"lib/apk/db/")
        || within(b"usr/lib/apk/db/")
}

fn is_seen(path: &TreePath) -> bool {
    traces::looks_at(path)
}

/// Every directory of an archive is one, so that nothing put here leads elsewhere.
fn put(at: &Path, path: &TreePath, node: &Node, content: Option<&[u8]>) -> io::Result<()> {
    let place = below(at, path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    match node {
        Node::Directory => fs::create_dir_all(place),
        Node::Symlink { target } => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), place)
        }
        Node::File { size, .. } => match content {
            Some(content) => fs::write(place, content),
            None => File::create(place)?.set_len(*size),
        },
        // Anything that is there and is not empty.
        _ => fs::write(place, b"x"),
    }
}
