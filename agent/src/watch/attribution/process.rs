//! The number of a process in, what `/proc` says of it out.
//!
//! By a directory that is opened once: once its process is gone, reads in it fail, whoever has the number by then.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use drift::TreePath;
use drift::attribution::{Attribution, Origin};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::scan::filesystems::Filesystems;

/// `/proc/PID`, open.
pub(crate) struct Directory(OwnedFd);

/// What of a process's `stat` is told.
pub(super) struct Stat {
    pub(super) name: Vec<u8>,
    pub(super) parent: u32,
    pub(super) started_milliseconds: u64,
}

/// The file that a process runs, to be asked after.
#[derive(Debug)]
pub struct Running {
    link: Vec<u8>,
    file: Option<(u64, u64)>,
    is_linked: bool,
}

impl Running {
    /// Its path, as the process's mounts have it, without what the kernel says of it behind.
    pub fn path(&self) -> &[u8] {
        if self.is_linked {
            &self.link
        } else {
            self.link.strip_suffix(DELETED).unwrap_or(&self.link)
        }
    }

    /// The same as the kernel tells it.
    pub(crate) fn link(&self) -> &[u8] {
        &self.link
    }

    /// Device and inode: whether it is the file that is found at its path elsewhere. `None` where it may not be looked at.
    pub fn file(&self) -> Option<(u64, u64)> {
        self.file
    }

    /// Whether it is the file that is found at this path of the image's file systems.
    pub(crate) fn lies_at(&self, filesystems: &Filesystems, path: &TreePath) -> bool {
        let found = filesystems.look_up(path).ok().map(|found| found.id());
        found.is_some() && found == self.file
    }

    /// What the kernel says by itself; [`Origin::Unknown`] where the file is one that can be looked up.
    pub(crate) fn origin(&self) -> Origin {
        match self.path() {
            _ if self.is_linked => Origin::Unknown,
            path if path.starts_with(b"/memfd:") => Origin::Memory,
            _ => Origin::Deleted,
        }
    }
}

impl Directory {
    pub(crate) fn open(pid: u32) -> rustix::io::Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{pid}");
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Directory)
    }

    pub(super) fn stat(&self) -> Option<Stat> {
        parse_stat(&self.read("stat", 1024)?)
    }

    /// None where it has none, as the kernel's own threads, or where it has ended.
    pub(super) fn running(&self) -> Option<Running> {
        self.program().ok()
    }

    /// The same.
    ///
    /// # Errors
    /// `ENOENT` where it has none, `ESRCH` where it has ended, `EACCES` where that is not told.
    pub(crate) fn program(&self) -> rustix::io::Result<Running> {
        let link = rustix::fs::readlinkat(&self.0, "exe", Vec::new())?.into_bytes();
        let found = found_at(&self.0, "exe");
        let links = found.as_ref().and_then(|found| found.links);
        Ok(Running {
            // Without a look at it, the suffix has to do.
            is_linked: links.map_or(!link.ends_with(DELETED), |links| links > 0),
            file: found.map(|found| found.file),
            link,
        })
    }

    /// Parted by NUL; none where it has none left. More than are told are more than the limit here, without the last NUL.
    pub(super) fn arguments(&self) -> Option<Vec<u8>> {
        let most = Attribution::MAX_COMMAND_LINE_BYTES + 2;
        let arguments = self.read("cmdline", most)?;
        (!arguments.is_empty()).then_some(arguments)
    }

    pub(super) fn working_directory(&self) -> Option<Vec<u8>> {
        self.link("cwd")
    }

    /// Device and inode of its root.
    pub(crate) fn root(&self) -> Option<(u64, u64)> {
        self.file_behind("root")
    }

    /// The effective one.
    pub(super) fn uid(&self) -> Option<u32> {
        let status = self.read("status", 4096)?;
        let line = status
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(b"Uid:"))?;
        let mut numbers = str::from_utf8(line).ok()?.split_ascii_whitespace();
        numbers.nth(1)?.parse().ok()
    }

    /// A file with one number in it, of which the greatest means none.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let text = self.read(name, 32)?;
        let number = str::from_utf8(&text).ok()?.trim().parse().ok()?;
        (number != u32::MAX).then_some(number)
    }

    pub(crate) fn cgroup(&self) -> Option<Vec<u8>> {
        super::cgroup::own(&self.read("cgroup", 16 * 1024)?).map(<[u8]>::to_vec)
    }

    fn read(&self, name: &str, most: usize) -> Option<Vec<u8>> {
        read_at_most(self.file(name).ok()?, most)
    }

    /// A file in it, open for reading.
    pub(crate) fn file(&self, name: &str) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }

    /// Device and inode of what a link in it leads to, as far as its file system need not be asked.
    pub(crate) fn file_behind(&self, name: &str) -> Option<(u64, u64)> {
        found_at(&self.0, name).map(|found| found.file)
    }

    /// Whether a link in it may be written through, which says whether its file was opened for writing (`map_files`).
    pub(crate) fn is_writable(&self, name: &str) -> bool {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR))
    }

    /// Where a link in it leads, as the kernel spells it.
    pub(crate) fn link(&self, name: &str) -> Option<Vec<u8>> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new()).ok()?;
        Some(target.into_bytes())
    }
}

/// What is behind a link, as far as the kernel knows without asking its file system: that may be the actor's own (FUSE),
/// or a server that is gone, and would answer when it likes.
struct Found {
    /// Device and inode.
    file: (u64, u64),
    /// None where that is not known.
    links: Option<u32>,
}

fn found_at(directory: impl AsFd, name: &str) -> Option<Found> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::INO | StatxFlags::NLINK;
    let found = rustix::fs::statx(directory, name, flags, wanted).ok()?;
    let told = StatxFlags::from_bits_retain(found.stx_mask);
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    told.contains(StatxFlags::INO).then_some(Found {
        file: (device, found.stx_ino),
        links: told.contains(StatxFlags::NLINK).then_some(found.stx_nlink),
    })
}

pub(super) fn read_at_most(file: File, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// proc_pid_stat(5): a name in parentheses may have any byte in it, these too.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = text.get(open + 1..close)?.to_vec();
    let rest = str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // The third field of the page is the first here.
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        name,
        parent,
        started_milliseconds: ticks.saturating_mul(MILLISECONDS_A_TICK),
    })
}

pub(crate) const DELETED: &[u8] = b" (deleted)";
/// What the kernel counts in towards programs (`USER_HZ`) is a hundredth of a second on every architecture of ours.
const MILLISECONDS_A_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        let rest = " S 812 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 1";
        for name in ["sh", "a b", ") S 1 (", "\n)) (", ""] {
            let text = format!("900 ({name}){rest}");
            let stat = parse_stat(text.as_bytes()).expect("a stat");
            assert_eq!(stat.name, name.as_bytes());
            assert_eq!((stat.parent, stat.started_milliseconds), (812, 47_110));
        }
    }

    #[test]
    fn what_is_no_stat_is_none() {
        for text in [
            "",
            "1",
            "1 (x",
            "1 (x)",
            "1 (x) S",
            ") (",
            "1 (x) S x 1",
            "1 (x) S 1 2 3",
        ] {
            assert!(parse_stat(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse_stat(b"1 (\xff) S \xff").is_none());
    }

    #[test]
    fn this_process_is_described() {
        let directory = Directory::open(std::process::id()).expect("own directory");
        let stat = directory.stat().expect("stat");
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        let running = directory.running().expect("a program");
        let own = std::env::current_exe().expect("own program");
        assert_eq!(running.path(), own.as_os_str().as_encoded_bytes());
        assert_eq!(running.origin(), Origin::Unknown);
        assert_eq!(directory.uid(), Some(rustix::process::geteuid().as_raw()));
        let cwd = std::env::current_dir().expect("cwd");
        assert_eq!(
            directory.working_directory().as_deref(),
            Some(cwd.as_os_str().as_encoded_bytes())
        );
        assert!(directory.arguments().is_some());
        let stat = rustix::fs::stat("/").expect("a root");
        assert_eq!(directory.root(), Some((stat.st_dev, stat.st_ino)));
        let stat = rustix::fs::stat(own.as_path()).expect("own program");
        assert_eq!(running.file(), Some((stat.st_dev, stat.st_ino)));
        assert!(Directory::open(u32::MAX).is_err());
    }
}
