//! A file system in, the best mark that it allows out, and what that one sees.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::fanotify::MarkFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Mask, Watch};
use crate::sys;

/// How much of a file system a watch sees, which only trying tells.
#[derive(Debug)]
pub enum Sight {
    /// Everything that happens in it, wherever it is mounted, with names and handles; `filesystem` is what the handles
    /// of its events say.
    Whole {
        /// [`super::Handle::filesystem`] of its events.
        filesystem: u64,
    },
    /// The same, but only in directories that are marked one by one ([`Watch::watch_directory`]; the top is marked
    /// already), and their handles can be compared and not opened. What happens in a new directory before it is marked
    /// is not seen.
    Directories {
        /// [`super::Handle::filesystem`] of its events.
        filesystem: u64,
        /// Why it is not watched as a whole.
        because: io::Error,
    },
    /// Nothing: inotify is left.
    None {
        /// Why not even directories can be marked.
        because: io::Error,
    },
}

/// A sentence for the coverage, without the name of the file system.
impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sight::Whole { .. } => f.write_str("watched as a whole"),
            Sight::Directories { because, .. } => write!(
                f,
                "watched directory by directory, as its file system cannot be watched as a whole: {because}"
            ),
            Sight::None { because } => write!(f, "not watched by fanotify: {because}"),
        }
    }
}

impl Watch {
    /// Marks the file system that `top` (an open directory of it, read-only and not `O_PATH`) lies in, as a whole if
    /// it lets itself, else `top` alone.
    ///
    /// A queue may hold one file system without a number of its own (`EXDEV`, `ENODEV` from the second on): where
    /// [`Sight::Directories`] is what others got, a queue for each is the way.
    ///
    /// # Errors
    /// None: what the kernel refuses is what is seen less.
    pub fn watch_filesystem(&self, top: BorrowedFd<'_>) -> Sight {
        let because = match self.mark_whole(top) {
            Ok(filesystem) => return Sight::Whole { filesystem },
            Err(error) => error,
        };
        match self.watch_directory(top).and_then(|()| number(top)) {
            Ok(filesystem) => Sight::Directories {
                filesystem,
                because: because.into(),
            },
            Err(because) => Sight::None {
                because: because.into(),
            },
        }
    }

    /// Marks one directory and what is directly in it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has no handles at all, `ENOTDIR`, `ENOMEM`.
    pub fn watch_directory(&self, directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
        // Only a whole file system has errors of its own.
        let asks = Mask(self.asks().0 & !Mask::FS_ERROR.0).and(Mask::ON_CHILDREN);
        self.mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_ONLYDIR,
            asks,
            directory,
        )
    }

    /// Has a busy directory whose content may change wake nobody: but for renames, no event of it or of what is directly in
    /// it is queued any more, whatever watches the file system. Directories in it need marks of their own. What is left is
    /// one `ATTRIB` without a name for each thing that is removed in it, or renamed over: the kernel tells of its last link
    /// as of something that lies in no directory. Renames stay, as one of them may lead out of it, and the kernel asks the
    /// marks of both directories together.
    ///
    /// Such a mark pins no memory: the kernel drops it when it drops the directory, and then events come again.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.0, `EEXIST` where the directory is watched by itself ([`Watch::watch_directory`]).
    pub fn ignore_directory(&self, directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD
            | MarkFlags::FAN_MARK_ONLYDIR
            | MarkFlags::FAN_MARK_IGNORE_SURV
            | MarkFlags::FAN_MARK_EVICTABLE;
        let renames = Mask::RENAME.and(Mask::MOVED_FROM).and(Mask::MOVED_TO);
        let ignored = Mask(self.asks().0 & !Mask::FS_ERROR.and(renames).0);
        self.mark(flags, ignored.and(Mask::ON_CHILDREN), directory)
    }

    /// What the handles of its events will say.
    fn mark_whole(&self, top: BorrowedFd<'_>) -> rustix::io::Result<u64> {
        let whole = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        match self.mark(whole, self.asks(), top) {
            Ok(()) => number(top),
            // A subvolume has a number of its own, and only the top of all of them may be marked.
            Err(Errno::XDEV) => {
                let top = top_of_btrfs(top)?;
                self.mark(whole, self.asks(), top.as_fd())?;
                number(top.as_fd())
            }
            Err(error) => Err(error),
        }
    }
}

/// The top of a btrfs that `beneath` is a directory of, whatever part of it is mounted: every subvolume is reached from
/// there, and a mark there is one for all of them.
///
/// By its handle, which is of numbers that btrfs's format on disk fixes: directory 256 of tree 5, of any generation.
/// Mounting the whole for a moment would need a right that the daemon gives up.
fn top_of_btrfs(beneath: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    const FORM: i32 = 0x4d;
    const FIRST_INODE: u64 = 256;
    const FIRST_TREE: u64 = 5;
    let (form, mut handle) = sys::handle_of(beneath, sys::Purpose::Opening)?;
    if form != FORM || handle.len() != 20 {
        return Err(Errno::XDEV);
    }
    handle[..8].copy_from_slice(&FIRST_INODE.to_ne_bytes());
    handle[8..16].copy_from_slice(&FIRST_TREE.to_ne_bytes());
    handle[16..].fill(0);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::open_by_handle(beneath, form, &handle, flags)
}

/// What `statfs` calls a file system, as events do: never zero in the events of a whole one.
fn number(directory: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    Ok(rustix::fs::fstatvfs(directory)?.f_fsid)
}
