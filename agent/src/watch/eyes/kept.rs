//! A queue of an agent before this one in, if it is still of just this file system.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use driftmark_kernel::Mount;
use driftmark_kernel::fanotify::Watch;

use super::{Opening, of_changes};
use crate::supervise;

/// What the service manager keeps the queue of the file system at this path of the host as.
///
/// What it ignores is ignored rightly if it is found by the same name: the same build of the agent ignored it, on account of
/// the same manifest at the same path.
pub(super) fn name(with: &Opening<'_>, path: &Path) -> String {
    let build = env!("CARGO_PKG_VERSION").as_bytes();
    let manifest = with.manifest.as_bytes();
    supervise::named("changes", &[build, manifest, path.as_os_str().as_bytes()])
}

/// The queue that was kept under this name; none where its mark is gone with another file system.
pub(super) fn taken_back(with: &Opening<'_>, name: &str, path: &Path) -> Option<Watch> {
    let watch = of_changes(with.keeper.take(name)?);
    let device = device_of(with.mounts, path)?;
    watch.has_marked(device).ok()?.then_some(watch)
}

/// As the mount table calls the file system that a path lies in: what is in a btrfs says another number.
fn device_of(mounts: &[Mount], path: &Path) -> Option<(u32, u32)> {
    let above = |mount: &&Mount| path.starts_with(OsStr::from_bytes(&mount.point));
    // Of several at the same point the last one is on top.
    let nearest = mounts
        .iter()
        .filter(above)
        .max_by_key(|mount| mount.point.len());
    nearest.map(|mount| mount.dev)
}
