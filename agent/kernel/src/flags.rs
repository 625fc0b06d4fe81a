//! An open file or directory in, its raw file flags out (`chattr`, `FS_IOC_GETFLAGS`).
//!
//! Raw on purpose: which of them are held is the language's decision. ext4 carries bits that come and go
//! (extents, indexed directory).

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

/// The raw flags; `None` if the file system has no such thing.
///
/// # Errors
/// Those of the `ioctl`, but for those that mean "not supported here".
pub fn of(fd: &impl AsFd) -> io::Result<Option<u32>> {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => Ok(Some(flags.bits())),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;
    use crate::lab;
    use crate::tree::Tree;

    /// `FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL` of linux/fs.h.
    const IMMUTABLE_APPEND_NODUMP: u32 = 0x10 | 0x20 | 0x40;

    #[test]
    fn what_chattr_sets_on_ext4_is_read_back_through_a_clone() {
        lab::with_own_mounts(|place| {
            if let Err(lacking) = lab::mount_ext4(place) {
                return println!("skipped: {lacking}");
            }
            let path = place.join("file");
            File::create_new(&path).expect("create file");
            let tree = Tree::private_clone(place).expect("clone");
            let root = tree.root().expect("open");
            let read = || {
                of(&root.open_file(c"file").expect("open"))
                    .expect("flags")
                    .expect("ext4 has flags")
            };
            assert_eq!(read() & IMMUTABLE_APPEND_NODUMP, 0);
            chattr("+iad", &path);
            assert_eq!(read() & IMMUTABLE_APPEND_NODUMP, IMMUTABLE_APPEND_NODUMP);
            chattr("-ia", &path);
            assert_eq!(read() & IMMUTABLE_APPEND_NODUMP, 0x40);
            chattr("+d", place);
            let of_root = root.flags().expect("flags").expect("ext4 has flags");
            assert_eq!(of_root & IMMUTABLE_APPEND_NODUMP, 0x40);
        });
    }

    #[test]
    fn a_file_system_without_flags_has_none() {
        let status = File::open("/proc/self/status").expect("open status");
        assert_eq!(of(&status).expect("no support is no error"), None);
    }

    fn chattr(change: &str, path: &std::path::Path) {
        let status = Command::new("chattr")
            .arg(change)
            .arg(path)
            .status()
            .expect("run chattr");
        assert!(status.success());
    }
}
