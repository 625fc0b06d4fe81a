//! Makes a manifest: entries in any order, the same bytes whatever the order.

use crate::entry::{AttributeSet, Entry, Links, Node, Xattrs};
use crate::manifest::layout::{Filesystem, MAX_FILESYSTEMS};
use crate::manifest::record::MAX_TARGET_BYTES;
use crate::manifest::sets::MAX_SET_BYTES;
use crate::manifest::{Identity, InMemory, Package, Writer};
use crate::rules::Rules;
use crate::{Sha256, TreePath};

/// Collects the entries of an image and writes its manifest.
#[derive(Debug, Default)]
pub struct Builder {
    baked: Vec<Baked>,
}

/// An entry with what only the bake knows of it.
#[derive(Debug, Clone)]
struct Baked {
    entry: Entry,
    sha256: Option<Sha256>,
    package: Option<Package>,
    modified: Modified,
}

/// Seconds and nanoseconds since 1970.
type Modified = (i64, u32);

/// A finished manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedManifest {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// What a signature is about.
    pub identity: Identity,
    /// How many entries it has.
    pub entry_count: u64,
}

/// Why entries do not make a manifest.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The same path twice.
    #[error("{0} is in the tree twice")]
    Duplicate(TreePath),
    /// A path that comes before the one that was written before it.
    #[error("{0} comes out of the order of paths")]
    OutOfOrder(TreePath),
    /// A path whose directory is no entry.
    #[error("{0} is in no directory of the tree")]
    Orphan(TreePath),
    /// A regular file without the digest that the rest of the world speaks.
    #[error("{0} has no SHA-256")]
    NoSha256(TreePath),
    /// More packages than can be numbered.
    #[error("the image has more than {} packages", Package::MAX_COUNT)]
    TooManyPackages,
    /// A record that does not fit a block.
    #[error("{0} does not fit a block of the manifest: its path or its link target is too long")]
    TooLong(TreePath),
    /// An entry that no file system of Linux could hold.
    #[error("{path} cannot be held in a manifest: {problem}")]
    Unfit {
        /// The entry.
        path: TreePath,
        /// What of it does not fit.
        problem: &'static str,
    },
    /// A package or file system name that is too long.
    #[error("the name {0:?} cannot be held in a manifest")]
    BadName(String),
    /// A file system at the root, two at one mount point, or more than an image can have.
    #[error("these file systems cannot be those below the root of one image")]
    Filesystems,
    /// What was set aside while it was made.
    #[error("read what was set aside of the manifest")]
    Aside(#[source] std::io::Error),
    /// More than the format can hold.
    #[error("the image's {0} is larger than a manifest can hold")]
    TooLarge(&'static str),
}

impl Builder {
    /// Adds an entry; regular files whose content is held need their SHA-256.
    pub fn push(
        &mut self,
        entry: Entry,
        sha256: Option<Sha256>,
        package: Option<Package>,
        modified: (i64, u32),
    ) {
        self.baked.push(Baked {
            entry,
            sha256,
            package,
            modified,
        });
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// Entries that do not make a tree, or that exceed a limit of the format.
    pub fn finish(
        mut self,
        rules: Rules,
        filesystems: Vec<Filesystem>,
        not_held: AttributeSet,
    ) -> Result<BakedManifest, BuildError> {
        self.baked.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let mut writer = Writer::new(rules, &InMemory);
        for baked in &self.baked {
            let package = baked.package.as_ref();
            writer.push(&baked.entry, baked.sha256, package, baked.modified)?;
        }
        let sheets = writer.finish(filesystems, not_held)?;
        Ok(BakedManifest {
            bytes: sheets.to_bytes().map_err(BuildError::Aside)?,
            identity: sheets.identity,
            entry_count: sheets.entry_count,
        })
    }
}

/// Whether a manifest has a place for everything of an entry, given whether its SHA-256 is there.
pub(super) fn fits(entry: &Entry, has_sha256: bool) -> Result<(), BuildError> {
    if matches!(entry.node, Node::File { .. }) && !has_sha256 {
        return Err(BuildError::NoSha256(entry.path.clone()));
    }
    match problem(entry) {
        Some(problem) => Err(BuildError::Unfit {
            path: entry.path.clone(),
            problem,
        }),
        None => Ok(()),
    }
}

/// What of an entry the format has no place for, and no file system of Linux either.
fn problem(entry: &Entry) -> Option<&'static str> {
    /// Length, and length of the name and of the value, as varints.
    const SET_OVERHEAD_BYTES: usize = 8;
    let mut set_bytes = SET_OVERHEAD_BYTES;
    for xattr in entry.xattrs.as_slice() {
        set_bytes += xattr.name.len() + xattr.value.len() + SET_OVERHEAD_BYTES;
        if xattr.name.is_empty() || xattr.name.len() > Xattrs::MAX_NAME_BYTES {
            return Some("the name of an extended attribute is empty or too long");
        }
        if xattr.value.len() > Xattrs::MAX_VALUE_BYTES {
            return Some("the value of an extended attribute is too long");
        }
    }
    let unfit_links = |links: &Links| {
        entry.node == Node::Directory || links.least.is_root() || links.least > entry.path
    };
    match &entry.node {
        _ if set_bytes > MAX_SET_BYTES => Some("its extended attributes are too long together"),
        _ if entry.mode > 0o7777 => Some("its mode has more than twelve bits"),
        _ if entry.links.as_ref().is_some_and(unfit_links) => Some("its hard-link group is none"),
        Node::File {
            verity: Some(_), ..
        } if !entry.flags.has_verity() => {
            Some("it was measured by fs-verity, which it does not have")
        }
        Node::Symlink { target } if target.len() > MAX_TARGET_BYTES => {
            Some("its link target is too long")
        }
        _ => None,
    }
}

pub(super) fn check_filesystems(sorted: &[Filesystem]) -> Result<(), BuildError> {
    if let Some(bad) = sorted
        .iter()
        .find(|filesystem| filesystem.kind.len() > Filesystem::MAX_KIND_BYTES)
    {
        return Err(BuildError::BadName(bad.kind.clone()));
    }
    let distinct = sorted.is_sorted_by(|a, b| a.mount_point < b.mount_point);
    let below_root = sorted
        .iter()
        .all(|filesystem| !filesystem.mount_point.is_root());
    if distinct && below_root && sorted.len() <= MAX_FILESYSTEMS {
        Ok(())
    } else {
        Err(BuildError::Filesystems)
    }
}
