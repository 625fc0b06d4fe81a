//! A write that no system call of its writer makes: by io_uring, which audit and other tools do not see.

use std::ffi::c_void;
use std::fs::{self, File};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringOp, addr_or_splice_off_in_union,
    io_uring_enter, io_uring_params, io_uring_ptr, io_uring_setup, io_uring_sqe, len_union,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::*;

/// Has the kernel write `bytes` at the beginning of `file`.
fn write(file: &File, bytes: &[u8]) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let mut parameters = io_uring_params::default();
    // SAFETY: the kernel writes to the parameters, which live through the call.
    let ring = unsafe { io_uring_setup(4, &mut parameters) }?;
    let map = |length: usize, offset| {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where. Nothing unmaps it again: it is a test's.
        unsafe {
            mmap(
                null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                &ring,
                offset,
            )
        }
    };
    let length = parameters.sq_off.array + parameters.sq_entries * 4;
    let queue: *mut c_void = map(length as usize, IORING_OFF_SQ_RING)?;
    let entries = map(4 * size_of::<io_uring_sqe>(), IORING_OFF_SQES)?;
    let mut entry = io_uring_sqe {
        opcode: IoringOp::Write,
        fd: file.as_raw_fd(),
        ..io_uring_sqe::default()
    };
    entry.addr_or_splice_off_in = addr_or_splice_off_in_union {
        addr: io_uring_ptr::new(bytes.as_ptr().cast_mut().cast()),
    };
    entry.len = len_union {
        len: bytes.len() as u32,
    };
    // SAFETY: the first entry of the mapping, which is as long as four.
    unsafe { entries.cast::<io_uring_sqe>().write(entry) };
    // SAFETY: the index is within the mapping, whose length was made of it, and is zero as the mapping is.
    let tail = unsafe { queue.byte_add(parameters.sq_off.tail as usize) };
    // SAFETY: the kernel keeps a number of this size there, aligned, which both sides touch atomically.
    let tail = unsafe { AtomicU32::from_ptr(tail.cast()) };
    tail.store(1, Ordering::Release);
    // SAFETY: the entry's buffer and file live through the call, which waits for its end.
    let submitted = unsafe { io_uring_enter(&ring, 1, 1, IoringEnterFlags::GETEVENTS) }?;
    assert_eq!(submitted, 1);
    Ok(())
}

#[test]
fn a_write_by_io_uring_is_seen_like_any_other() {
    in_each(|kind, root| {
        fs::write(root.join("file"), b"as it was").expect("write");
        let file = File::options()
            .write(true)
            .open(root.join("file"))
            .expect("open");
        let mut world = World::around(root, Shows::All);
        match write(&file, b"changed!!") {
            Ok(()) => {}
            Err(error) => return lab::skip(&format!("io_uring: {error}")),
        }
        assert_eq!(fs::read(root.join("file")).expect("read"), b"changed!!");
        let seen = world.seen();
        let found =
            |event: &Seen| event.what.has(Mask::MODIFY) && event.path.as_deref() == Some("file");
        assert!(seen.iter().any(found), "{kind}: {seen:#?}");
        assert!(
            seen.iter().all(|event| event.pid == std::process::id()),
            "{kind}: {seen:#?}"
        );
    });
}
