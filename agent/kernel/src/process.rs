//! Nothing in, what this process holds of the machine out: its memory, how many files it may have open, what it was passed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Resource;

/// The most memory that this process ever had resident, in KiB (`VmHWM`).
///
/// # Errors
/// `/proc` is not mounted, or says nothing of it (`InvalidData`).
pub fn peak_resident_kib() -> io::Result<u64> {
    let status = std::fs::read("/proc/self/status")?;
    peak_in(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, NoPeak))
}

/// Gives memory that was freed back to the machine, after a scan has let go of its buffers.
///
/// Does nothing where the C library gives it back by itself.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    crate::sys::trim_heap();
}

/// Has all threads that start from now on take memory from one heap. Else glibc gives each a heap of its own, of which
/// [`trim_heap`] can give back what lies between, and not what lies at the end.
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    crate::sys::share_heap();
}

/// Lets this thread, and those that it starts, read only while nobody else does, where the disk's scheduler has such a
/// class.
///
/// # Errors
/// A filter of system calls has no room for it.
pub fn be_idle_at_the_disk() -> io::Result<()> {
    Ok(crate::sys::idle_reads()?)
}

/// Lets this process have as many files open as it may at all: a walk holds one for each directory that it is in.
///
/// Where it is refused, very deep trees are gaps.
pub fn open_files_as_may_be() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

/// Has this process leave no core when it ends badly, and be looked into by nobody who could not do anything to it anyway.
///
/// # Errors
/// None that is known: a filter of system calls has no room for it.
pub fn dump_no_core() -> io::Result<()> {
    let how = rustix::process::DumpableBehavior::NotDumpable;
    Ok(rustix::process::set_dumpable_behavior(how)?)
}

/// The descriptors that the service manager passed to this process when it started it, by name (sd_listen_fds(3)): those
/// of a socket, and those that it kept for the process before. They are given once; a second call gives none.
///
/// Call it before anything is opened: a number that was not really passed is then open in nobody's name.
pub fn passed_descriptors() -> Vec<(String, OwnedFd)> {
    static GIVEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    if GIVEN.swap(true, Ordering::Relaxed)
        || variable("LISTEN_PID") != std::process::id().to_string()
    {
        return Vec::new();
    }
    let count = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    let names = names.split(':').chain(std::iter::repeat(""));
    let numbers = FIRST_PASSED..FIRST_PASSED.saturating_add(count).min(LAST_PASSED);
    let passed = numbers.zip(names).filter_map(|(number, name)| {
        // SAFETY: whoever started this process says that this number was opened for it; it is taken here alone, and once.
        let passed = unsafe { crate::sys::adopt_passed(number) };
        Some((name.to_owned(), passed?))
    });
    passed.collect()
}

/// `SD_LISTEN_FDS_START`.
const FIRST_PASSED: i32 = 3;
/// A manager keeps no more than it is told to in a unit, which is a few dozen.
const LAST_PASSED: i32 = 1024;

/// `/proc/self/status` has no line `VmHWM: N kB`.
#[derive(Debug, thiserror::Error)]
#[error("read VmHWM from /proc/self/status")]
struct NoPeak;

fn peak_in(status: &[u8]) -> Option<u64> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"VmHWM:"))?;
    let number = str::from_utf8(line).ok()?.trim().strip_suffix(" kB")?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_and_covers_what_was_touched() {
        let touched = vec![1_u8; 8 << 20];
        assert!(peak_resident_kib().expect("own status") >= touched.len() as u64 / 1024);
        drop(touched);
        trim_heap();
    }

    #[test]
    fn a_status_without_a_peak_has_none() {
        assert_eq!(peak_in(b"Name:\tx\nVmHWM:\t    1234 kB\n"), Some(1234));
        for status in [
            &b""[..],
            b"VmHWM:",
            b"VmHWM: kB",
            b"VmHWM: -1 kB",
            b"VmHWM: \xff kB",
            b"XVmHWM: 1 kB",
        ] {
            assert_eq!(peak_in(status), None);
        }
    }
}
