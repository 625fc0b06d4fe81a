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
use crate::scan::filesystems::{Filesystems, below};

/// Package databases and the like, all together: several times those of a large image.
pub(super) const MAX_KEPT: u64 = 256 * 1024 * 1024;

/// Holds the directory, where there had to be one.
pub(in crate::bake) struct Shelf {
    directory: Option<PathBuf>,
}

impl Shelf {
    /// Puts up what is looked into: contents of what is read, lengths of what is only seen, links at the root.
    pub(super) fn of<'a>(
        members: impl Iterator<Item = (&'a TreePath, &'a Node, Option<&'a [u8]>)>,
    ) -> io::Result<(Filesystems, Shelf)> {
        let (tree, shelf) = match Tree::in_memory() {
            Ok(tree) => (tree, Shelf { directory: None }),
            Err(_) => {
                let directory = own_directory()?;
                let shelf = Shelf {
                    directory: Some(directory.clone()),
                };
                (Tree::plain(&directory)?, shelf)
            }
        };
        let at = PathBuf::from(format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd()));
        for (path, node, content) in members {
            let is_link_at_root = matches!(node, Node::Symlink { .. })
                && path.parent().is_some_and(|parent| parent.is_root());
            if content.is_some() || is_link_at_root || is_seen(path) {
                put(&at, path, node, content)?;
            }
        }
        Ok((Filesystems::of_tree(tree), shelf))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Whether a file's content is looked into, but for traces.
pub(super) fn is_read(path: &TreePath) -> bool {
    let path = path.as_bytes();
    let within = |directory: &[u8]| path.starts_with(directory);
    let ends = |ends: &[&[u8]]| ends.iter().any(|end| path.ends_with(end));
    matches!(
        path,
        b"etc/os-release" | b"usr/lib/os-release" | b"var/lib/dpkg/status"
    ) || (within(b"var/lib/dpkg/info/") && ends(&[b".list", b".md5sums", b".conffiles"]))
        || [
            &b"lib/apk/db/"[..],
            b"usr/lib/apk/db/",
            b"var/lib/rpm/",
            b"usr/lib/sysimage/rpm/",
        ]
        .into_iter()
        .any(within)
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

fn own_directory() -> io::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let directory = parent.join(format!("driftmark-bake-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}
