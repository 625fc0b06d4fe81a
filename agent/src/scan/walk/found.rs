//! What the walk met at a path, as an entry of a manifest or as a gap.

use std::io;

use drift::coverage::{Gap, GapReason};
use drift::entry::{Device, Entry, FileFlags, Node, Xattrs};
use drift::observation::Group;
use drift::{TreePath, escape};
use driftmark_kernel::{Dir, FileKind, Stat};

use super::Place;
use crate::scan::filesystems::Holding;

/// All that is held of a directory.
///
/// # Errors
/// What reading its attributes gives.
pub(crate) fn directory_entry(
    path: TreePath,
    dir: &Dir,
    stat: &Stat,
    holding: Holding,
) -> io::Result<Entry> {
    let (xattrs, flags) = match holding {
        Holding::All => (
            Xattrs::held(dir.xattrs()?),
            FileFlags::from_raw(dir.flags()?.unwrap_or(0)),
        ),
        Holding::ContentOnly => (Xattrs::NONE, FileFlags::NONE),
    };
    Ok(entry(path, stat, holding, Node::Directory, xattrs, flags))
}

/// All that is held of a symbolic link, a device, a FIFO or a socket: never opened.
///
/// # Errors
/// What reading its target or its attributes gives.
pub(crate) fn other_entry(path: TreePath, stat: &Stat, place: Place<'_>) -> io::Result<Entry> {
    let device = Device {
        major: stat.rdev.0,
        minor: stat.rdev.1,
    };
    let node = match stat.kind {
        FileKind::Symlink => Node::Symlink {
            target: place.dir.read_link(place.name)?.into(),
        },
        FileKind::CharDevice => Node::CharDevice(device),
        FileKind::BlockDevice => Node::BlockDevice(device),
        FileKind::Fifo => Node::Fifo,
        FileKind::Socket => Node::Socket,
        FileKind::File | FileKind::Directory => {
            unreachable!("files and directories are visited elsewhere")
        }
    };
    let xattrs = Xattrs::held(place.dir.xattrs_at(place.name)?);
    Ok(entry(
        path,
        stat,
        place.holding,
        node,
        xattrs,
        FileFlags::NONE,
    ))
}

/// An entry of what was found, its links not known yet.
pub(crate) fn entry(
    path: TreePath,
    stat: &Stat,
    holding: Holding,
    node: Node,
    xattrs: Xattrs,
    flags: FileFlags,
) -> Entry {
    let (mode, uid, gid) = match holding {
        Holding::All => (stat.mode, stat.uid, stat.gid),
        Holding::ContentOnly => (0, 0, 0),
    };
    Entry {
        path,
        mode,
        uid,
        gid,
        node,
        xattrs,
        flags,
        links: None,
    }
}

/// The hard-link group of something with more than one name.
pub(crate) fn group(stat: &Stat) -> Option<Group> {
    (stat.nlink > 1 && stat.kind != FileKind::Directory).then_some(Group {
        device: stat.dev,
        inode: stat.ino,
        names: stat.nlink,
    })
}

pub(crate) fn unreadable(path: &TreePath, error: &io::Error) -> Gap {
    gap(path, GapReason::Unreadable, &error.to_string())
}

pub(crate) fn gap(path: &TreePath, reason: GapReason, detail: &str) -> Gap {
    Gap {
        path: path.clone(),
        reason,
        detail: escape(detail.as_bytes()),
    }
}

/// Between the list of names and the look at one, it went: the next scan will say so if it should be there.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
