//! A part of a file in, a block device to mount out, read-only and gone by itself.
//!
//! With `LO_FLAGS_AUTOCLEAR` the kernel lets a loop device go with its last user, however that ends: nothing is left
//! behind by a process that is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sys;

/// A loop device that this process holds.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Attaches `length` bytes of `file` from `offset` on; both are multiples of 512.
    ///
    /// # Errors
    /// `/dev/loop-control` is not there or may not be opened, no device is free, or `EINVAL` before Linux 5.8.
    pub fn attach(file: &File, offset: u64, length: u64) -> io::Result<LoopDevice> {
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let control = rustix::fs::open(
            "/dev/loop-control",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for _ in 0..ATTEMPTS {
            let number = sys::free_loop_device(control.as_fd())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match sys::configure_loop_device(device.as_fd(), file.as_fd(), offset, length) {
                Ok(()) => {
                    return Ok(LoopDevice {
                        path,
                        _device: device.into(),
                    });
                }
                // Another process was faster.
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Its name in `/dev`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Between being told of a free device and taking it, others take it this often at the most.
const ATTEMPTS: usize = 64;
