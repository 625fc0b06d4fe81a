//! An open directory in, what it holds out: one name at a time, never a path.
//!
//! Invariants: no symbolic link is followed, no mount is crossed, the directory is never left, nothing but a regular
//! file or a directory is ever opened, and no open waits for anybody.
//!
//! Names go in as bytes or as a `CStr` (without a copy); one that is empty, `.`, `..` or has a `/` is `EINVAL`.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::flags;
use crate::names::{Between, Names, Scratch};
use crate::stat::{self, FileKind, Stat};
use crate::tree::Access;
use crate::xattrs::{self, Xattrs};

/// One directory of a [`crate::Tree`], open for reading.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    fence: Fence,
    /// Its names were read: the next time begins anew.
    listed: bool,
}

/// What was a regular file a moment ago was something else once opened.
#[derive(Debug, thiserror::Error)]
#[error("open as a regular file what has become a {kind:?}")]
pub struct NotRegular {
    /// What it was found to be.
    pub kind: FileKind,
}

impl Dir {
    /// Opens the directory `name`.
    ///
    /// # Errors
    /// `ENOTDIR` if it is (by now) a symbolic link or anything else, `EXDEV` if something is mounted there, `ENOENT`
    /// if it has gone.
    pub fn open_dir(&self, name: impl Arg) -> io::Result<Dir> {
        let fd = single(name, |name| {
            self.refuse_mount_point(name)?;
            self.open(name, OFlags::DIRECTORY)
        })?;
        let fence = self.fence;
        Ok(Dir {
            fd,
            fence,
            listed: false,
        })
    }

    /// Opens the regular file `name`, as which its directory lists it or [`Dir::stat_at`] saw it, for reading (`read_at`).
    ///
    /// Should it have become a FIFO or a device, the open neither waits nor becomes a terminal's, and is refused.
    ///
    /// # Errors
    /// [`NotRegular`] as `InvalidInput`; `ELOOP` for a symbolic link; `ENXIO` for a socket; `EXDEV` if something is
    /// mounted there; `EWOULDBLOCK` if another process holds a lease on it.
    pub fn open_file(&self, name: impl Arg) -> io::Result<File> {
        self.open_regular(name).map(|(file, _)| file)
    }

    /// The same, with what it was when it was opened.
    ///
    /// # Errors
    /// The same.
    pub fn open_regular(&self, name: impl Arg) -> io::Result<(File, Stat)> {
        let fd = single(name, |name| {
            self.open(name, OFlags::NONBLOCK | OFlags::NOCTTY)
        })?;
        let stat = Stat::of(&fd)?;
        match stat.kind {
            FileKind::File => Ok((File::from(fd), stat)),
            kind => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                NotRegular { kind },
            )),
        }
    }

    /// Reads all names of this directory into `names`, in the file system's order, without `.` and `..`.
    ///
    /// Takes the directory exclusively, as two readers of one descriptor would each miss what the other got.
    ///
    /// # Errors
    /// Those of `getdents64`; `names` is then incomplete and must not be taken for the whole.
    pub fn names(&mut self, names: &mut Names, scratch: &mut Scratch) -> io::Result<()> {
        self.names_between(Between::default(), names, scratch)
    }

    /// The same, of those names that are between two.
    ///
    /// # Errors
    /// The same.
    pub fn names_between(
        &mut self,
        between: Between<'_>,
        names: &mut Names,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let again = std::mem::replace(&mut self.listed, true);
        names.read(self.fd.as_fd(), again, between, scratch)
    }

    /// What this directory itself is.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn stat(&self) -> io::Result<Stat> {
        Stat::of(&self.fd)
    }

    /// The mount that this directory was reached through, by a number that no other mount of this boot has. Before Linux
    /// 6.8 a number may be used again.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn mount(&self) -> io::Result<u64> {
        stat::mount_of(self.fd.as_fd())
    }

    /// What `name` is; a symbolic link is itself, an automount point is not triggered.
    ///
    /// In a plain tree a mount point answers with what is mounted there; [`Dir::crosses`] tells.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn stat_at(&self, name: impl Arg) -> io::Result<Stat> {
        single(name, |name| Ok(Stat::at(self.fd.as_fd(), name)))?
    }

    /// How the tree is seen that it is in.
    pub fn access(&self) -> Access {
        self.fence.access()
    }

    /// Whether `stat`, from [`Dir::stat_at`], is of something mounted over this tree rather than of the tree.
    pub fn crosses(&self, stat: &Stat) -> bool {
        !self.fence.holds(stat)
    }

    /// The target of the symbolic link `name`, exactly as it is stored and of any length.
    ///
    /// # Errors
    /// `EINVAL` if it is no symbolic link.
    pub fn read_link(&self, name: impl Arg) -> io::Result<Vec<u8>> {
        let target = single(name, |name| {
            rustix::fs::readlinkat(&self.fd, name, Vec::new())
        })?;
        Ok(target.into_bytes())
    }

    /// The extended attributes of this directory itself.
    ///
    /// # Errors
    /// Those of [`xattrs::of`].
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        xattrs::of(&self.fd)
    }

    /// The extended attributes of `name` without opening it: for symbolic links, FIFOs, devices and sockets.
    ///
    /// # Errors
    /// Those of [`xattrs::of`]; on kernels before 6.13 also if `/proc` is not mounted.
    pub fn xattrs_at(&self, name: impl Arg) -> io::Result<Xattrs> {
        single(name, |name| Ok(xattrs::at(self.fd.as_fd(), name)))?
    }

    /// The raw file flags (`chattr`) of this directory itself; `None` if the file system has none.
    ///
    /// # Errors
    /// Those of [`flags::of`].
    pub fn flags(&self) -> io::Result<Option<u32>> {
        flags::of(&self.fd)
    }

    /// Opens the top of a tree for reading from its `O_PATH` descriptor.
    pub(crate) fn top(tree: BorrowedFd<'_>, fence: Fence) -> io::Result<Dir> {
        let fd = fence.open(tree, c".", OFlags::DIRECTORY)?;
        Ok(Dir {
            fd,
            fence,
            listed: false,
        })
    }

    fn open(&self, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.fence.open(self.fd.as_fd(), name, flags)
    }

    /// Looks before it opens, as walking onto an automount point would mount it even though the walk is then refused.
    fn refuse_mount_point(&self, name: &CStr) -> rustix::io::Result<()> {
        if self.fence.access == Access::PrivateClone {
            return Ok(());
        }
        match Stat::at(self.fd.as_fd(), name) {
            Ok(stat) if self.crosses(&stat) => Err(Errno::XDEV),
            // The open that follows meets the same error and reports it.
            _ => Ok(()),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The mount that a walk stays on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    access: Access,
    mount_id: u64,
    dev: (u32, u32),
}

impl Fence {
    pub(crate) fn around(fd: BorrowedFd<'_>, access: Access) -> io::Result<Fence> {
        let Stat { mount_id, dev, .. } = Stat::of(&fd)?;
        Ok(Fence {
            access,
            mount_id,
            dev,
        })
    }

    pub(crate) fn access(self) -> Access {
        self.access
    }

    /// The mount decides, as one file system may have several device numbers (btrfs); before Linux 5.8 there is no
    /// mount to be known and the device decides.
    fn holds(self, stat: &Stat) -> bool {
        if self.mount_id == 0 || stat.mount_id == 0 {
            self.dev == stat.dev
        } else {
            self.mount_id == stat.mount_id
        }
    }

    /// Opens one component to read, without moving its atime where that is allowed.
    ///
    /// A clone is mounted `noatime`, so only the plain walk asks for `O_NOATIME`, which is `EPERM` on the files of
    /// others without `CAP_FOWNER`.
    fn open(self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.access {
            Access::PrivateClone => self.open_beneath(dir, name, flags),
            Access::Plain => match self.open_beneath(dir, name, flags | OFlags::NOATIME) {
                Err(Errno::PERM) => self.open_beneath(dir, name, flags),
                outcome => outcome,
            },
        }
    }

    /// A clone has no mounts in it, yet it is fenced too: nothing is then left to trust.
    fn open_beneath(
        self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            // EPERM is what older seccomp filters answer to system calls they do not know.
            Err(Errno::NOSYS | Errno::PERM) => self.open_single(dir, name, flags),
            outcome => outcome,
        }
    }

    /// For want of `openat2`: a single component with `O_NOFOLLOW` cannot leave the directory, and the mount of what
    /// was opened is checked afterwards.
    fn open_single(
        self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        if self.holds(&Stat::from_fd(fd.as_fd())?) {
            Ok(fd)
        } else {
            Err(Errno::XDEV)
        }
    }
}

/// Hands `name` to `call` as a C string, if it is one component of a path.
fn single<T>(name: impl Arg, call: impl FnOnce(&CStr) -> rustix::io::Result<T>) -> io::Result<T> {
    let outcome = name.into_with_c_str(|name| match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        _ => call(name),
    });
    Ok(outcome?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::CWD;

    use super::*;
    use crate::lab;
    use crate::tree::Tree;

    fn plain_root(path: &std::path::Path) -> Dir {
        Tree::plain(path)
            .and_then(|tree| tree.root())
            .expect("open tree")
    }

    fn error_number<T>(outcome: io::Result<T>) -> Option<i32> {
        outcome.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn only_regular_files_are_opened_and_no_open_waits() {
        let place = lab::place();
        lab::one_of_each(place.path());
        let root = plain_root(place.path());
        for (name, kind) in lab::KINDS {
            let opened = root.open_file(name.as_bytes());
            assert_eq!(opened.is_ok(), kind == FileKind::File, "{name}: {opened:?}");
        }
        let fifo = root.open_file(c"fifo").expect_err("a fifo");
        assert_eq!(fifo.kind(), io::ErrorKind::InvalidInput);
        let mut content = [0; 7];
        let file = root.open_file(c"file").expect("open");
        file.read_exact_at(&mut content, 0).expect("read");
        assert_eq!(&content, b"content");
    }

    #[test]
    fn only_directories_are_opened_as_such() {
        let place = lab::place();
        lab::one_of_each(place.path());
        let root = plain_root(place.path());
        for (name, kind) in lab::KINDS {
            let opened = root.open_dir(name.as_bytes());
            assert_eq!(
                opened.is_ok(),
                kind == FileKind::Directory,
                "{name}: {opened:?}"
            );
        }
    }

    #[test]
    fn a_symbolic_link_swapped_in_for_a_directory_or_file_is_refused() {
        let place = lab::place();
        let path = place.path();
        std::fs::create_dir(path.join("real")).expect("create directory");
        std::fs::create_dir(path.join("swapped")).expect("create directory");
        let root = plain_root(path);
        assert_eq!(
            root.stat_at(c"swapped").expect("statx").kind,
            FileKind::Directory
        );
        std::fs::remove_dir(path.join("swapped")).expect("remove directory");
        for target in ["real", "/etc", ".."] {
            symlink(target, path.join("swapped")).expect("link");
            assert_eq!(error_number(root.open_dir(c"swapped")), Some(libc::ENOTDIR));
            assert_eq!(error_number(root.open_file(c"swapped")), Some(libc::ELOOP));
            std::fs::remove_file(path.join("swapped")).expect("remove link");
        }
    }

    #[test]
    fn a_link_and_a_directory_that_change_places_all_the_while_never_lead_outside() {
        let place = lab::place();
        let dir = place.path().join("dir");
        let link = place.path().join("link");
        std::fs::create_dir(&dir).expect("create directory");
        symlink("/etc", &link).expect("link");
        let root = plain_root(place.path());
        let inside = root.stat_at(c"dir").expect("statx").ino;
        let done = AtomicBool::new(false);
        let (mut opened, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &dir, CWD, &link, exchange).expect("exchange");
                }
            });
            for _ in 0..20_000 {
                match root.open_dir(c"dir") {
                    Ok(dir) => {
                        assert_eq!(dir.stat().expect("statx").ino, inside);
                        opened += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        println!("opened {opened} times, refused {refused} times");
    }

    #[test]
    fn the_way_without_openat2_refuses_the_same() {
        let place = lab::place();
        lab::one_of_each(place.path());
        let root = plain_root(place.path());
        let open = |name, flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            root.fence.open_single(root.fd.as_fd(), name, flags)
        };
        assert!(open(c"file", OFlags::empty()).is_ok());
        assert!(open(c"directory", OFlags::DIRECTORY).is_ok());
        assert_eq!(open(c"symlink", OFlags::empty()).err(), Some(Errno::LOOP));
        assert_eq!(
            open(c"symlink", OFlags::DIRECTORY).err(),
            Some(Errno::NOTDIR)
        );
        lab::with_own_mounts(|place| {
            let over = place.join("over");
            std::fs::create_dir(&over).expect("create directory");
            let root = plain_root(place);
            lab::mount_tmpfs(&over);
            let opened = root
                .fence
                .open_single(root.fd.as_fd(), c"over", OFlags::DIRECTORY);
            assert_eq!(opened.err(), Some(Errno::XDEV));
        });
    }

    #[test]
    fn a_name_that_is_not_one_component_is_refused() {
        let place = lab::place();
        std::fs::create_dir_all(place.path().join("a/b")).expect("create directories");
        let root = plain_root(place.path());
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a/", b"/etc", b"a\0b"] {
            let name_shown = name.escape_ascii();
            assert_eq!(
                error_number(root.open_dir(name)),
                Some(libc::EINVAL),
                "{name_shown}"
            );
            assert_eq!(
                error_number(root.stat_at(name)),
                Some(libc::EINVAL),
                "{name_shown}"
            );
            assert_eq!(
                error_number(root.xattrs_at(name)),
                Some(libc::EINVAL),
                "{name_shown}"
            );
        }
        let too_long = [b'x'; 256];
        assert_eq!(
            error_number(root.open_dir(&too_long[..])),
            Some(libc::ENAMETOOLONG)
        );
    }

    #[test]
    fn a_link_target_is_read_whole_byte_for_byte() {
        let place = lab::place();
        let long = "x/".repeat(2000);
        for target in ["/etc/passwd", "../../..", "a\nb", &long] {
            let link = place.path().join("link");
            symlink(target, &link).expect("link");
            let root = plain_root(place.path());
            assert_eq!(root.read_link(c"link").expect("read"), target.as_bytes());
            std::fs::remove_file(link).expect("remove link");
        }
        std::fs::write(place.path().join("file"), b"").expect("write file");
        let root = plain_root(place.path());
        assert_eq!(error_number(root.read_link(c"file")), Some(libc::EINVAL));
    }

    #[test]
    fn a_walk_goes_as_deep_as_no_path_could() {
        let place = lab::place();
        let mut here = plain_root(place.path());
        let name = [b'd'; 255];
        for _ in 0..40 {
            rustix::fs::mkdirat(&here.fd, &name[..], Mode::RWXU).expect("create directory");
            here = here.open_dir(&name[..]).expect("open");
        }
        assert_eq!(here.stat().expect("statx").kind, FileKind::Directory);
    }
}
