//! The system calls that no safe crate wraps: borrowed descriptors and byte slices in, plain results out.

use std::ffi::{CStr, c_long};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use nix::sys::fanotify::Fanotify;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::fanotify::Handle;
use crate::verity::MAX_DIGEST_BYTES;

/// Makes a detached mount read-only, without devices, setuid, programs or atime, and cuts it off from its peers.
///
/// Private, as the clone of a shared mount joins its peers: 6.18 keeps their mounts out of a detached one, but that is
/// not promised. rustix and nix have no `mount_setattr`.
pub(crate) fn make_inert(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC
            | libc::MOUNT_ATTR_NOATIME,
        // The kernel takes a new atime policy only where the old one is cleared by name.
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string, and the structure lives through the call with the size that is passed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    returned(answer).map(drop)
}

/// `cachestat` (Linux 6.5) of a whole file: how many of its pages are in the page cache. Unlike a read that does not
/// wait, it brings none in. No crate has it.
pub(crate) fn cached_pages(file: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    const SYS_CACHESTAT: c_long = 451;
    let whole = [0_u64; 2];
    let mut counts = [0_u64; 5];
    // SAFETY: offset and length are two numbers, the counts are five, and both live through the call.
    let answer = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            whole.as_ptr(),
            counts.as_mut_ptr(),
            0,
        )
    };
    returned(answer).map(|_| counts[0])
}

/// `listxattrat` (Linux 6.13) of `name` in `dir`, itself if it is a symbolic link. No crate has it.
pub(crate) fn listxattrat(
    dir: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    // SAFETY: `name` is a C string, and the kernel writes at most `buffer.len()` bytes into `buffer`.
    let answer = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    returned(answer)
}

/// `getxattrat` (Linux 6.13) of `name` in `dir`, itself if it is a symbolic link. No crate has it.
pub(crate) fn getxattrat(
    dir: BorrowedFd<'_>,
    name: &CStr,
    attribute: &CStr,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    let arguments = XattrArguments {
        value: buffer.as_mut_ptr() as u64,
        size: u32::try_from(buffer.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: both names are C strings, the structure lives through the call with the size that is passed, and the
    // kernel writes at most `size` bytes, no more than `buffer` has, to `value`.
    let answer = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attribute.as_ptr(),
            &raw const arguments,
            size_of_val(&arguments),
        )
    };
    returned(answer)
}

/// What fs-verity measured of a file: `FS_IOC_MEASURE_VERITY` (ioctl 134 of `f`). No crate has it.
pub(crate) fn measure_verity(file: BorrowedFd<'_>) -> rustix::io::Result<VerityDigest> {
    let mut digest = VerityDigest {
        algorithm: 0,
        length: MAX_DIGEST_BYTES as u16,
        bytes: [0; MAX_DIGEST_BYTES],
    };
    // SAFETY: the kernel reads and writes one `struct fsverity_digest`, which lives through the call, and after it at
    // most as many bytes as its length says, which are there.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &raw mut digest) };
    returned(answer.into()).map(|_| digest)
}

/// `struct fsverity_digest` of linux/fsverity.h with room for the longest digest.
#[repr(C)]
pub(crate) struct VerityDigest {
    pub(crate) algorithm: u16,
    pub(crate) length: u16,
    pub(crate) bytes: [u8; MAX_DIGEST_BYTES],
}

/// The number of a loop device that is free now (loop(4)). No crate has it.
pub(crate) fn free_loop_device(control: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    // SAFETY: this request takes no argument.
    let answer = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    returned(answer.into())
}

/// Makes a free loop device a read-only one over `length` bytes of `file`, which goes with its last user.
pub(crate) fn configure_loop_device(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> rustix::io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        offset,
        length,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        ..LoopConfig::ZERO
    };
    // SAFETY: the kernel reads one `struct loop_config`, which lives through the call.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    returned(answer.into()).map(drop)
}

/// `struct loop_config` of linux/loop.h with its `struct loop_info64`, as far as it is used.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    numbers: [u64; 3],
    offset: u64,
    length: u64,
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_rest: [u64; 22],
    reserved: [u64; 8],
}

impl LoopConfig {
    const ZERO: Self = LoopConfig {
        fd: 0,
        block_size: 0,
        numbers: [0; 3],
        offset: 0,
        length: 0,
        number_and_encryption: [0; 3],
        flags: 0,
        names_and_rest: [0; 22],
        reserved: [0; 8],
    };
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// What device-mapper says of the targets of the device with this number, with its table or with how it is. No crate
/// has it.
pub(crate) fn ask_device_mapper(
    control: BorrowedFd<'_>,
    (major, minor): (u32, u32),
    table: bool,
) -> rustix::io::Result<Box<MapperAnswer>> {
    let mut answer = Box::new(MapperAnswer::ZERO);
    answer.version = [4, 0, 0];
    answer.data_size = size_of::<MapperAnswer>() as u32;
    answer.data_start = std::mem::offset_of!(MapperAnswer, data) as u32;
    answer.flags = DM_NOFLUSH_FLAG | if table { DM_STATUS_TABLE_FLAG } else { 0 };
    answer.dev = libc::makedev(major, minor);
    // SAFETY: the kernel reads `struct dm_ioctl` and writes at most `data_size` bytes, which is all that there is of the
    // structure, and it lives through the call.
    let outcome = unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, &raw mut *answer) };
    returned(outcome.into()).map(|_| answer)
}

/// `struct dm_ioctl` of linux/dm-ioctl.h with room for an answer: a verity target needs a few hundred bytes.
#[repr(C)]
pub(crate) struct MapperAnswer {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    rest: [u8; 7],
    data: [u8; 8192],
}

const _: () = assert!(std::mem::offset_of!(MapperAnswer, data) == 312);

impl MapperAnswer {
    const ZERO: Self = MapperAnswer {
        version: [0; 3],
        data_size: 0,
        data_start: 0,
        target_count: 0,
        open_count: 0,
        flags: 0,
        event_number: 0,
        padding: 0,
        dev: 0,
        name: [0; 128],
        uuid: [0; 129],
        rest: [0; 7],
        data: [0; 8192],
    };

    /// How many targets the device has.
    pub(crate) fn target_count(&self) -> u32 {
        self.target_count
    }

    /// Where they begin; nothing where there was no room for all of it.
    pub(crate) fn targets(&self) -> &[u8] {
        let head = std::mem::offset_of!(MapperAnswer, data);
        match (self.data_start as usize).checked_sub(head) {
            Some(start) if self.flags & DM_BUFFER_FULL_FLAG == 0 => {
                self.data.get(start..).unwrap_or_default()
            }
            _ => &[],
        }
    }
}

/// Opens what a file system knows by this handle (open_by_handle_at(2)), as `mount` shows it. No crate has it.
pub(crate) fn open_by_handle(
    mount: BorrowedFd<'_>,
    form: i32,
    bytes: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut handle = FileHandle::holding(form, bytes)?;
    // SAFETY: the kernel reads a `struct file_handle` with as many bytes as its length says, which are there, and it
    // lives through the call.
    let answer = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            flags.bits().cast_signed(),
        )
    };
    returned(answer.into())?;
    // SAFETY: the kernel has just made it for this call, and nobody else knows of it.
    unsafe { adopt(answer) }.ok_or(Errno::BADF)
}

/// What a handle is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// To open the file by it.
    Opening,
    /// To know the file again (Linux 6.5): there are file systems that have no other handles.
    Comparing,
}

/// What a file system calls an open file (name_to_handle_at(2)): the form of the handle and its bytes. No crate has it.
pub(crate) fn handle_of(
    file: BorrowedFd<'_>,
    purpose: Purpose,
) -> rustix::io::Result<(i32, Vec<u8>)> {
    let purpose = match purpose {
        Purpose::Opening => 0,
        Purpose::Comparing => libc::AT_HANDLE_FID,
    };
    let mut handle = FileHandle::holding(0, &[])?;
    handle.length = MAX_HANDLE_BYTES as u32;
    let mut mount = 0;
    // SAFETY: the path is a C string, the kernel writes a number to `mount` and at most as many bytes to the handle as
    // its length says, which there is room for, and both live through the call.
    let answer = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH | purpose,
        )
    };
    returned(answer.into())?;
    let length = (handle.length as usize).min(MAX_HANDLE_BYTES);
    Ok((handle.form, handle.bytes[..length].to_vec()))
}

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct FileHandle {
    length: u32,
    form: i32,
    bytes: [u8; MAX_HANDLE_BYTES],
}

impl FileHandle {
    fn holding(form: i32, bytes: &[u8]) -> rustix::io::Result<Self> {
        let mut handle = FileHandle {
            length: u32::try_from(bytes.len()).map_err(|_| Errno::OVERFLOW)?,
            form,
            bytes: [0; MAX_HANDLE_BYTES],
        };
        let room = handle.bytes.get_mut(..bytes.len()).ok_or(Errno::OVERFLOW)?;
        room.copy_from_slice(bytes);
        Ok(handle)
    }
}

/// Takes a descriptor that the kernel has just made for this process; none where the number is negative, as it is
/// where there is no descriptor.
///
/// # Safety
/// A number that is not negative is a descriptor of this process that nobody owns, and it is passed here once and nowhere
/// else: who gets it closes it.
pub(crate) unsafe fn adopt(number: i32) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: the caller's promise is that it is open and that nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has `place` be what `other` is, and closes what it was before, in one go: whoever uses its number meanwhile uses one or
/// the other. `dup3` of rustix and nix wants it for itself alone, and another thread may be using it.
pub(crate) fn replace(place: &impl AsFd, other: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let place = place.as_fd().as_raw_fd();
    // SAFETY: both are open, and the number stays its owner's: what it stands for alone is another.
    let answer = unsafe { libc::dup3(other.as_raw_fd(), place, libc::O_CLOEXEC) };
    returned(answer.into()).map(drop)
}

/// Takes a descriptor that was open when this process was started, and keeps it from whatever it starts itself; none where
/// the number is not open.
///
/// # Safety
/// If it is open, nobody in this process owns it, and it is passed here once and nowhere else.
pub(crate) unsafe fn adopt_passed(number: i32) -> Option<OwnedFd> {
    // SAFETY: a flag of a number is set; whatever it is open on stays as it is.
    let answer = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if answer < 0 {
        return None;
    }
    // SAFETY: it is open, and the rest is the caller's promise.
    unsafe { adopt(number) }
}

/// Takes a group that was kept elsewhere. nix has no safe way to it.
pub(crate) fn group_of(kept: OwnedFd) -> Fanotify {
    // SAFETY: the descriptor was owned until now and is owned by the group from now on.
    unsafe { Fanotify::from_raw_fd(kept.into_raw_fd()) }
}

/// Has this thread, and those that it starts, read only while no other reads (`ioprio_set`). No crate has it.
pub(crate) fn idle_reads() -> rustix::io::Result<()> {
    // SAFETY: takes three numbers; 0 is the thread that calls.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) };
    returned(answer).map(drop)
}

/// Gives the heap's free pages back to the kernel. Only glibc keeps them long enough to matter.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: takes a number and touches only the allocator's own state, under its own lock.
    unsafe { libc::malloc_trim(0) };
}

/// Has all threads that start from now on take memory from the heap of the first.
#[cfg(target_env = "gnu")]
pub(crate) fn share_heap() {
    // SAFETY: takes two numbers and touches only the allocator's own settings, under its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// `struct xattr_args` of linux/xattr.h.
#[repr(C, align(8))]
struct XattrArguments {
    value: u64,
    size: u32,
    flags: u32,
}

/// What `syscall` returned: a length, or -1 and the thread's error number.
fn returned(answer: c_long) -> rustix::io::Result<usize> {
    usize::try_from(answer).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

/// System calls have had the same number on all architectures that Driftmark is built for since 424.
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;

/// linux/fsverity.h: `_IOWR('f', 134, struct fsverity_digest)`, whose digest counts as empty.
const FS_IOC_MEASURE_VERITY: libc::Ioctl = libc::_IOWR::<[u16; 2]>(b'f' as u32, 134);

/// linux/dm-ioctl.h: `_IOWR(DM_IOCTL, DM_TABLE_STATUS_CMD, struct dm_ioctl)`, which is what comes before the data.
const DM_TABLE_STATUS: libc::Ioctl = libc::_IOWR::<[u64; 39]>(0xfd, 12);
const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;

/// linux/ioprio.h: the idle class, whose levels mean nothing.
const IOPRIO_WHO_PROCESS: c_long = 1;
const IOPRIO_IDLE: c_long = 3 << 13;

/// linux/exportfs.h: `MAX_HANDLE_SZ`.
const MAX_HANDLE_BYTES: usize = Handle::MAX_BYTES;

/// linux/loop.h.
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
