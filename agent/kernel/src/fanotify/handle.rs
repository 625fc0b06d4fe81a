//! A handle of an event in, where that directory lies now out.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::Handle;
use crate::{Stat, Tree, sys};

/// A watched file system, held so that what its events name can be found.
///
/// It is held by a private clone of its mount, so that paths begin at its top whatever is mounted where, and a process
/// that is chrooted somewhere changes none of them.
#[derive(Debug)]
pub struct Holder {
    top: OwnedFd,
    shows: Shows,
}

/// How much of its file system a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// All of it: what exists lies in it.
    All,
    /// A part (a subvolume, a bind mount): events come from outside it as well.
    Part,
}

/// Where a handle leads.
#[derive(Debug)]
pub enum Located {
    /// To this directory, open without rights on what is in it (`O_PATH`), and its path below the top as of now: no
    /// `/` at either end, empty for the top itself.
    Here {
        /// It.
        directory: OwnedFd,
        /// Where it is now.
        path: Vec<u8>,
    },
    /// Nowhere any more: it was removed.
    Gone,
    /// Somewhere that this mount does not show.
    Elsewhere,
}

impl Holder {
    /// Holds what `tree` shows of its file system.
    ///
    /// # Errors
    /// The top cannot be opened.
    pub fn of(tree: &Tree, shows: Shows) -> io::Result<Holder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Neither a descriptor of a tree nor `O_PATH` is one that handles can be opened by.
        let top = rustix::fs::openat(tree, c".", flags, Mode::empty())?;
        Ok(Holder { top, shows })
    }

    /// Finds a directory, which [`super::Place::directory`] always is.
    ///
    /// # Errors
    /// `EPERM` without `CAP_DAC_READ_SEARCH`, `ENAMETOOLONG` where it lies deeper than the kernel spells out, `EAGAIN`
    /// where it moves about so fast that it cannot be told where it is, or /proc is not mounted.
    pub fn locate(&self, handle: &Handle<'_>) -> io::Result<Located> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = self.open(handle, flags);
        let directory = match opened {
            Ok(directory) => directory,
            // A file has taken the number of a directory that is gone, on file systems that number nothing else.
            Err(Errno::STALE | Errno::NOTDIR | Errno::NOENT) => return Ok(Located::Gone),
            Err(error) => return Err(error.into()),
        };
        for _ in 0..ATTEMPTS {
            let Some(path) = path_of(directory.as_fd())? else {
                return Ok(Located::Gone);
            };
            match self.shows {
                Shows::All => return Ok(Located::Here { directory, path }),
                Shows::Part if self.is_at(directory.as_fd(), &path)? => {
                    return Ok(Located::Here { directory, path });
                }
                // It is outside, or moved in between: then its path is another one now.
                Shows::Part if path_of(directory.as_fd())?.is_some_and(|now| now == path) => {
                    return Ok(Located::Elsewhere);
                }
                Shows::Part => {}
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Finds what an event without a name happened to ([`super::Event::object`]); none where it is gone, or lies nowhere
    /// that the kernel knows. Of several names it is any, and it may be one that this mount does not show.
    ///
    /// # Errors
    /// Those of [`Holder::locate`].
    pub fn find(&self, handle: &Handle<'_>) -> io::Result<Option<(Stat, Vec<u8>)>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.open(handle, flags);
        let object = match opened {
            Ok(object) => object,
            Err(Errno::STALE | Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let path = path_of(object.as_fd())?;
        let stat = Stat::of(&object)?;
        Ok(path.map(|path| (stat, path)))
    }

    /// While the number of an inode that is gone is given to a new one the kernel says `ENOMEM` of it (ext4 on Linux 6.18),
    /// and a moment later that it is gone.
    fn open(&self, handle: &Handle<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let open = || sys::open_by_handle(self.top.as_fd(), handle.form, handle.bytes, flags);
        let mut opened = open();
        for _ in 0..ATTEMPTS {
            if !matches!(opened, Err(Errno::NOMEM)) {
                break;
            }
            std::thread::park_timeout(A_MOMENT);
            opened = open();
        }
        opened
    }

    /// Whether a walk from the top along `path` ends at `directory`: the kernel spells the path of what lies outside a
    /// mount as if it began at its top.
    fn is_at(&self, directory: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<bool> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(&self.top, path, flags, Mode::empty(), beneath) {
            Ok(walked) => Ok(same(walked.as_fd(), directory)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the events of marked directories ([`super::Sight::Directories`]) call this one: [`Handle::form`] and
/// [`Handle::bytes`].
///
/// # Errors
/// `EINVAL` before Linux 6.5, where nothing needs it; `EOPNOTSUPP` where the file system has no handles at all.
pub fn called(directory: BorrowedFd<'_>) -> io::Result<(i32, Vec<u8>)> {
    Ok(sys::handle_of(directory, sys::Purpose::Comparing)?)
}

impl AsFd for Holder {
    /// The top, readable: what [`super::Watch::watch_filesystem`] takes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }
}

/// Where an open directory lies below the top of its mount; none where it was removed.
fn path_of(directory: BorrowedFd<'_>) -> rustix::io::Result<Option<Vec<u8>>> {
    let own = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let target = rustix::fs::readlinkat(CWD, own, Vec::new())?;
    // Asked after the path: what was removed before has no links now. A name may well end with ` (deleted)`.
    if statx(directory)?.stx_nlink == 0 {
        return Ok(None);
    }
    let path = target.to_bytes();
    let path = path.strip_prefix(b"/").ok_or(Errno::NOENT)?;
    Ok(Some(path.to_vec()))
}

fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let [one, other] = [statx(one)?, statx(other)?];
    let place = |stat: &rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    Ok(place(&one) == place(&other))
}

fn statx(file: BorrowedFd<'_>) -> rustix::io::Result<rustix::fs::Statx> {
    let wanted = StatxFlags::INO | StatxFlags::NLINK;
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)
}

/// Each further attempt needs the directory, or one above it, to be renamed at just the wrong moment, or whoever makes an
/// inode not to have come on for another one.
const ATTEMPTS: usize = 8;
const A_MOMENT: Duration = Duration::from_micros(200);
