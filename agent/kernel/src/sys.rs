//! The system calls that no safe crate wraps: borrowed descriptors and byte slices in, plain results out.

use std::ffi::{CStr, c_long};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

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

/// Gives the heap's free pages back to the kernel. Only glibc keeps them long enough to matter.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: takes a number and touches only the allocator's own state, under its own lock.
    unsafe { libc::malloc_trim(0) };
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
