//! A file system that is marked as a whole: where its events happened, as of now.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use drift::TreePath;
use driftmark_kernel::Stat;
use driftmark_kernel::fanotify::{Handle, Holder, Located, Place, Sight, Watch};
use rustix::fs::{Mode, OFlags};

use super::{At, Ways, queue};

/// A queue, and what its events are about.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) watch: Watch,
    pub(super) holder: Holder,
    /// What the service manager keeps the queue as.
    pub(super) kept_as: String,
    /// What is queued happened while nobody read.
    pub(super) is_late: bool,
    /// The directory that was looked for last. What one reading brings has all happened before it is asked after, so one
    /// answer is as good as another.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    form: i32,
    handle: Vec<u8>,
    found: Option<Found>,
}

/// A directory of the image.
#[derive(Debug, Clone)]
struct Found {
    directory: Arc<OwnedFd>,
    path: TreePath,
    is_free: bool,
}

impl Whole {
    pub(super) fn new(watch: Watch, holder: Holder, kept_as: String) -> Whole {
        Whole {
            watch,
            holder,
            kept_as,
            is_late: false,
            last: None,
        }
    }

    /// Another queue with nothing ignored, and the one before; none where there can be none.
    pub(super) fn renew(&mut self) -> Option<Watch> {
        match queue().map(|watch| (watch.watch_filesystem(self.holder.as_fd()), watch)) {
            Ok((Sight::Whole { .. }, watch)) => Some(std::mem::replace(&mut self.watch, watch)),
            // It goes on with what it has: of what is ignored there, a pass tells.
            Ok((sight, _)) => {
                tracing::warn!(%sight, "a file system is not marked anew");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "no other queue of events");
                None
            }
        }
    }

    /// Another reading begins.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// See [`super::Eye::locate`].
    pub(super) fn locate(
        &mut self,
        mount_point: &TreePath,
        place: &Place<'_>,
        ways: Ways<'_>,
    ) -> io::Result<Option<At>> {
        let Handle { form, bytes, .. } = place.directory;
        let known = self.last.as_ref();
        let known = known.filter(|last| last.form == form && last.handle == bytes);
        let found = match known {
            Some(last) => last.found.clone(),
            None => {
                let found = self.look_for(mount_point, &place.directory, ways)?;
                let last = found.clone();
                self.last = Some(Last {
                    form,
                    handle: bytes.to_vec(),
                    found,
                });
                last
            }
        };
        Ok(found.and_then(|found| {
            Some(At {
                directory: Some(found.directory),
                path: named(found.path, place.name)?,
                is_free: found.is_free && place.name != b".",
            })
        }))
    }

    fn look_for(
        &self,
        mount_point: &TreePath,
        directory: &Handle<'_>,
        ways: Ways<'_>,
    ) -> io::Result<Option<Found>> {
        let Located::Here { directory, path } = self.holder.locate(directory)? else {
            return Ok(None);
        };
        Ok(joined(mount_point, &path).map(|path| Found {
            directory: Arc::new(directory),
            is_free: !ways.rules.descend(&path),
            path,
        }))
    }

    /// See [`super::Eye::find`].
    pub(super) fn find(
        &self,
        mount_point: &TreePath,
        object: &Handle<'_>,
    ) -> io::Result<Option<(Stat, TreePath)>> {
        let found = self.holder.find(object)?;
        Ok(found.and_then(|(stat, path)| Some((stat, joined(mount_point, &path)?))))
    }

    /// See [`super::Eye::ignore`].
    pub(super) fn ignore(&self, directory: &OwnedFd) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // What may not be ignored merely costs more.
        let _ = rustix::fs::openat(directory, c".", flags, Mode::empty())
            .and_then(|directory| self.watch.ignore_directory(directory.as_fd()));
    }
}

fn joined(mount_point: &TreePath, below: &[u8]) -> Option<TreePath> {
    let names = below
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    names
        .into_iter()
        .try_fold(mount_point.clone(), |path, name| path.join(name))
        .ok()
}

/// The path of a name of an event.
pub(super) fn named(directory: TreePath, name: &[u8]) -> Option<TreePath> {
    match name {
        b"." => Some(directory),
        name => directory.join(name).ok(),
    }
}
