//! The file systems of an image: its root and the other local ones that its manifest names.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use drift::TreePath;
use drift::manifest::Filesystem;
use driftmark_kernel::{Access, Dir, Mount, Stat, Tree};

/// An image's file systems, open for one scan.
pub struct Filesystems {
    root: Tree,
    others: Vec<Other>,
    mounts: Vec<u64>,
    /// File systems of the image that are not there, or are of another type.
    pub missing: Vec<Filesystem>,
}

struct Other {
    mount_point: TreePath,
    tree: Tree,
    holding: Holding,
}

/// How much of an entry a file system holds by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Everything.
    All,
    /// Kind, size and content: owner and mode are mount options (vfat and its like).
    ContentOnly,
}

impl Holding {
    /// By the type of the file system.
    pub fn of(kind: &str) -> Self {
        match kind {
            "vfat" | "msdos" | "exfat" => Holding::ContentOnly,
            _ => Holding::All,
        }
    }
}

impl Filesystems {
    /// Opens the tree at `root` and, below it, those `wanted` that are mounted there.
    ///
    /// # Errors
    /// A root that cannot be opened.
    pub fn open(root: &Path, wanted: &[Filesystem], mounts: &[Mount]) -> io::Result<Self> {
        let mut opened = Filesystems {
            root: Tree::open(root)?,
            others: Vec::new(),
            mounts: vec![mounted_as(root)?],
            missing: Vec::new(),
        };
        // An agent in a sandbox of its own may see another file system there, or none: cloning that would tell of drift
        // where there is none.
        let own = if wanted.is_empty() {
            Vec::new()
        } else {
            driftmark_kernel::mounts::of(std::process::id())?
        };
        for filesystem in wanted {
            let path = below(root, &filesystem.mount_point);
            let kind = filesystem.kind.as_bytes();
            let tree = match (topmost_at(mounts, &path), topmost_at(&own, &path)) {
                (Some(mount), Some(seen))
                    if mount.fs_type == kind && shows_the_same(mount, seen) =>
                {
                    Tree::open(&path).ok().zip(mounted_as(&path).ok())
                }
                _ => None,
            };
            match tree {
                Some((tree, mounted_as)) => {
                    opened.others.push(Other {
                        mount_point: filesystem.mount_point.clone(),
                        tree,
                        holding: Holding::of(&filesystem.kind),
                    });
                    opened.mounts.push(mounted_as);
                }
                None => opened.missing.push(filesystem.clone()),
            }
        }
        Ok(opened)
    }

    /// Takes the root's file system, mounted already.
    pub fn of_tree(root: Tree) -> Self {
        Filesystems {
            root,
            others: Vec::new(),
            mounts: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Takes others, mounted already.
    #[must_use]
    pub fn with(mut self, others: Vec<(Filesystem, Tree)>) -> Self {
        let others = others.into_iter().map(|(filesystem, tree)| Other {
            holding: Holding::of(&filesystem.kind),
            mount_point: filesystem.mount_point,
            tree,
        });
        self.others.extend(others);
        self
    }

    /// The mounts of this host that they are seen through, as the kernel numbers them.
    pub fn mounts(&self) -> &[u64] {
        &self.mounts
    }

    /// The tree that holds the root.
    pub fn root(&self) -> &Tree {
        &self.root
    }

    /// The tree that is mounted at exactly this path of the image.
    pub fn mounted_at(&self, path: &TreePath) -> Option<(&Tree, Holding)> {
        let found = self
            .others
            .iter()
            .find(|other| other.mount_point == *path)?;
        Some((&found.tree, found.holding))
    }

    /// Whether a file system of the image belongs at a name of this directory, there or not.
    pub fn has_mount_points_in(&self, directory: &TreePath) -> bool {
        let others = self.others.iter().map(|other| &other.mount_point);
        let missing = self.missing.iter().map(|missing| &missing.mount_point);
        others
            .chain(missing)
            .any(|point| point.parent().as_ref() == Some(directory))
    }

    /// Looks a path up by its names alone, whatever its directories list.
    ///
    /// # Errors
    /// Of a kind that [`is_absent`] knows if it is not there; any other if that cannot be told.
    pub fn look_up(&self, path: &TreePath) -> io::Result<Stat> {
        match path.parent() {
            Some(parent) if self.mounted_at(path).is_none() => {
                self.directory(&parent)?.stat_at(path.name())
            }
            _ => self.directory(path)?.stat(),
        }
    }

    /// Opens a directory by its names alone, in whichever file system of the image it lies.
    ///
    /// # Errors
    /// Those of [`Dir::open_dir`].
    pub fn directory(&self, path: &TreePath) -> io::Result<Dir> {
        self.directory_of(path).map(|(dir, _)| dir)
    }

    /// The same, with how much of an entry its file system holds.
    ///
    /// # Errors
    /// Those of [`Dir::open_dir`].
    pub fn directory_of(&self, path: &TreePath) -> io::Result<(Dir, Holding)> {
        let holders = self.others.iter();
        let holder = holders
            .filter(|other| path.is_within(&other.mount_point))
            .max_by_key(|other| other.mount_point.as_bytes().len());
        let (tree, above, holding) = match holder {
            Some(other) => (
                &other.tree,
                other.mount_point.components().count(),
                other.holding,
            ),
            None => (&self.root, 0, Holding::All),
        };
        let mut names = path.components().skip(above);
        let dir = names.try_fold(tree.root()?, |dir, name| dir.open_dir(name))?;
        Ok((dir, holding))
    }

    /// The others beside the root, each by its mount point.
    pub fn others(&self) -> impl Iterator<Item = (&TreePath, &Tree)> {
        let others = self.others.iter();
        others.map(|other| (&other.mount_point, &other.tree))
    }

    /// Whether a file system of the image belongs at this path and is not there.
    pub fn is_missing(&self, path: &TreePath) -> bool {
        self.missing
            .iter()
            .any(|missing| missing.mount_point == *path)
    }

    /// The file system of the image that a path belongs in and that is not there, by its mount point.
    pub fn missing_at(&self, path: &TreePath) -> Option<&TreePath> {
        let mut missing = self.missing.iter().map(|missing| &missing.mount_point);
        missing.find(|point| path.is_within(point))
    }

    /// Whether the walk sees beneath what is mounted over the trees.
    pub fn sees_beneath_mounts(&self) -> bool {
        self.root.how() == Access::PrivateClone
            && self
                .others
                .iter()
                .all(|other| other.tree.how() == Access::PrivateClone)
    }
}

/// The path of a tree's root by which the mount table knows it.
///
/// # Errors
/// A path that leads elsewhere when it is spelled out, as one through another process does (`/proc/PID/root`): that
/// process sees mounts that this one does not, and so another tree. Else those of the path.
pub fn canonical(root: &Path) -> io::Result<PathBuf> {
    let elsewhere = || {
        io::Error::other(
            "it is what another process sees: run this where that process is (nsenter --target PID --mount …)",
        )
    };
    if leads_through_a_process(root) {
        return Err(elsewhere());
    }
    let canonical = root.canonicalize()?;
    let [given, spelled_out] = [root, &canonical].map(|path| Tree::plain(path)?.root()?.stat());
    let place = |stat: Stat| (stat.mount_id, stat.dev, stat.ino);
    if place(given?) == place(spelled_out?) {
        Ok(canonical)
    } else {
        Err(elsewhere())
    }
}

/// Said before it is tried: a confined process has no way there at all.
fn leads_through_a_process(path: &Path) -> bool {
    let mut names = path.components().skip(1).map(Component::as_os_str);
    path.is_absolute()
        && names.next().is_some_and(|name| name == "proc")
        && names
            .next()
            .is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit))
}

fn mounted_as(path: &Path) -> io::Result<u64> {
    Tree::plain(path)?.root()?.mount()
}

/// What is mounted at exactly this path, and not under something else there.
pub(crate) fn topmost_at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let point = path.as_os_str().as_bytes();
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// Whether two mounts, of two views of the machine, show the same part of the same file system.
fn shows_the_same(mount: &Mount, seen: &Mount) -> bool {
    (mount.dev, &mount.root) == (seen.dev, &seen.root)
}

/// Whether an error of a look-up says that there is nothing, and not that it cannot be told.
pub fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = Errno::from_io_error(error);
    known.is_some_and(|errno| [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].contains(&errno))
}

/// The path in the tree at `root` of an absolute one on this host; none where it lies elsewhere.
pub fn within(root: &Path, path: &[u8]) -> Option<TreePath> {
    let root = root.as_os_str().as_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let path = path.strip_prefix(root)?;
    path.starts_with(b"/").then(|| TreePath::new(path).ok())?
}

/// The path on this host of a path of the tree.
pub fn below(root: &Path, path: &TreePath) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}
