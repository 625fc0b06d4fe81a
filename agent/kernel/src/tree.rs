//! A path in, one file system to read out.
//!
//! Invariant: nothing that is mounted above the tree, before or after it was opened, changes what is read through it.
//! A private clone shows what lies beneath mounts; the plain walk cannot see there and refuses to cross instead.
//!
//! A clone rather than a private mount namespace: the daemon's other threads need the machine's own mounts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::dir::{Dir, Fence};
use crate::sys;

/// One file system (or the part of it below a directory) to read, held open.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
    fence: Fence,
}

/// How a [`Tree`] is reached, and so what its walk can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// A detached read-only mount, or clone of one: mounts over its paths hide nothing, no atime moves.
    PrivateClone,
    /// The tree as this process sees it: what lies under mounts is out of sight.
    Plain,
}

impl Tree {
    /// Opens the file system at `path` as a private clone if this process may, else plainly.
    ///
    /// Symbolic links in `path` itself are followed, since the operator wrote it; none below it ever is.
    ///
    /// # Errors
    /// Those of the path: it does not exist, is no directory (plain), or may not be searched.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Tree> {
        let path = path.as_ref();
        match Tree::private_clone(path) {
            Err(error) if clone_is_refused(&error) => Tree::plain(path),
            outcome => outcome,
        }
    }

    /// Clones the mount that `path` lies in, without the mounts above it, read-only and invisible to all others.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before Linux 5.12, `EINVAL` where the mount may not be cloned, or
    /// those of the path.
    pub fn private_clone(path: impl AsRef<Path>) -> io::Result<Tree> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let fd = rustix::mount::open_tree(CWD, path.as_ref(), flags)?;
        sys::make_inert(fd.as_fd())?;
        Tree::fenced(fd, Access::PrivateClone)
    }

    /// Opens the directory `path` as this process sees it; the walk below stays on that mount.
    ///
    /// # Errors
    /// Those of the path.
    pub fn plain(path: impl AsRef<Path>) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path.as_ref(), flags, Mode::empty())?;
        Tree::fenced(fd, Access::Plain)
    }

    /// Mounts the file system on a block device where nobody else sees it, read-only, for as long as the tree is held.
    ///
    /// Never mounted at a path: it goes with this process, however that ends. Options are those of the file system, such
    /// as `subvol=@`; `ro` is always among them.
    ///
    /// # Errors
    /// [`MountRefused`], with what the kernel says about it.
    pub fn mount(kind: &str, device: &Path, options: &[&str]) -> Result<Tree, MountRefused> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        let mounted = || -> rustix::io::Result<OwnedFd> {
            rustix::mount::fsconfig_set_string(&context, "source", device)?;
            rustix::mount::fsconfig_set_flag(&context, "ro")?;
            for option in options {
                match option.split_once('=') {
                    Some((key, value)) => {
                        rustix::mount::fsconfig_set_string(&context, key, value)?;
                    }
                    None => rustix::mount::fsconfig_set_flag(&context, *option)?,
                }
            }
            rustix::mount::fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC
                | MountAttrFlags::MOUNT_ATTR_NOATIME;
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        let mounted = mounted().map_err(|error| MountRefused {
            said: messages(&context),
            source: error.into(),
        })?;
        Ok(Tree::fenced(mounted, Access::PrivateClone)?)
    }

    /// Makes an empty file system in memory that nobody else sees, to be filled through `/proc/self/fd`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` before Linux 5.2.
    pub fn in_memory() -> io::Result<Tree> {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "mode", "0700")?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Tree::fenced(mount, Access::PrivateClone)
    }

    /// How this tree is reached.
    pub fn how(&self) -> Access {
        self.fence.access()
    }

    /// Opens the top of the tree for reading. Each call gives a descriptor of its own.
    ///
    /// # Errors
    /// `ENOTDIR` if the tree is a single file; `EACCES` if it may not be read.
    pub fn root(&self) -> io::Result<Dir> {
        Dir::top(self.fd.as_fd(), self.fence)
    }

    fn fenced(fd: OwnedFd, access: Access) -> io::Result<Tree> {
        let fence = Fence::around(fd.as_fd(), access)?;
        Ok(Tree { fd, fence })
    }
}

impl AsFd for Tree {
    /// An `O_PATH` descriptor: good for `*at` calls, not for reading.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file system that could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{}", if said.is_empty() { "the kernel refuses it" } else { said })]
pub struct MountRefused {
    /// What the kernel says about it, in its own words; may be empty.
    pub said: String,
    /// The error number: `ENODEV` where the kernel has no such type, `EROFS` where a journal has to be replayed.
    #[source]
    pub source: io::Error,
}

impl From<rustix::io::Errno> for MountRefused {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<io::Error> for MountRefused {
    fn from(source: io::Error) -> Self {
        MountRefused {
            said: String::new(),
            source,
        }
    }
}

/// What a mount context has to say: one message a read, led by its level (`e `, `w `, `i `).
fn messages(context: &OwnedFd) -> String {
    const MOST: usize = 16;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while said.len() < MOST {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) if length > 0 => {
                let message = String::from_utf8_lossy(&buffer[..length]);
                let message = message.split_once(' ').map_or(&*message, |(_, text)| text);
                said.push(message.trim_end().to_owned());
            }
            _ => break,
        }
    }
    said.join("; ")
}

/// No privilege, no such system call, or a mount that may not be cloned: the plain walk still can.
fn clone_is_refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::ENOSYS | libc::EINVAL)
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, symlink};

    use rustix::mount::MountPropagationFlags;

    use super::*;
    use crate::lab;
    use crate::names::Names;

    fn listed(dir: &mut Dir) -> Vec<Vec<u8>> {
        let mut names = Names::new();
        dir.names(&mut names, &mut crate::Scratch::default())
            .expect("list");
        names.sort();
        names
            .iter()
            .map(|name| name.name.to_bytes().to_vec())
            .collect()
    }

    /// `below/true` lies under a tmpfs with `false`, and `file` under a bind mount of `other`.
    fn cover(path: &Path) {
        std::fs::create_dir(path.join("below")).expect("create directory");
        std::fs::write(path.join("below/true"), b"").expect("write file");
        std::fs::write(path.join("file"), b"true").expect("write file");
        std::fs::write(path.join("other"), b"false").expect("write file");
        lab::mount_tmpfs(&path.join("below"));
        std::fs::write(path.join("below/false"), b"").expect("write file");
        rustix::mount::mount_bind(path.join("other"), path.join("file")).expect("bind");
    }

    #[test]
    fn a_private_clone_sees_beneath_what_is_mounted() {
        lab::with_own_mounts(|place| {
            cover(place);
            let tree = Tree::open(place).expect("open tree");
            assert_eq!(tree.how(), Access::PrivateClone);
            let root = tree.root().expect("open root");
            let mut below = root.open_dir(c"below").expect("open beneath");
            assert_eq!(listed(&mut below), [b"true"]);
            let stat = root.stat_at(c"below").expect("statx");
            assert!(!root.crosses(&stat));
            let mut content = [0; 4];
            let file = root.open_file(c"file").expect("open beneath");
            file.read_exact_at(&mut content, 0).expect("read");
            assert_eq!(&content, b"true");
        });
    }

    #[test]
    fn the_plain_walk_sees_the_same_but_does_not_cross() {
        lab::with_own_mounts(|place| {
            cover(place);
            let tree = Tree::plain(place).expect("open tree");
            assert_eq!(tree.how(), Access::Plain);
            let mut root = tree.root().expect("open root");
            assert_eq!(listed(&mut root), [&b"below"[..], b"file", b"other"]);
            for name in [c"below", c"file"] {
                let stat = root.stat_at(name).expect("statx");
                assert!(root.crosses(&stat));
            }
            let crossed = root.open_dir(c"below").expect_err("a mount");
            assert_eq!(crossed.raw_os_error(), Some(libc::EXDEV));
            let crossed = root.open_file(c"file").expect_err("a mount");
            assert_eq!(crossed.raw_os_error(), Some(libc::EXDEV));
            let other = root.stat_at(c"other").expect("statx");
            assert!(!root.crosses(&other));
        });
    }

    #[test]
    fn what_is_mounted_after_the_clone_does_not_reach_it() {
        lab::with_own_mounts(|place| {
            lab::mount_tmpfs(place);
            let shared = MountPropagationFlags::SHARED;
            rustix::mount::mount_change(place, shared).expect("share");
            let below = place.join("below");
            std::fs::create_dir(&below).expect("create directory");
            std::fs::write(below.join("true"), b"").expect("write file");
            let tree = Tree::private_clone(place).expect("clone");
            lab::mount_tmpfs(&below);
            let mut below = tree
                .root()
                .and_then(|root| root.open_dir(c"below"))
                .expect("open");
            assert_eq!(listed(&mut below), [b"true"]);
        });
    }

    #[test]
    fn nothing_is_written_through_a_clone() {
        lab::with_own_mounts(|place| {
            std::fs::write(place.join("file"), b"").expect("write file");
            let tree = Tree::private_clone(place).expect("clone");
            let open = |name, flags| rustix::fs::openat(&tree, name, flags, Mode::RWXU);
            for (name, flags) in [
                (c"file", OFlags::WRONLY),
                (c"file", OFlags::RDONLY | OFlags::TRUNC),
                (c"new", OFlags::WRONLY | OFlags::CREATE),
            ] {
                assert_eq!(open(name, flags).err(), Some(rustix::io::Errno::ROFS));
            }
            let made = rustix::fs::mkdirat(&tree, c"new", Mode::RWXU);
            assert_eq!(made.err(), Some(rustix::io::Errno::ROFS));
            assert!(File::create(place.join("new")).is_ok());
        });
    }

    #[test]
    fn no_device_can_be_opened_in_a_clone() {
        lab::with_own_mounts(|place| {
            lab::one_of_each(place);
            if !place.join("char-device").exists() {
                return; // The lab said why.
            }
            let tree = Tree::private_clone(place).expect("clone");
            let opened = rustix::fs::openat(&tree, c"char-device", OFlags::RDONLY, Mode::empty());
            assert_eq!(opened.err(), Some(rustix::io::Errno::ACCESS));
        });
    }

    #[test]
    fn reading_moves_no_atime() {
        lab::with_own_mounts(|place| {
            let path = place.join("file");
            let file = File::create_new(&path).expect("create file");
            file.write_all_at(b"content", 0).expect("write file");
            let long_ago = std::time::SystemTime::UNIX_EPOCH;
            let times = std::fs::FileTimes::new().set_accessed(long_ago);
            file.set_times(times).expect("set atime");
            for open in [Tree::plain, Tree::private_clone] {
                let root = open(place).and_then(|tree| tree.root()).expect("open");
                let read = root.open_file(c"file").expect("open");
                read.read_exact_at(&mut [0; 7], 0).expect("read");
                let accessed = file.metadata().and_then(|stat| stat.accessed());
                assert_eq!(accessed.expect("atime"), long_ago);
            }
        });
    }

    #[test]
    fn a_link_in_the_path_of_the_operator_is_followed() {
        let place = lab::place();
        let real = place.path().join("real");
        std::fs::create_dir_all(real.join("tree")).expect("create directories");
        std::fs::write(real.join("tree/file"), b"").expect("write file");
        let link = place.path().join("link");
        symlink(&real, &link).expect("link");
        for tree in [
            Tree::plain(link.join("tree")),
            Tree::open(link.join("tree")),
        ] {
            let mut root = tree.and_then(|tree| tree.root()).expect("open");
            assert_eq!(listed(&mut root), [b"file"]);
        }
    }

    #[test]
    fn without_the_capability_the_tree_is_opened_plainly() {
        lab::without_capabilities(|| {
            let clone = Tree::private_clone("/usr").expect_err("no privilege");
            assert_eq!(clone.raw_os_error(), Some(libc::EPERM));
            let tree = Tree::open("/usr").expect("open tree");
            assert_eq!(tree.how(), Access::Plain);
            let mut root = tree.root().expect("files of others, so without O_NOATIME");
            assert!(listed(&mut root).contains(&b"bin".to_vec()));
        });
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_either_way() {
        for outcome in [Tree::open("/nowhere"), Tree::plain("/nowhere")] {
            assert_eq!(
                outcome.expect_err("nothing").kind(),
                io::ErrorKind::NotFound
            );
        }
    }

    #[test]
    fn a_file_is_no_tree() {
        let place = lab::place();
        let path = place.path().join("file");
        std::fs::write(&path, b"").expect("write file");
        assert!(Tree::open(&path).and_then(|tree| tree.root()).is_err());
    }
}
