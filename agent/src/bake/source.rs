//! Receives what the command line says about where the image is; hands on an image to look into and to read.
//!
//! ```text
//! --root ─▶ mounted already ─┐
//! --disk ─▶ partitions ─▶ detached mounts ─┴▶ file systems ─▶ gathered by a walk
//! --tar  ─▶ members, hashed as they stream by ───────────▶ gathered as they came
//! ```
//!
//! Nothing is ever written to a source, and nothing is left behind of what was mounted from it.

pub(super) mod disk;
mod fstab;
mod qcow2;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use drift::entry::AttributeSet;
use drift::manifest::Filesystem;
use driftmark_kernel::mounts;

use super::glance::Glance;
use super::{BakeArguments, BakeError};
use crate::scan::filesystems::{Filesystems, below};

/// An image, open to be read.
pub(super) struct Source {
    /// Its file systems.
    pub(super) trees: Filesystems,
    /// Those of them that are not the root's, for the manifest's header.
    pub(super) others: Vec<Filesystem>,
    /// What cannot be held of an image that is read from here.
    pub(super) not_held: AttributeSet,
}

impl Source {
    /// Opens the one that was asked for.
    pub(super) fn open(
        arguments: &BakeArguments,
        interrupt: &AtomicBool,
    ) -> Result<Self, BakeError> {
        let (trees, others) = match (&arguments.root, &arguments.disk) {
            (Some(root), _) => mounted(root, arguments)?,
            (None, Some(disk)) => {
                disk::open(disk, arguments.partition, &arguments.filesystems, interrupt)?
            }
            (None, None) => unreachable!("clap asks for one of them"),
        };
        Ok(Source {
            trees,
            others,
            not_held: AttributeSet::EMPTY,
        })
    }

    /// The image, to look into.
    pub(super) fn image(&self) -> Glance<'_> {
        Glance(&self.trees)
    }
}

/// The tree at a path of this host, with the image's other file systems where they are mounted.
fn mounted(
    root: &Path,
    arguments: &BakeArguments,
) -> Result<(Filesystems, Vec<Filesystem>), BakeError> {
    let failed = |source| BakeError::Root {
        path: root.to_owned(),
        source,
    };
    let root = &root.canonicalize().map_err(failed)?;
    let table = mounts::of(std::process::id()).map_err(|source| BakeError::Read {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let alone = Filesystems::open(root, &[], &table).map_err(failed)?;
    let mut others = Vec::new();
    for line in fstab::others(Glance(&alone), &arguments.filesystems)? {
        let path = below(root, &line.point);
        let mounted = table
            .iter()
            .rev()
            .find(|mount| mount.point == path.as_os_str().as_encoded_bytes());
        let Some(mount) = mounted else {
            return Err(BakeError::FilesystemMissing(line.point));
        };
        others.push(Filesystem {
            mount_point: line.point,
            kind: String::from_utf8_lossy(&mount.fs_type).into_owned(),
        });
    }
    let trees = Filesystems::open(root, &others, &table).map_err(failed)?;
    match trees.missing.first() {
        Some(missing) => Err(BakeError::FilesystemMissing(missing.mount_point.clone())),
        None => Ok((trees, others)),
    }
}
