//! An open file in, what the kernel measured of it with fs-verity out (`FS_IOC_MEASURE_VERITY`): a digest over its whole
//! content, without a byte of it being read.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::sys;

/// What the kernel measured of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Number of the hash algorithm in `linux/fsverity.h`: 1 is SHA-256, 2 is SHA-512.
    pub algorithm: u16,
    length: u16,
    bytes: [u8; MAX_DIGEST_BYTES],
}

/// `FS_VERITY_MAX_DIGEST_SIZE`: the longest digest that Linux has for this.
pub(crate) const MAX_DIGEST_BYTES: usize = 64;

impl Measurement {
    /// The digest.
    pub fn digest(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// None if the kernel says that it wrote more than there was room for.
    fn decode(answer: &sys::VerityDigest) -> Option<Self> {
        (usize::from(answer.length) <= MAX_DIGEST_BYTES).then_some(Measurement {
            algorithm: answer.algorithm,
            length: answer.length,
            bytes: answer.bytes,
        })
    }
}

/// What the kernel measured of this file; `None` if it has no fs-verity, or its file system or the kernel has none.
///
/// # Errors
/// Those of the `ioctl`, but for those that mean "none"; `EOVERFLOW` if the digest is longer than any that is known.
pub fn of(file: &impl AsFd) -> io::Result<Option<Measurement>> {
    match sys::measure_verity(file.as_fd()) {
        Ok(answer) => Measurement::decode(&answer)
            .map(Some)
            .ok_or_else(|| Errno::OVERFLOW.into()),
        Err(Errno::NODATA | Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_without_fs_verity_has_no_measurement_whatever_its_file_system() {
        let place = crate::lab::place();
        std::fs::write(place.path().join("file"), b"content").expect("write file");
        for path in [place.path().join("file"), "/proc/self/status".into()] {
            let file = File::open(&path).expect("open");
            assert_eq!(of(&file).expect("none is no error"), None, "{path:?}");
        }
    }

    #[test]
    fn a_digest_is_as_long_as_the_kernel_says_and_no_longer_than_there_is_room() {
        let answer = |length| sys::VerityDigest {
            algorithm: 1,
            length,
            bytes: [7; MAX_DIGEST_BYTES],
        };
        let measured = Measurement::decode(&answer(32)).expect("a digest");
        assert_eq!((measured.algorithm, measured.digest()), (1, &[7; 32][..]));
        let longest = Measurement::decode(&answer(64)).expect("a digest");
        assert_eq!(longest.digest().len(), 64);
        assert_eq!(Measurement::decode(&answer(65)), None);
        assert_eq!(Measurement::decode(&answer(u16::MAX)), None);
    }
}
