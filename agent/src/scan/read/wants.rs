//! What is wanted of a file beside its digest, and what is known of it without reading.

use std::fs::File;
use std::io;

use drift::Blake3;
use drift::entry::Measurement;
use drift::rules::Shape;
use driftmark_kernel::{Stat, verity};

use super::Content;

/// What is wanted of a file beside its digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// The digest of its first so many bytes.
    pub(crate) prefix: Option<u64>,
    /// The digest of its beginning up to the length that was held.
    pub(crate) held: Option<u64>,
    /// Whether its content has this shape.
    pub(crate) shape: Option<Shape>,
    /// No reading, if the kernel measures what was measured of it at bake.
    pub(crate) known: Option<Known>,
    /// Nothing, of a huge file that cannot be what it should be.
    pub(crate) only_if: Option<HugeOnlyIf>,
    /// Nothing yet, of a file of [`LONG_BYTES`] and more: that is for later.
    pub(crate) leave_long: bool,
    /// Nothing yet, of a shorter file that is on the disk alone: it is asked for, and read when it has come.
    pub(crate) leave_cold: bool,
    /// Reading around the page cache, of a file nothing of which is in it.
    pub(crate) around: bool,
}

/// A content that is known by what fs-verity measures of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) measurement: Measurement,
    pub(crate) size: u64,
    pub(crate) content: Blake3,
}

/// When a huge file is read at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HugeOnlyIf {
    /// Huge is what has more bytes than this.
    pub(crate) longer_than: u64,
    /// Its length as it should be; none if it should not be there.
    pub(crate) it_has: Option<u64>,
}

impl Wants {
    /// Nothing is left for later any more, whatever the file has become.
    pub(crate) fn at_once(&mut self) {
        (self.leave_long, self.leave_cold) = (false, false);
    }

    /// Whether the digest is all that is wanted.
    pub(crate) fn is_plain(&self) -> bool {
        self.prefix.is_none() && self.held.is_none() && self.shape.is_none()
    }

    pub(super) fn are_met_by(&self, size: u64) -> bool {
        self.only_if
            .is_some_and(|huge| size > huge.longer_than && huge.it_has != Some(size))
    }
}

impl Known {
    /// The content, if the kernel measures what it should of this file. What it does not measure, or measures otherwise,
    /// is read: another tree over the same content has another measurement.
    pub(super) fn content_of(&self, file: &File, stat: &Stat) -> Option<Content> {
        let is_this = stat.size == self.size
            && matches!(measured(file), Ok(Some(found)) if found == self.measurement);
        is_this.then(|| Content::of(self.size, self.content))
    }
}

/// What the kernel measured of a file, by an algorithm that is known here.
pub(super) fn measured(file: &File) -> io::Result<Option<Measurement>> {
    let measured = verity::of(file)?;
    Ok(measured.and_then(|measured| Measurement::new(measured.algorithm, measured.digest())))
}
