//! The number of a block device in, what device-mapper maps it to out: the table of its targets, and how they are.
//!
//! Asked of the kernel itself (`DM_TABLE_STATUS` on `/dev/mapper/control`): what a mount, a name or the kernel's command
//! line says of a device is a claim. What the kernel answers is decoded as if anybody had written it.

mod verity;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::io::Errno;

use crate::sys;

pub use verity::{Health, Verity};

/// A part of a mapped device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where on the device it begins, in sectors of 512 bytes.
    pub start: u64,
    /// How many sectors it has.
    pub length: u64,
    /// What maps it: `verity`, `linear`, `crypt`, …
    pub kind: Vec<u8>,
    /// Its line, in words of its own: of the table, or on how it is.
    pub line: Vec<u8>,
}

/// What device-mapper is asked for each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// What it maps to.
    Table,
    /// How it is.
    Status,
}

/// An answer of device-mapper that does not follow `linux/dm-ioctl.h`, or a verity target whose lines cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read what device-mapper says of a device")]
pub struct Malformed;

/// `struct dm_target_spec`: start, length, status, offset of the next, 16 bytes for the kind.
const SPEC_BYTES: usize = 40;
const KIND_BYTES: usize = 16;

/// The dm-verity device with this number; none if it is no mapped device, or anything but one single verity target.
///
/// # Errors
/// The kernel cannot be asked (that needs `CAP_SYS_ADMIN` and `/dev/mapper/control`), or [`Malformed`] as `InvalidData`.
pub fn verity_of(device: (u32, u32)) -> io::Result<Option<Verity>> {
    let (major, minor) = device;
    if !Path::new(&format!("/sys/dev/block/{major}:{minor}/dm")).exists() {
        return Ok(None);
    }
    let control = File::open("/dev/mapper/control")?;
    let ask = |what| -> io::Result<Option<Target>> {
        let answer = match sys::ask_device_mapper(control.as_fd(), device, what == Ask::Table) {
            // It went in between.
            Err(Errno::NXIO) => return Ok(None),
            answer => answer?,
        };
        // More than one, and it is not verity's; whether there was room for all of them does not matter then.
        if answer.target_count() != 1 {
            return Ok(None);
        }
        let mut targets = targets(answer.targets(), 1).ok_or(malformed())?;
        Ok(targets.pop().filter(|target| target.kind == b"verity"))
    };
    let Some((table, status)) = ask(Ask::Table)?.zip(ask(Ask::Status)?) else {
        return Ok(None);
    };
    let verity = Verity::parse(&table.line, &status.line);
    verity.map(Some).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Malformed)
}

/// Reads `count` targets, the first at the front; none if one of them, or its line, is not where it should be.
pub fn targets(data: &[u8], count: u32) -> Option<Vec<Target>> {
    let mut targets = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let (spec, rest) = data.get(at..)?.split_at_checked(SPEC_BYTES)?;
        let number = |at: usize| Some(u64::from_ne_bytes(*spec[at..].first_chunk()?));
        // Counted from the first target; a last one may have none. It never leads back.
        let end = match u32::from_ne_bytes(*spec[20..].first_chunk()?) as usize {
            0 => at + SPEC_BYTES + rest.len(),
            next => next,
        };
        let line = data.get(at + SPEC_BYTES..end)?;
        targets.push(Target {
            start: number(0)?,
            length: number(8)?,
            kind: until_nul(&spec[24..24 + KIND_BYTES])?.to_vec(),
            line: until_nul(line)?.to_vec(),
        });
        at = end;
    }
    Some(targets)
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &[u8], next: u32, line: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&7_u64.to_ne_bytes());
        bytes.extend_from_slice(&8_u64.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&next.to_ne_bytes());
        bytes.extend_from_slice(kind);
        bytes.resize(SPEC_BYTES, 0);
        bytes.extend_from_slice(line);
        bytes
    }

    #[test]
    fn targets_follow_each_other_where_the_kernel_says() {
        let first = spec(b"linear", 48, b"8:1 0\0\0\0");
        let data = [first, spec(b"verity", 0, b"1 a b\0")].concat();
        let read = targets(&data, 2).expect("two targets");
        let words: Vec<_> = read
            .iter()
            .map(|target| (&target.kind[..], &target.line[..]))
            .collect();
        assert_eq!(
            words,
            [(&b"linear"[..], &b"8:1 0"[..]), (b"verity", b"1 a b")]
        );
        assert_eq!((read[0].start, read[0].length), (7, 8));
        assert_eq!(targets(&data, 0), Some(Vec::new()));
    }

    #[test]
    fn what_lies_outside_the_answer_or_has_no_end_is_refused() {
        let good = spec(b"verity", 0, b"V\0");
        assert!(targets(&good, 1).is_some());
        assert_eq!(
            targets(&good[..good.len() - 1], 1),
            None,
            "a line without an end"
        );
        assert_eq!(targets(&good[..SPEC_BYTES - 1], 1), None);
        assert_eq!(targets(&[], 1), None);
        for next in [1, 39, 43, u32::MAX] {
            let bytes = spec(b"verity", next, b"V\0");
            assert_eq!(targets(&bytes, 2), None, "{next}");
        }
        let back = [spec(b"a", 0, b"V\0"), spec(b"b", 0, b"V\0")].concat();
        assert_eq!(targets(&back, 2), None, "nothing follows the last");
        assert_eq!(
            targets(&spec(&[b'x'; 16], 0, b"V\0"), 1),
            None,
            "a kind without an end"
        );
    }

    #[test]
    fn a_device_that_is_not_mapped_is_no_verity_device() {
        assert_eq!(verity_of((0, 0)).expect("nothing is asked"), None);
        assert_eq!(verity_of((1, 3)).expect("nothing is asked"), None);
    }
}
