//! The mount table, whenever it changes, in; whether the image's file systems are mounted as they were, out.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use drift::entry::Kind;
use driftmark_kernel::Mount;

use super::{Around, Told, now};
use crate::scan::filesystems::Filesystems;
use crate::scan::mounts::{Cover, covers, table};

/// The mount table is read this often at most: where containers come and go it changes all the time.
const REST: Duration = Duration::from_secs(1);

/// How the image's file systems are mounted now.
pub(super) enum Mounted {
    /// As they were; all that is mounted anywhere is this.
    AsBefore(Vec<Mount>),
    /// That cannot be told.
    Unknown,
    /// Otherwise.
    Otherwise,
}

/// What is mounted, as far as it matters here.
pub(super) struct Mounts {
    /// Polls after each change.
    pub(super) changes: OwnedFd,
    root: PathBuf,
    covers: Option<Vec<Cover>>,
    ids: Vec<u64>,
    /// When they are next looked at.
    pub(super) next: Duration,
}

impl Mounts {
    /// With the table that these file systems were opened by.
    pub(super) fn begin(
        around: &Around,
        changes: OwnedFd,
        root: PathBuf,
        filesystems: &Filesystems,
        mounted: &[Mount],
    ) -> Self {
        let mut mounts = Mounts {
            changes,
            root,
            covers: None,
            ids: filesystems.mounts().to_vec(),
            next: now(),
        };
        mounts.have_changed(around, mounted);
        mounts
    }

    /// Looks at what is mounted. What lies over the image is left to a pass.
    pub(super) fn look(&mut self, around: &Around) -> Mounted {
        self.next = now() + REST;
        let Ok(mounted) = table(&self.root) else {
            (around.tell)(Told::InDoubt);
            return Mounted::Unknown;
        };
        if self.have_changed(around, &mounted) {
            (around.tell)(Told::InDoubt);
        }
        let wanted = &around.order.baseline.manifest.header().filesystems;
        let opened = Filesystems::open(&self.root, wanted, &mounted);
        match opened.is_ok_and(|opened| opened.mounts() != self.ids) {
            true => Mounted::Otherwise,
            false => Mounted::AsBefore(mounted),
        }
    }

    fn have_changed(&mut self, around: &Around, mounted: &[Mount]) -> bool {
        let wanted = &around.order.baseline.manifest.header().filesystems;
        let rules = around.order.baseline.manifest.rules();
        let mut covers = covers(mounted, &self.root, wanted);
        // What containers mount where anything may be mounted is nobody's business here.
        covers.retain(|cover| !rules.allowance(&cover.path, Kind::Directory).covered);
        let before = self.covers.replace(covers);
        before.is_some() && before != self.covers
    }
}
