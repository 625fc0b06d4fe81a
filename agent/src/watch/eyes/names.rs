//! A file system that says names and nobody who did anything (inotify): all that is left without the right to watch, and on
//! file systems that fanotify does not take.
//!
//! Directories are watched one by one as in [`super::directories`], by their paths on this host.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use drift::TreePath;
use driftmark_kernel::fanotify::Mask;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::table::{Key, Table};
use super::walk::{Walked, Ways};
use crate::scan::filesystems::below;

/// Watched directories, and what is heard of them.
pub(super) struct Names {
    root: PathBuf,
    watcher: RecommendedWatcher,
    heard: Receiver<(PathBuf, Mask)>,
    is_lost: Arc<AtomicBool>,
    /// How often something was watched, which is at least as many directories as there are.
    count: usize,
    is_partial: bool,
    /// Whether all has to begin again.
    pub(super) is_out_of_step: bool,
}

/// What waits to be read. More of it is lost, as in the kernel's own queue.
const QUEUED: usize = 4096;

impl Names {
    /// Watches what is below `mount_point` of the tree at `root`; `wake` is called by another thread when there is
    /// something to read. Says what of it could not be watched.
    ///
    /// # Errors
    /// The kernel has no queue left.
    pub(super) fn open(
        root: &Path,
        mount_point: &TreePath,
        ways: Ways<'_>,
        wake: Arc<OwnedFd>,
    ) -> io::Result<(Self, Option<String>)> {
        let (tell, heard) = sync_channel(QUEUED);
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event.map(|event| (what(&event), event.paths)) {
                Ok((Some(what), mut paths)) => {
                    let all = paths
                        .drain(..)
                        .all(|path| tell.try_send((path, what)).is_ok());
                    lost.fetch_or(!all, Ordering::Relaxed);
                }
                Ok((None, paths)) if !paths.is_empty() => return,
                Ok(_) | Err(_) => lost.store(true, Ordering::Relaxed),
            }
            super::super::live::awake(&wake);
        });
        let mut names = Names {
            root: root.to_owned(),
            watcher: watcher.map_err(error_of)?,
            heard,
            is_lost,
            count: 0,
            is_partial: false,
            is_out_of_step: false,
        };
        let left_out = match names.mark(ways, mount_point.clone()) {
            Ok(Walked::All) => None,
            Ok(Walked::Full) => Some(format!(
                "no more of them than `fs.inotify.max_user_watches`, and {}",
                Table::MOST
            )),
            Err(error) => Some(format!("not all of them: {error}")),
        };
        names.is_partial = left_out.is_some();
        Ok((names, left_out))
    }

    /// The next thing that happened, and where; none where nothing is left to read.
    pub(super) fn next(&mut self, ways: Ways<'_>) -> Option<(TreePath, Mask)> {
        loop {
            let (path, what) = self.heard.try_recv().ok()?;
            let Some(path) = self.in_tree(&path) else {
                continue;
            };
            // Whether it is a directory is not always said.
            if what.has_any(Mask::CREATE.and(Mask::MOVED_TO)) {
                match self.mark(ways, path.clone()) {
                    Ok(Walked::All) => {}
                    Ok(Walked::Full) | Err(_) => self.is_out_of_step |= !self.is_partial,
                }
            }
            return Some((path, what));
        }
    }

    /// Whether something was lost since this was last asked.
    pub(super) fn has_lost(&mut self) -> bool {
        let has_lost = self.is_lost.swap(false, Ordering::Relaxed);
        self.is_out_of_step |= has_lost;
        has_lost
    }

    fn in_tree(&self, path: &Path) -> Option<TreePath> {
        let path = path.strip_prefix(&self.root).ok()?;
        TreePath::new(path.as_os_str().as_bytes()).ok()
    }

    fn mark(&mut self, ways: Ways<'_>, path: TreePath) -> io::Result<Walked> {
        let Names {
            watcher,
            root,
            count,
            ..
        } = self;
        ways.walk(path, None, &mut |_, path, _| {
            // Each takes some hundred bytes, with its path.
            if *count >= Table::MOST {
                return Ok(None);
            }
            *count += 1;
            match watcher.watch(&below(root, path), RecursiveMode::NonRecursive) {
                // Nothing here is known by what it is called.
                Ok(()) => Ok(Some(Key::default())),
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => Ok(None),
                Err(error) => Err(error_of(error)),
            }
        })
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.root.display())
    }
}

/// Nothing for what is no change, and for what is said twice.
fn what(event: &notify::Event) -> Option<Mask> {
    Some(match event.kind {
        EventKind::Create(CreateKind::Folder) => Mask::CREATE.and(Mask::ON_DIRECTORY),
        EventKind::Create(_) => Mask::CREATE,
        EventKind::Remove(RemoveKind::Folder) => Mask::DELETE.and(Mask::ON_DIRECTORY),
        EventKind::Remove(_) => Mask::DELETE,
        // It may be a directory, which comes and goes with all that is in it.
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            Mask::MOVED_FROM.and(Mask::ON_DIRECTORY)
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
            Mask::MOVED_TO.and(Mask::ON_DIRECTORY)
        }
        EventKind::Modify(ModifyKind::Data(_)) => Mask::MODIFY,
        EventKind::Modify(ModifyKind::Metadata(_)) => Mask::ATTRIB,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Mask::CLOSE_WRITE,
        _ => return None,
    })
}

fn error_of(error: notify::Error) -> io::Error {
    match error.kind {
        ErrorKind::Io(error) => error,
        ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        _ => io::Error::other(error),
    }
}
