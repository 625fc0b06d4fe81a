//! A descriptor, or a name in a directory, in; what it is out (`statx`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

/// What one path is, as the file system holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What kind of thing it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// How many names it has.
    pub nlink: u32,
    /// Bytes of content; of a symbolic link, of its target.
    pub size: u64,
    /// Inode number: with `dev`, one file.
    pub ino: u64,
    /// Major and minor number of the device that holds it.
    pub dev: (u32, u32),
    /// Major and minor number of the device that it stands for; zero for all but devices.
    pub rdev: (u32, u32),
    /// Content last changed: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Anything last changed, set by the kernel alone: seconds since 1970 and nanoseconds.
    pub ctime: (i64, u32),
    /// Created, where the file system keeps that.
    pub btime: Option<(i64, u32)>,
    /// The mount it was reached through, as mountinfo numbers them; 0 before Linux 5.8.
    pub mount_id: u64,
}

/// The seven kinds of thing that a path can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

impl Stat {
    /// Device and inode, as `stat(2)` numbers them: one file.
    pub fn id(&self) -> (u64, u64) {
        let (major, minor) = self.dev;
        (rustix::fs::makedev(major, minor), self.ino)
    }

    /// What an open descriptor refers to.
    ///
    /// # Errors
    /// Those of `statx`; `EIO` for what has no kind (an anonymous inode).
    pub fn of(fd: &impl AsFd) -> io::Result<Stat> {
        Ok(Stat::from_fd(fd.as_fd())?)
    }

    /// What `name` in `dir` is; `name` is one component.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(Stat::from_statx(&rustix::fs::statx(
            dir, name, flags, WANTED,
        )?)?)
    }

    pub(crate) fn from_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Stat> {
        Stat::from_statx(&rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED)?)
    }

    fn from_statx(statx: &Statx) -> rustix::io::Result<Stat> {
        let answered = StatxFlags::from_bits_retain(statx.stx_mask);
        let raw_mode = u32::from(statx.stx_mode);
        let time = |stamp: rustix::fs::StatxTimestamp| (stamp.tv_sec, stamp.tv_nsec);
        Ok(Stat {
            kind: FileKind::from_rustix(FileType::from_raw_mode(raw_mode)).ok_or(Errno::IO)?,
            mode: statx.stx_mode & PERMISSION_BITS,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            nlink: statx.stx_nlink,
            size: statx.stx_size,
            ino: statx.stx_ino,
            dev: (statx.stx_dev_major, statx.stx_dev_minor),
            rdev: (statx.stx_rdev_major, statx.stx_rdev_minor),
            mtime: time(statx.stx_mtime),
            ctime: time(statx.stx_ctime),
            btime: answered
                .contains(StatxFlags::BTIME)
                .then(|| time(statx.stx_btime)),
            mount_id: if answered.contains(StatxFlags::MNT_ID) {
                statx.stx_mnt_id
            } else {
                0
            },
        })
    }
}

impl FileKind {
    /// `None` for what the file system would not say (`DT_UNKNOWN`) or has no word for.
    pub(crate) fn from_rustix(file_type: FileType) -> Option<FileKind> {
        match file_type {
            FileType::RegularFile => Some(FileKind::File),
            FileType::Directory => Some(FileKind::Directory),
            FileType::Symlink => Some(FileKind::Symlink),
            FileType::CharacterDevice => Some(FileKind::CharDevice),
            FileType::BlockDevice => Some(FileKind::BlockDevice),
            FileType::Fifo => Some(FileKind::Fifo),
            FileType::Socket => Some(FileKind::Socket),
            FileType::Unknown => None,
        }
    }
}

/// The mount that a descriptor was opened through: `STATX_MNT_ID_UNIQUE` (Linux 6.8), else `STATX_MNT_ID`.
pub(crate) fn mount_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let wanted = WANTED.union(MNT_ID_UNIQUE);
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)?.stx_mnt_id)
}

/// `S_ISUID | S_ISGID | S_ISVTX | 0777`.
const PERMISSION_BITS: u16 = 0o7777;

/// One call for all of it; what a kernel does not know it leaves out of the answer's mask.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{File, Permissions};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::lab;

    #[test]
    fn what_statx_says_is_what_stat_says() {
        let place = lab::place();
        let path = place.path().join("file");
        std::fs::write(&path, b"twelve bytes").expect("write file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o6751)).expect("chmod");
        std::fs::hard_link(&path, place.path().join("other")).expect("link");
        let file = File::open(&path).expect("open file");
        let (stat, other) = (
            Stat::of(&file).expect("statx"),
            file.metadata().expect("fstat"),
        );
        assert_eq!(stat.kind, FileKind::File);
        assert_eq!(stat.mode, 0o6751);
        assert_eq!((stat.size, stat.nlink), (12, 2));
        assert_eq!(
            (stat.uid, stat.gid, stat.ino),
            (other.uid(), other.gid(), other.ino())
        );
        assert_eq!(rustix::fs::makedev(stat.dev.0, stat.dev.1), other.dev());
        assert_eq!(stat.mtime, (other.mtime(), other.mtime_nsec() as u32));
        assert_eq!(stat.ctime, (other.ctime(), other.ctime_nsec() as u32));
        assert_eq!(stat.rdev, (0, 0));
        assert_ne!(stat.mount_id, 0);
    }

    #[test]
    fn each_kind_is_told_and_no_link_is_followed() {
        let place = lab::place();
        let dir = File::open(place.path()).expect("open directory");
        lab::one_of_each(place.path());
        for (name, kind) in lab::KINDS {
            let name = CString::new(name).expect("a name");
            match Stat::at(dir.as_fd(), &name) {
                Ok(stat) => assert_eq!(stat.kind, kind),
                Err(error) => assert!(lab::is_device(kind), "{name:?}: {error}"),
            }
        }
        let target_length = place.path().join("file").as_os_str().as_bytes().len() as u64;
        let link = Stat::at(dir.as_fd(), c"symlink").expect("statx");
        assert_eq!(link.size, target_length);
    }

    #[test]
    fn a_device_has_its_numbers() {
        let dev = File::open("/dev").expect("open /dev");
        let null = Stat::at(dev.as_fd(), c"null").expect("statx");
        assert_eq!((null.kind, null.rdev), (FileKind::CharDevice, (1, 3)));
    }
}
