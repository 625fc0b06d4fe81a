//! Receives how much was read of a tree's package databases; hands on whether more may be.

use std::io;
use std::time::Instant;

/// How much more is read of the databases of one tree, and until when.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(super) bytes: u64,
    until: Option<Instant>,
}

impl Budget {
    /// All databases of a tree together: several times those of a large image.
    const BYTES: u64 = 1024 * 1024 * 1024;

    pub(super) fn until(until: Option<Instant>) -> Self {
        Budget {
            bytes: Self::BYTES,
            until,
        }
    }

    /// Takes what is about to be read.
    ///
    /// # Errors
    /// `FileTooLarge` or `TimedOut`.
    pub(super) fn take(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.bytes.checked_sub(bytes as u64);
        self.bytes = left.ok_or(io::ErrorKind::FileTooLarge)?;
        match self.until {
            Some(until) if Instant::now() > until => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}
