//! A name in an open directory, and what can be done with it: it is looked at and opened there, by no path.

use std::ffi::{CStr, CString};
use std::io;
use std::sync::Arc;

use driftmark_kernel::{Dir, Stat};

use crate::scan::filesystems::Holding;

/// Where a file is opened: a name in an open directory.
#[derive(Clone, Copy)]
pub(crate) struct Place<'d> {
    pub(super) dir: &'d Arc<Dir>,
    pub(super) name: &'d CStr,
    pub(crate) holding: Holding,
}

/// A [`Place`] that keeps its directory open.
pub(crate) struct HeldPlace {
    dir: Arc<Dir>,
    name: CString,
    holding: Holding,
}

impl Place<'_> {
    /// What is there.
    ///
    /// # Errors
    /// Those of [`Dir::stat_at`].
    pub(crate) fn stat(self) -> io::Result<Stat> {
        self.dir.stat_at(self.name)
    }

    /// Opens the file that is there.
    ///
    /// # Errors
    /// Those of [`Dir::open_regular`].
    pub(crate) fn open(self) -> io::Result<(std::fs::File, Stat)> {
        self.dir.open_regular(self.name)
    }

    /// For later: its directory stays open until then.
    pub(crate) fn hold(self) -> HeldPlace {
        HeldPlace {
            dir: Arc::clone(self.dir),
            name: self.name.to_owned(),
            holding: self.holding,
        }
    }
}

impl HeldPlace {
    /// The same place.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            dir: &self.dir,
            name: &self.name,
            holding: self.holding,
        }
    }
}
