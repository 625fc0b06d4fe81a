//! What is mounted over the image: judged from the mount table, one finding per mount point.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use drift::manifest::Filesystem;
use drift::{TreePath, escape};
use driftmark_kernel::{Mount, mounts};

/// The mounts of the host as the process with id 1 sees them, or as this one does for a tree elsewhere.
///
/// An agent confined by its unit has mounts of its own; the host's are what counts.
///
/// # Errors
/// A mount table that cannot be read or understood.
pub fn table(root: &Path) -> io::Result<Vec<Mount>> {
    let own = std::process::id();
    if root == Path::new("/") {
        mounts::of(1).or_else(|_| mounts::of(own))
    } else {
        mounts::of(own)
    }
}

/// One mount over a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// Where.
    pub path: TreePath,
    /// What is mounted there, for people: type and source.
    pub what: String,
}

/// What is mounted below `root` that is no file system of the image: nothing that lies beneath another one.
pub fn covers(table: &[Mount], root: &Path, own: &[Filesystem]) -> Vec<Cover> {
    let root = root.as_os_str().as_bytes();
    let mut covers = Vec::new();
    let others: Vec<Mount> = table
        .iter()
        .filter(|mount| !belongs(mount, root, own))
        .cloned()
        .collect();
    for mount in mounts::topmost_below(&others, root) {
        let Some(path) = relative(&mount.point, root) else {
            continue;
        };
        let what = format!("{} ({})", escape(&mount.fs_type), escape(&mount.source));
        covers.push(Cover { path, what });
    }
    covers
}

/// Whether this mount is a file system of the image, at its place and of its type.
fn belongs(mount: &Mount, root: &[u8], own: &[Filesystem]) -> bool {
    relative(&mount.point, root).is_some_and(|path| {
        own.iter().any(|filesystem| {
            filesystem.mount_point == path && filesystem.kind.as_bytes() == mount.fs_type
        })
    })
}

fn relative(point: &[u8], root: &[u8]) -> Option<TreePath> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = point.strip_prefix(root)?;
    rest.starts_with(b"/").then(|| TreePath::new(rest).ok())?
}
