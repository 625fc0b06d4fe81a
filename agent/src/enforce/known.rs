//! The manifest in; which files are programs of the image, by what they are and not by what they are called, out.

use drift::manifest::ManifestError;
use driftmark_kernel::Stat;

use crate::baseline::Baseline;
use crate::scan::filesystems::Filesystems;

/// The image's programs.
///
/// Each by its inode and when that was made: it stays itself under whatever name, mounted wherever, and when it has been
/// replaced while somebody still runs it. Where a file system keeps no time of making, that of the last change has to do.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Inode>);

/// Device, number, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Inode((u32, u32), u64, (i64, u32));

impl Known {
    /// An image with more has the rest looked up each time: 40 bytes each, 2.5 MiB.
    const MOST: usize = 65_536;

    /// All files of the image that somebody may run, as they lie there now.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub(super) fn of_image(
        baseline: &Baseline,
        filesystems: &Filesystems,
    ) -> Result<Self, ManifestError> {
        let mut known = Known::default();
        for entry in baseline.manifest.entries() {
            let entry = entry?;
            if entry.is_executable() && known.0.len() < Known::MOST {
                // What is gone is drift, and no program.
                let found = filesystems.look_up(&entry.path).ok();
                known.0.extend(found.as_ref().map(Inode::of));
            }
        }
        known.0.sort_unstable();
        known.0.dedup();
        known.0.shrink_to_fit();
        Ok(known)
    }

    /// Whether this file is one of them.
    pub(super) fn has(&self, stat: &Stat) -> bool {
        self.0.binary_search(&Inode::of(stat)).is_ok()
    }

    /// It was found where the image has one.
    pub(super) fn add(&mut self, stat: &Stat) {
        let inode = Inode::of(stat);
        if let Err(place) = self.0.binary_search(&inode)
            && self.0.len() < Known::MOST
        {
            self.0.insert(place, inode);
        }
    }
}

impl Inode {
    fn of(stat: &Stat) -> Self {
        Inode(stat.dev, stat.ino, stat.btime.unwrap_or(stat.ctime))
    }
}
