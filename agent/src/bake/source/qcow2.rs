//! A qcow2 in, the raw disk that it describes out, in a temporary file that has no name.
//!
//! `qemu-img` does the reading, as it alone knows the whole format. A qcow2 may name *other* files of this host, and
//! qemu would read them: one that names any is refused here, before qemu sees it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The first bytes of a qcow2.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// Why a qcow2 is not read.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// Its header cannot be read.
    #[error("read the header of the qcow2")]
    Header(#[source] io::Error),
    /// What it says of itself.
    #[error("the qcow2 {0}")]
    Refused(&'static str),
    /// There is no room to unpack it.
    #[error(
        "make a temporary file of {bytes} bytes (sparse) in {}: set TMPDIR to a directory with room for it",
        directory.display()
    )]
    Temporary {
        /// Where.
        directory: PathBuf,
        /// How long the disk is.
        bytes: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tool is not there.
    #[error(
        "run qemu-img: a qcow2 is read with it, from the package qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL, Amazon Linux)"
    )]
    Tool(#[source] io::Error),
    /// The tool did not do it.
    #[error("unpack the qcow2: qemu-img says: {0}")]
    Unpack(String),
    /// It was told to end.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// Unpacks a qcow2 into a raw disk.
pub(super) fn unpack(file: &File, interrupt: &AtomicBool) -> Result<File, Qcow2Error> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(Qcow2Error::Header)?;
    let bytes = disk_bytes(&header)?;
    let directory = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let raw = temporary(&directory, bytes).map_err(|source| Qcow2Error::Temporary {
        directory,
        bytes,
        source,
    })?;
    // By descriptor: it is this file that was looked at, whatever its path leads to by now.
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut child = Command::new("qemu-img")
        .args([
            "convert",
            "-n",
            "--target-is-zero",
            "-f",
            "qcow2",
            "-O",
            "raw",
        ])
        .args([path(file), path(&raw)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Qcow2Error::Tool)?;
    let mut said = child.stderr.take();
    let status = loop {
        if interrupt.load(Ordering::Relaxed) {
            // One that has just ended is as good as one that was made to.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Qcow2Error::Interrupted);
        }
        match child.try_wait().map_err(Qcow2Error::Tool)? {
            Some(status) => break status,
            None => wait_a_moment(&child).map_err(Qcow2Error::Tool)?,
        }
    };
    if status.success() {
        return Ok(raw);
    }
    let mut words = Vec::new();
    if let Some(said) = &mut said {
        let _ = said.take(MAX_WORDS).read_to_end(&mut words);
    }
    Err(Qcow2Error::Unpack(drift::escape(words.trim_ascii())))
}

/// Until the child ends, or it is time to look at the interrupt again.
fn wait_a_moment(child: &Child) -> io::Result<()> {
    const MOMENT: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut ended = [PollFd::new(&ended, PollFlags::IN)];
    match poll(&mut ended, Some(&MOMENT)) {
        Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
        _ => Ok(()),
    }
}

/// The length of the disk; refuses what would make qemu read anything but this one file.
fn disk_bytes(header: &[u8; HEADER_BYTES]) -> Result<u64, Qcow2Error> {
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let version = word(4);
    let features = if version >= 3 { long(72) } else { 0 };
    match version {
        2 | 3 => {}
        _ => {
            return Err(Qcow2Error::Refused(
                "is of a version that is not known: 2 and 3 are",
            ));
        }
    }
    if long(8) != 0 {
        return Err(Qcow2Error::Refused(
            "has a backing file, which could be any file of this host: make it whole with `qemu-img convert -O qcow2`, where it is trusted",
        ));
    }
    if features & EXTERNAL_DATA_FILE != 0 {
        return Err(Qcow2Error::Refused(
            "has an external data file, which could be any file of this host: make it whole with `qemu-img convert -O qcow2`, where it is trusted",
        ));
    }
    if features & CORRUPT != 0 {
        return Err(Qcow2Error::Refused(
            "is marked as corrupt: repair a copy of it with `qemu-img check -r all`",
        ));
    }
    if word(32) != 0 {
        return Err(Qcow2Error::Refused(
            "is encrypted: decrypt it with `qemu-img convert` first",
        ));
    }
    match long(24) {
        0 => Err(Qcow2Error::Refused("describes an empty disk")),
        bytes => Ok(bytes),
    }
}

/// A file without a name: it goes with its last descriptor, however this process ends.
fn temporary(directory: &std::path::Path, bytes: u64) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    file.set_len(bytes)?;
    Ok(file)
}

/// A header of version 2 has 72 bytes; one of version 3 has 104 at least.
const HEADER_BYTES: usize = 104;
/// `incompatible_features` of docs/interop/qcow2.txt.
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
/// As much of qemu-img's complaint as is shown.
const MAX_WORDS: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, change: impl Fn(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&version.to_be_bytes());
        header[24..32].copy_from_slice(&4096_u64.to_be_bytes());
        change(&mut header);
        header
    }

    #[test]
    fn a_qcow2_that_names_other_files_is_refused() {
        let refused = |header| match disk_bytes(&header) {
            Err(Qcow2Error::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(header(2, |header| header[15] = 104)).contains("backing file"));
        assert!(refused(header(3, |header| header[15] = 104)).contains("backing file"));
        assert!(refused(header(3, |header| header[79] = 4)).contains("external data file"));
        assert!(refused(header(3, |header| header[79] = 2)).contains("corrupt"));
        assert!(refused(header(3, |header| header[35] = 2)).contains("encrypted"));
        assert!(refused(header(3, |header| header[24..32].fill(0))).contains("empty"));
        assert!(refused(header(9, |_| {})).contains("version"));
        assert_eq!(
            disk_bytes(&header(2, |header| header[79] = 4)).unwrap(),
            4096
        );
        assert_eq!(disk_bytes(&header(3, |_| {})).unwrap(), 4096);
    }
}
