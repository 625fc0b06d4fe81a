//! The image's file systems in; a mark on each, the best that it allows, and where its events happened, out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use drift::TreePath;
use driftmark_kernel::fanotify::{Handle, Holder, Located, Mask, Place, Shows, Sight, Watch};
use driftmark_kernel::{Mount, Stat, Tree};
use rustix::fs::{Mode, OFlags};

use crate::scan::filesystems::{Filesystems, below, topmost_at};

/// One watched file system: a queue of its own, as a queue may refuse to hold two kinds of them.
#[derive(Debug)]
pub(super) struct Eye {
    pub(super) watch: Watch,
    holder: Holder,
    mount_point: TreePath,
}

/// What is watched, and what is not.
#[derive(Debug, Default)]
pub(super) struct Eyes {
    pub(super) all: Vec<Eye>,
    /// What is seen less, a sentence each.
    pub(super) limits: Vec<String>,
}

/// A name that an event is about.
#[derive(Debug)]
pub(super) struct At {
    /// The directory that it is in, open without rights on its content.
    pub(super) directory: OwnedFd,
    pub(super) path: TreePath,
}

impl Eyes {
    /// Marks every file system of the image below `root`.
    pub(super) fn open(filesystems: &Filesystems, root: &Path, mounts: &[Mount]) -> Eyes {
        let mut eyes = Eyes::default();
        let top = TreePath::root();
        let others = filesystems.others();
        for (mount_point, tree) in std::iter::once((&top, filesystems.root())).chain(others) {
            let path = below(root, mount_point);
            match Eye::open(tree, mount_point, shows(topmost_at(mounts, &path))) {
                Ok(eye) => eyes.all.push(eye),
                Err(because) => eyes
                    .limits
                    .push(format!("between scans {mount_point} is {because}")),
            }
        }
        eyes
    }

    /// Marks everything anew, and gives what was marked before: what these still have is theirs to tell. Whatever was
    /// ignored is seen again.
    pub(super) fn renew(&mut self) -> Vec<(usize, Watch)> {
        let mut before = Vec::new();
        for (nth, eye) in self.all.iter_mut().enumerate() {
            match queue().map(|watch| (watch.watch_filesystem(eye.holder.as_fd()), watch)) {
                Ok((Sight::Whole { .. }, watch)) => {
                    before.push((nth, std::mem::replace(&mut eye.watch, watch)));
                }
                // It goes on with what it has: of what is ignored there, a pass tells.
                Ok((sight, _)) => tracing::warn!(%sight, "a file system is not marked anew"),
                Err(error) => tracing::warn!(%error, "no other queue of events"),
            }
        }
        before
    }

    /// Whether another file system of the image lies over this path of one.
    pub(super) fn is_beneath_another(&self, eye: usize, path: &TreePath) -> bool {
        let own = &self.all[eye].mount_point;
        let others = self.all.iter().map(|other| &other.mount_point);
        others
            .filter(|other| *other != own && other.is_within(own))
            .any(|other| path.is_within(other))
    }
}

impl Eye {
    fn open(tree: &Tree, mount_point: &TreePath, shows: Shows) -> Result<Eye, String> {
        let failed = |error: io::Error| format!("not watched: {error}");
        let holder = Holder::of(tree, shows).map_err(failed)?;
        let watch = queue().map_err(failed)?;
        match watch.watch_filesystem(holder.as_fd()) {
            Sight::Whole { .. } => Ok(Eye {
                watch,
                holder,
                mount_point: mount_point.clone(),
            }),
            Sight::Directories { because, .. } | Sight::None { because } => Err(format!(
                "not watched: it cannot be marked as a whole: {because}"
            )),
        }
    }

    /// Where a name of an event lies now; none where it is not to be found any more, or lies outside.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn locate(&self, place: &Place<'_>) -> io::Result<Option<At>> {
        let Located::Here { directory, path } = self.holder.locate(&place.directory)? else {
            return Ok(None);
        };
        let path = self.joined(&path).and_then(|directory| match place.name {
            b"." => Some(directory),
            name => directory.join(name).ok(),
        });
        Ok(path.map(|path| At { directory, path }))
    }

    /// What an event without a name is about, by one of its names.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn find(&self, object: &Handle<'_>) -> io::Result<Option<(Stat, TreePath)>> {
        let found = self.holder.find(object)?;
        Ok(found.and_then(|(stat, path)| Some((stat, self.joined(&path)?))))
    }

    /// Has a busy directory in which nothing is held wake nobody.
    pub(super) fn ignore(&self, directory: &OwnedFd) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // What may not be ignored merely costs more.
        let _ = rustix::fs::openat(directory, c".", flags, Mode::empty())
            .and_then(|directory| self.watch.ignore_directory(directory.as_fd()));
    }

    fn joined(&self, below: &[u8]) -> Option<TreePath> {
        let names = below
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        names
            .into_iter()
            .try_fold(self.mount_point.clone(), |path, name| path.join(name))
            .ok()
    }
}

/// For all but programs, which have a queue of their own.
fn queue() -> io::Result<Watch> {
    let watch = Watch::open()?;
    let changes = Mask(watch.asks().0 & !Mask::OPEN_EXEC.0);
    Ok(watch.asking(changes))
}

/// A subvolume is a part of its file system, although the mount table calls it by its own path or not.
pub(super) fn shows(mount: Option<&Mount>) -> Shows {
    match mount {
        Some(mount) if mount.root == b"/" && mount.fs_type != b"btrfs" => Shows::All,
        _ => Shows::Part,
    }
}
