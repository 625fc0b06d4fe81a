//! Nothing in, a queue of events out, and the reading of it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Events, Mask};

/// A queue that the kernel puts events into: a notification group, which only tells and keeps nobody waiting.
///
/// Its length is the machine's (`fs.fanotify.max_queued_events`, 16,384), not unlimited: an agent that is stopped for an
/// hour would take the machine's memory instead of a few megabytes, and lost events are found again anyway. The number
/// of its marks is ours to bound, and unlimited: others of the same user would else use up what we need.
#[derive(Debug)]
pub struct Watch {
    group: Fanotify,
    asks: Mask,
}

impl Watch {
    /// A queue for marks on file systems and directories.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` where the kernel (before 5.15) cannot say names and processes,
    /// `EMFILE` where this user has no group left.
    pub fn open() -> io::Result<Watch> {
        let (outcome, targets) = match Watch::with(NAMES_AND_TARGETS) {
            Err(Errno::INVAL) => (Watch::with(NAMES), false),
            outcome => (outcome, true),
        };
        Ok(Watch {
            group: outcome?,
            asks: if targets { CHANGES } else { OLDER_CHANGES },
        })
    }

    /// A queue that says what is mounted and unmounted in the mount namespace that `namespace` (`/proc/PID/ns/mnt`) is
    /// open on, by everyone who is in it.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.14: [`crate::mounts::watch`] is left. `EPERM` without `CAP_SYS_ADMIN` there.
    pub fn of_mounts(namespace: BorrowedFd<'_>) -> io::Result<Watch> {
        let watch = Watch {
            group: Watch::with(MOUNTS)?,
            asks: Mask::MOUNTED.and(Mask::UNMOUNTED),
        };
        let kind = MarkFlags::from_bits_retain(MARK_MOUNT_NAMESPACE);
        watch.mark(MarkFlags::FAN_MARK_ADD | kind, watch.asks, namespace)?;
        Ok(watch)
    }

    /// A queue that was kept elsewhere while this process was not there (systemd's descriptor store), with its marks and
    /// with what has happened since.
    ///
    /// # Errors
    /// `InvalidData` where the descriptor is none of [`Watch::open`], and so tells other things than this reads.
    pub fn resumed(kept: OwnedFd) -> io::Result<Watch> {
        let mut head = Vec::new();
        let about = about(kept.as_fd())?;
        about.take(ABOUT_BYTES).read_to_end(&mut head)?;
        let asks = match flags_in(&head).map(|flags| flags | CLOSE_ON_EXEC) {
            Some(NAMES_AND_TARGETS) => CHANGES,
            Some(NAMES) => OLDER_CHANGES,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, OtherGroup)),
        };
        Ok(Watch {
            group: crate::sys::group_of(kept),
            asks,
        })
    }

    /// Whether the file system with this device (as the mount table has it) is marked as a whole, for all that this queue
    /// asks for: one that was unmounted since, or never was the one, is not.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn has_marked(&self, device: (u32, u32)) -> io::Result<bool> {
        for line in BufReader::new(about(self.as_fd())?).split(b'\n') {
            if let Some((marked, mask)) = marked_in(&line?)
                && marked == device
                && mask.has(self.asks)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same queue for marks that ask for no more than this.
    #[must_use]
    pub fn asking(mut self, only: Mask) -> Watch {
        self.asks = Mask(self.asks.0 & only.0);
        self
    }

    /// What the marks of this queue ask for.
    pub fn asks(&self) -> Mask {
        self.asks
    }

    /// Takes what is queued, as much as fits into `buffer`; none where nothing is queued. Wait for it by polling the
    /// descriptor. Each event takes up to one descriptor of this process, until it is dropped.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn read<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<Events<'a>>> {
        let length = read_group(&self.group, buffer)?;
        let buffer: &'a Buffer = buffer;
        // SAFETY: that is what the group was just read into.
        Ok(length.map(|length| unsafe { Events::just_read(buffer, length) }))
    }

    pub(super) fn mark(
        &self,
        flags: MarkFlags,
        mask: Mask,
        place: BorrowedFd<'_>,
    ) -> rustix::io::Result<()> {
        let mask = MaskFlags::from_bits_retain(mask.0);
        let nothing_below = None::<&std::ffi::CStr>;
        self.group
            .mark(flags, mask, place, nothing_below)
            .map_err(known)
    }

    fn with(flags: u32) -> rustix::io::Result<Fanotify> {
        group(flags, OFlags::empty())
    }

    /// As on a kernel that says fewer names.
    #[cfg(test)]
    pub(super) fn older() -> io::Result<Watch> {
        Ok(Watch {
            group: Watch::with(NAMES)?,
            asks: OLDER_CHANGES,
        })
    }
}

impl AsFd for Watch {
    /// To poll, and to keep while this process is restarted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

pub(super) fn group(flags: u32, events: OFlags) -> rustix::io::Result<Fanotify> {
    let flags = InitFlags::from_bits_retain(flags);
    let events = EventFFlags::from_bits_retain(events.bits());
    Fanotify::init(flags, events).map_err(known)
}

/// How many bytes were read; none where there was nothing.
pub(super) fn read_group(group: &Fanotify, buffer: &mut Buffer) -> io::Result<Option<usize>> {
    read_some_of_group(group, buffer, Buffer::BYTES)
}

/// The same, of at most so many bytes.
pub(super) fn read_some_of_group(
    group: &Fanotify,
    buffer: &mut Buffer,
    most: usize,
) -> io::Result<Option<usize>> {
    loop {
        match rustix::io::read(group, &mut buffer.0[..most]) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn known(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// `fanotify flags:HEX` of a group's `/proc/self/fdinfo/N`.
fn flags_in(about: &[u8]) -> Option<u32> {
    let line = about
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"fanotify flags:"))?;
    let digits = line.split(|byte| *byte == b' ').next()?;
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

fn about(group: BorrowedFd<'_>) -> io::Result<File> {
    File::open(format!("/proc/self/fdinfo/{}", group.as_raw_fd()))
}

/// The device and the mask of a line on a file system that is marked as a whole: `fanotify sdev:HEX mflags:HEX mask:HEX
/// ignored_mask:HEX`. The device is as the kernel has it, with 20 bits for the minor number.
fn marked_in(line: &[u8]) -> Option<((u32, u32), Mask)> {
    let text = str::from_utf8(line).ok()?.strip_prefix("fanotify sdev:")?;
    let mut fields = text.split(' ');
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let device = number(fields.next()?)?;
    let mask = number(fields.find_map(|field| field.strip_prefix("mask:"))?)?;
    Some(((device >> 20, device & 0xf_ffff), Mask(mask.into())))
}

/// A descriptor that is no group of [`Watch::open`].
#[derive(Debug, thiserror::Error)]
#[error("it is no fanotify group that says names and processes")]
struct OtherGroup;

/// Room for what one read brings.
///
/// [`Buffer::BYTES`] hold at most 270 events, and as many descriptors are open at once: a longer one would save system
/// calls where nobody has time, and cost the limit of open files.
pub struct Buffer(Box<[u8; Buffer::BYTES]>);

impl Buffer {
    /// 16 KiB: an event with two names of 255 bytes and three handles has less than two.
    pub const BYTES: usize = 16 * 1024;

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    #[cfg(test)]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0[..]
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer(Box::new([0; Buffer::BYTES]))
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", Buffer::BYTES)
    }
}

/// Four short lines come before the one that is wanted, and one for each mark after it.
const ABOUT_BYTES: u64 = 4096;
const CLOSE_ON_EXEC: u32 = libc::FAN_CLOEXEC;
const TELLS: u32 = CLOSE_ON_EXEC
    | libc::FAN_NONBLOCK
    | libc::FAN_CLASS_NOTIF
    | libc::FAN_UNLIMITED_MARKS
    | libc::FAN_REPORT_PIDFD;
/// Directory, name and object of each event (Linux 5.17).
const NAMES_AND_TARGETS: u32 = TELLS | libc::FAN_REPORT_DFID_NAME_TARGET;
/// The object only where it is none of a directory's names (Linux 5.15).
const NAMES: u32 = TELLS | libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID;
/// `FAN_REPORT_MNT` of Linux 6.14; nothing else can be asked of such a group. No crate has it.
const MOUNTS: u32 = TELLS | 0x4000;
/// `FAN_MARK_MNTNS` of Linux 6.14. No crate has it.
const MARK_MOUNT_NAMESPACE: u32 = 0x110;

/// What is asked of a file system, and why.
///
/// `MODIFY` is there before its writer closes, which may be never; `CLOSE_WRITE` says that a writer is done, and is all
/// that a mapping ever causes. `OPEN_EXEC` names the program of a process before it does anything. Not `DELETE_SELF` and
/// `MOVE_SELF`: they have no name, and what they would say is said by `DELETE` and `RENAME`; a file that another is
/// renamed over is that one's new name. Not `OPEN`, `ACCESS` and `CLOSE_NOWRITE`: reading is no change, and there is a
/// hundred times as much of it.
const CHANGES: Mask = COMMON.and(Mask::RENAME).and(Mask::FS_ERROR);
/// The same of a kernel that has no `RENAME` (and `FS_ERROR` came earlier, but not everywhere).
const OLDER_CHANGES: Mask = COMMON.and(Mask::MOVED_FROM).and(Mask::MOVED_TO);
const COMMON: Mask = Mask::MODIFY
    .and(Mask::CLOSE_WRITE)
    .and(Mask::ATTRIB)
    .and(Mask::CREATE)
    .and(Mask::DELETE)
    .and(Mask::OPEN_EXEC)
    .and(Mask::ON_DIRECTORY);
