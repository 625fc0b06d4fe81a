//! What the kernel measured of a file with fs-verity: one digest that stands for the whole content.

use std::fmt;

/// The digest of a file's fs-verity descriptor, as `FS_IOC_MEASURE_VERITY` gives it.
///
/// The descriptor has the file's length and the root of a hash tree over its content, so files of one measurement have
/// one content. The reverse does not hold: another algorithm, block size or salt gives another measurement of the same
/// content. Source: `Documentation/filesystems/fsverity.rst` of Linux.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measurement {
    /// By SHA-256, number 1 of `linux/fsverity.h`.
    Sha256([u8; 32]),
    /// By SHA-512, number 2.
    Sha512([u8; 64]),
}

impl Measurement {
    /// Takes a digest made by the kernel; none if the algorithm is not known here, or its digests have another length.
    pub fn new(algorithm: u16, digest: &[u8]) -> Option<Self> {
        match algorithm {
            1 => digest.try_into().ok().map(Measurement::Sha256),
            2 => digest.try_into().ok().map(Measurement::Sha512),
            _ => None,
        }
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Measurement::Sha256(digest) => digest,
            Measurement::Sha512(digest) => digest,
        }
    }
}

/// As `fsverity measure` prints it: `sha256:HEX`.
impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Measurement::Sha256(_) => "sha256:",
            Measurement::Sha512(_) => "sha512:",
        })?;
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measurement({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_the_length_of_its_algorithm_or_is_none() {
        let sha256 = Measurement::new(1, &[0xab; 32]).unwrap();
        assert_eq!(sha256.to_string(), format!("sha256:{}", "ab".repeat(32)));
        let sha512 = Measurement::new(2, &[0; 64]).unwrap();
        assert_eq!(sha512.as_bytes(), [0; 64]);
        for (algorithm, length) in [(1, 64), (2, 32), (1, 31), (1, 0), (0, 32), (3, 32), (3, 64)] {
            assert_eq!(Measurement::new(algorithm, &vec![0; length]), None);
        }
    }

    #[test]
    fn measurements_that_begin_alike_differ() {
        let mut other = [0; 32];
        other[31] = 1;
        assert_ne!(Measurement::Sha256([0; 32]), Measurement::Sha256(other));
        assert_ne!(Measurement::Sha256([0; 32]), Measurement::Sha512([0; 64]));
    }
}
