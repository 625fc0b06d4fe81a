//! Walks an image's file systems in path order and says what is at each path.
//!
//! Directories are read whole, their names sorted, and each is entered right after it was visited. The walk keeps an
//! explicit stack: a tree may be as deep as it likes.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use drift::coverage::{Gap, GapReason};
use drift::entry::{Device, Entry, FileFlags, Node, Xattrs};
use drift::observation::Group;
use drift::rules::Rules;
use drift::{TreePath, escape};
use driftmark_kernel::{Dir, FileKind, Names, Stat};

use super::filesystems::{Filesystems, Holding};

/// What the walk meets at a path.
pub(crate) enum Visit {
    /// A regular file, still to be opened and read.
    File {
        path: TreePath,
        stat: Stat,
        place: Place,
    },
    /// Anything else, with all that is held of it, unless `look` was not asked for.
    Other {
        entry: Entry,
        stat: Stat,
        group: Option<Group>,
    },
    /// Something that cannot be looked at, and nothing below it.
    Gap(Gap),
}

/// Where a file is opened: a name in an open directory.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) dir: Arc<Dir>,
    pub(crate) name: CString,
    pub(crate) holding: Holding,
}

/// A walk over file systems, led by the rules: below a volatile rule nothing is looked at.
pub(crate) struct Walk<'a> {
    filesystems: &'a Filesystems,
    rules: &'a Rules,
    names: Names,
}

/// A directory that is being gone through.
struct Level {
    dir: Arc<Dir>,
    path: TreePath,
    names: std::vec::IntoIter<CString>,
    holding: Holding,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(filesystems: &'a Filesystems, rules: &'a Rules) -> Self {
        Walk {
            filesystems,
            rules,
            names: Names::new(),
        }
    }

    /// Tells `visit` what is at each path, in path order, until it breaks off.
    ///
    /// # Errors
    /// A root that cannot be opened, and whatever `visit` gives.
    pub(crate) fn run<E>(
        &mut self,
        visit: &mut dyn FnMut(Visit) -> Result<(), E>,
    ) -> Result<io::Result<()>, E> {
        let root = match self.filesystems.root().root() {
            Ok(root) => root,
            Err(error) => return Ok(Err(error)),
        };
        let mut levels = Vec::new();
        self.enter(root, TreePath::root(), Holding::All, &mut levels, visit)?;
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = match level.path.join(name.as_bytes()) {
                Ok(path) => path,
                Err(_) => {
                    visit(Visit::Gap(gap(&level.path, GapReason::TooDeep, "")))?;
                    levels.pop();
                    continue;
                }
            };
            let place = Place {
                dir: Arc::clone(&level.dir),
                name,
                holding: level.holding,
            };
            self.step(path, place, &mut levels, visit)?;
        }
        Ok(Ok(()))
    }

    fn step<E>(
        &mut self,
        path: TreePath,
        place: Place,
        levels: &mut Vec<Level>,
        visit: &mut dyn FnMut(Visit) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some((tree, holding)) = self.filesystems.mounted_at(&path) {
            return match tree.root() {
                Ok(dir) => self.enter(dir, path, holding, levels, visit),
                Err(error) => visit(Visit::Gap(unreadable(&path, &error))),
            };
        }
        if self.filesystems.is_missing(&path) {
            return visit(Visit::Gap(gap(&path, GapReason::FilesystemMissing, "")));
        }
        let below_volatile = self.rules.below_volatile(&path);
        let stat = match place.dir.stat_at(&*place.name) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return visit(Visit::Gap(unreadable(&path, &error))),
        };
        if place.dir.crosses(&stat) {
            return if below_volatile {
                Ok(())
            } else {
                visit(Visit::Gap(gap(&path, GapReason::UnderMount, "")))
            };
        }
        match stat.kind {
            FileKind::Directory if below_volatile && !self.rules.descend(&path) => Ok(()),
            FileKind::Directory => match place.dir.open_dir(&*place.name) {
                Ok(dir) => self.enter(dir, path, place.holding, levels, visit),
                Err(error) if is_gone(&error) => Ok(()),
                Err(error) => visit(Visit::Gap(unreadable(&path, &error))),
            },
            _ if below_volatile => Ok(()),
            FileKind::File => visit(Visit::File { path, stat, place }),
            _ => visit(other(path, &stat, &place)),
        }
    }

    /// Visits a directory and makes it the one that is gone through next.
    fn enter<E>(
        &mut self,
        mut dir: Dir,
        path: TreePath,
        holding: Holding,
        levels: &mut Vec<Level>,
        visit: &mut dyn FnMut(Visit) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.rules.below_volatile(&path) {
            match directory(&dir, &path, holding) {
                Ok(found) => visit(found)?,
                Err(error) => return visit(Visit::Gap(unreadable(&path, &error))),
            }
        }
        if !self.rules.descend(&path) {
            return Ok(());
        }
        if let Err(error) = dir.names(&mut self.names) {
            return visit(Visit::Gap(unreadable(&path, &error)));
        }
        self.names.sort();
        let names: Vec<CString> = self.names.iter().map(|name| name.name.to_owned()).collect();
        levels.push(Level {
            dir: Arc::new(dir),
            path,
            names: names.into_iter(),
            holding,
        });
        Ok(())
    }
}

fn directory(dir: &Dir, path: &TreePath, holding: Holding) -> io::Result<Visit> {
    let stat = dir.stat()?;
    let (xattrs, flags) = match holding {
        Holding::All => (
            Xattrs::held(dir.xattrs()?),
            FileFlags::from_raw(dir.flags()?.unwrap_or(0)),
        ),
        Holding::ContentOnly => (Xattrs::NONE, FileFlags::NONE),
    };
    let entry = entry(path.clone(), &stat, holding, Node::Directory, xattrs, flags);
    Ok(Visit::Other {
        entry,
        stat,
        group: None,
    })
}

/// A symbolic link, a device, a FIFO or a socket: never opened.
fn other(path: TreePath, stat: &Stat, place: &Place) -> Visit {
    let device = Device {
        major: stat.rdev.0,
        minor: stat.rdev.1,
    };
    let node = match stat.kind {
        FileKind::Symlink => place
            .dir
            .read_link(&*place.name)
            .map(|target| Node::Symlink {
                target: target.into(),
            }),
        FileKind::CharDevice => Ok(Node::CharDevice(device)),
        FileKind::BlockDevice => Ok(Node::BlockDevice(device)),
        FileKind::Fifo => Ok(Node::Fifo),
        FileKind::Socket => Ok(Node::Socket),
        FileKind::File | FileKind::Directory => {
            unreachable!("files and directories are visited elsewhere")
        }
    };
    let found = node.and_then(|node| Ok((node, place.dir.xattrs_at(&*place.name)?)));
    match found {
        Ok((node, xattrs)) => {
            let entry = entry(
                path,
                stat,
                place.holding,
                node,
                Xattrs::held(xattrs),
                FileFlags::NONE,
            );
            Visit::Other {
                entry,
                stat: *stat,
                group: group(stat),
            }
        }
        Err(error) => Visit::Gap(unreadable(&path, &error)),
    }
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
