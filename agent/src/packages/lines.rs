//! Receives a file of a database; hands on its lines, one at a time and each of bounded length.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};

use driftmark_kernel::Dir;

use super::{Budget, is_no_file};

/// A file's lines, without their ends.
pub(super) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
}

/// No database has a longer one: a path has at most 4 KiB, a list of dependencies far less than this.
const MAX_LINE_BYTES: u64 = 64 * 1024;

impl Lines {
    /// Opens the regular file `name`.
    ///
    /// # Errors
    /// Those of [`Dir::open_file`].
    pub(super) fn open(dir: &Dir, name: &[u8]) -> io::Result<Self> {
        Ok(Lines {
            reader: BufReader::new(dir.open_file(name)?),
            line: Vec::new(),
        })
    }

    /// The same; none if there is no regular file of this name.
    ///
    /// # Errors
    /// A file that is there and cannot be opened.
    pub(super) fn open_if_there(dir: &Dir, name: &[u8]) -> io::Result<Option<Self>> {
        match Self::open(dir, name) {
            Err(error) if is_no_file(&error) => Ok(None),
            lines => lines.map(Some),
        }
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// A line that is too long, a budget that is spent, and whatever reading gives.
    pub(super) fn next(&mut self, budget: &mut Budget) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
        let count = limited.read_until(b'\n', &mut self.line)?;
        budget.take(count)?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if count as u64 == MAX_LINE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((count > 0).then_some(&self.line))
    }
}
