//! An execution that waits in; whether it is the image's out.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use drift::TreePath;
use driftmark_kernel::Stat;
use rustix::fs::CWD;

use super::Order;
use super::known::Known;
use crate::baseline::{Baseline, InImage};
use crate::scan::filesystems::{Filesystems, is_absent, within};
use crate::watch::attribution::{DELETED, Directory};

/// What an execution is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The image holds it: so it does until somebody writes to it, and longer.
    Image,
    /// It lies outside of the tree, or where anything may be run.
    Allowed,
    /// It is run by a process that has another root: its own image's.
    Container,
    /// It cannot be told what it is.
    Untold,
    /// The image does not hold it. By its path in the image.
    Foreign(TreePath),
}

/// More files that are none of the image's programs by themselves than somebody tries to run again and again.
const MOST_PATHS: usize = 512;

/// Judges executions.
pub(super) struct Judge<'a> {
    baseline: &'a Baseline,
    filesystems: &'a Filesystems,
    known: Known,
    paths: InImage,
    /// Of the tree.
    root: &'a Path,
    allow: Vec<&'a [u8]>,
    /// Device and inode of this machine's own root.
    own_root: (u64, u64),
}

impl<'a> Judge<'a> {
    /// # Errors
    /// This machine's own root cannot be looked at.
    pub(super) fn new(
        order: &'a Order,
        root: &'a Path,
        filesystems: &'a Filesystems,
        known: Known,
    ) -> io::Result<Self> {
        let bytes = |path: &'a Path| {
            let bytes = path.as_os_str().as_bytes();
            bytes.strip_suffix(b"/").unwrap_or(bytes)
        };
        let own = rustix::fs::stat("/")?;
        Ok(Judge {
            baseline: &order.baseline,
            filesystems,
            known,
            paths: InImage::of_most(MOST_PATHS),
            root,
            allow: order.allow.iter().map(|path| bytes(path)).collect(),
            own_root: (own.st_dev, own.st_ino),
        })
    }

    /// What the process `pid` is about to run.
    pub(super) fn judge(&mut self, pid: u32, file: BorrowedFd<'_>) -> Judgement {
        // Of another machine, that shares a file system with this container.
        if pid == 0 {
            return Judgement::Allowed;
        }
        let Ok(stat) = Stat::of(&file) else {
            return Judgement::Untold;
        };
        if self.known.has(&stat) {
            return Judgement::Image;
        }
        let root = Directory::open(pid).ok().and_then(|process| process.root());
        if root.is_some_and(|root| root != self.own_root) {
            return Judgement::Container;
        }
        let Some(path) = path_of(file, &stat) else {
            return Judgement::Untold;
        };
        if self.allow.iter().any(|allowed| is_below(&path, allowed)) {
            return Judgement::Allowed;
        }
        let Some(path) = within(self.root, &path) else {
            return Judgement::Allowed;
        };
        match self.holds(&path, &stat) {
            Some(true) => {
                self.known.add(&stat);
                return Judgement::Image;
            }
            Some(false) => {}
            None => return Judgement::Untold,
        }
        match root {
            Some(_) => Judgement::Foreign(path),
            None => Judgement::Untold,
        }
    }

    /// Whether the image has a file at this path, and it is just this one that lies there: whoever has mounts of its own
    /// can call a file anything. None where that cannot be told.
    fn holds(&mut self, path: &TreePath, stat: &Stat) -> Option<bool> {
        if self.filesystems.missing_at(path).is_some() {
            return None;
        }
        if !self.paths.has(self.baseline, path).ok()? {
            return Some(false);
        }
        match self.filesystems.look_up(path) {
            Ok(found) => Some((found.dev, found.ino) == (stat.dev, stat.ino)),
            Err(error) if is_absent(&error) => Some(false),
            Err(_) => None,
        }
    }
}

/// As the mounts of whoever runs it have it. Of a file without a name left, the last one that it had.
fn path_of(file: BorrowedFd<'_>, stat: &Stat) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut path = rustix::fs::readlinkat(CWD, link, Vec::new())
        .ok()?
        .into_bytes();
    if stat.nlink == 0 && path.ends_with(DELETED) {
        path.truncate(path.len() - DELETED.len());
    }
    Some(path)
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with(b"/"))
}
