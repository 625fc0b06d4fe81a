//! Receives what the command line says about where the image is; hands on an image to look into and to read.
//!
//! ```text
//! --root ─▶ mounted already ─┐
//! --disk ─▶ partitions ─▶ detached mounts ─┴▶ file systems ─▶ gathered by a walk
//! --tar  ─▶ members, hashed as they stream by ───────────▶ gathered as they came
//! ```
//!
//! Nothing is ever written to a source, and nothing is left behind of what was mounted from it.

pub(super) mod archive;
pub(super) mod disk;
mod fstab;
mod qcow2;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use drift::TreePath;
use drift::entry::AttributeSet;
use drift::manifest::Filesystem;
use drift::rules::{Built, Rules};
use driftmark_kernel::mounts;

use self::archive::{Archive, OwnDirectory, Shelf};
use super::gather::{Reading, Tree, gather};
use super::glance::Glance;
use super::{BakeArguments, BakeError, Share};
use crate::confine::Place;
use crate::scan::filesystems::{Filesystems, below, canonical, topmost_at};

/// An image, open to be read.
pub(super) struct Source {
    /// Its file systems; of an archive, what is looked into of it.
    trees: Filesystems,
    /// Those of them that are not the root's, for the manifest's header.
    pub(super) others: Vec<Filesystem>,
    archive: Option<Archive>,
    /// Goes when this does.
    _directory: Option<OwnDirectory>,
}

impl Source {
    /// Opens the one that was asked for, and says so, with the places that it writes; an archive is read here, after that.
    pub(super) fn open(
        arguments: &BakeArguments,
        reading: Reading<'_>,
        opened: &dyn Fn(&[Place<'_>]),
    ) -> Result<Self, BakeError> {
        if let Some(tar) = &arguments.tar {
            if arguments
                .filesystems
                .iter()
                .any(|asked| asked.as_os_str() != "none")
            {
                return Err(BakeError::no_filesystems_of_a_tar(tar));
            }
            let opened_tar = Archive::open(tar)?;
            let shelf = Shelf::make().map_err(BakeError::no_shelf)?;
            opened(&shelf.places());
            let archive = Archive::read(tar, opened_tar, reading)?;
            let (trees, directory) = archive.put_on(shelf)?;
            return Ok(Source {
                trees,
                others: Vec::new(),
                archive: Some(archive),
                _directory: directory,
            });
        }
        let (trees, others) = match (&arguments.root, &arguments.disk) {
            (Some(root), _) => mounted(root, arguments)?,
            (None, Some(disk)) => {
                let asked = &arguments.filesystems;
                disk::open(disk, arguments.partition, asked, reading.interrupt)?
            }
            (None, None) => unreachable!("clap asks for one of them"),
        };
        opened(&[]);
        Ok(Source {
            trees,
            others,
            archive: None,
            _directory: None,
        })
    }

    /// The image, to look into.
    pub(super) fn image(&self) -> Glance<'_> {
        Glance(&self.trees)
    }

    /// Whether there is something at a path of it.
    pub(super) fn has(&self, path: &TreePath) -> bool {
        match &self.archive {
            Some(archive) => archive.has(path),
            None => self.trees.look_up(path).is_ok(),
        }
    }

    /// Where its package databases are.
    pub(super) fn databases(&self) -> &Filesystems {
        &self.trees
    }

    /// What cannot be held of an image that is read from here.
    pub(super) fn not_held(&self) -> AttributeSet {
        self.archive
            .as_ref()
            .map_or(AttributeSet::EMPTY, Archive::not_held)
    }

    /// What each rule allows, and how much lies under volatile ones.
    pub(super) fn share(&self, built: &Built, interrupt: &AtomicBool) -> Result<Share, BakeError> {
        match &self.archive {
            Some(archive) => Ok(archive.share(built)),
            None => Share::measure(&self.trees, built, interrupt),
        }
    }

    /// Everything that a manifest holds of it, led by the rules.
    pub(super) fn gather(&self, rules: &Rules, reading: Reading<'_>) -> Result<Tree, BakeError> {
        match &self.archive {
            Some(archive) => Ok(archive.gather(rules, reading)?),
            None => gather(&self.trees, rules, reading),
        }
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
    let root = &canonical(root).map_err(failed)?;
    let table = mounts::of(std::process::id()).map_err(|source| BakeError::Read {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let alone = Filesystems::open(root, &[], &table).map_err(failed)?;
    let mut others = Vec::new();
    for line in fstab::others(Glance(&alone), &arguments.filesystems)? {
        let path = below(root, &line.point);
        let Some(mount) = topmost_at(&table, &path) else {
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
