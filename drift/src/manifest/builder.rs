//! Makes a manifest: entries in any order, the same bytes whatever the order.

use std::collections::BTreeMap;

use crate::entry::{AttributeSet, Entry, Links, Node, Xattrs};
use crate::manifest::encoder::{Directories, EntryBlocks};
use crate::manifest::entries::MAX_SET_BYTES;
use crate::manifest::layout::{
    self, BLOCK_BYTES, Filesystem, Header, MAX_BODY_BYTES, MAX_FILESYSTEMS, MAX_HEADER_BYTES,
    SIDE_MAGIC, Sections,
};
use crate::manifest::record::{MAX_TARGET_BYTES, put_bytes};
use crate::manifest::{Identity, Package};
use crate::rules::Rules;
use crate::{Blake3, Sha256, TreePath, varint};

/// Collects the entries of an image and writes its manifest.
#[derive(Debug, Default)]
pub struct Builder {
    baked: Vec<Baked>,
}

/// An entry with what only the bake knows of it.
#[derive(Debug, Clone)]
struct Baked {
    entry: Entry,
    sha256: Option<Sha256>,
    package: Option<Package>,
    modified: Modified,
}

/// Seconds and nanoseconds since 1970.
type Modified = (i64, u32);

/// A finished manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakedManifest {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// What a signature is about.
    pub identity: Identity,
    /// How many entries it has.
    pub entry_count: u64,
}

/// Why entries do not make a manifest.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The same path twice.
    #[error("{0} is in the tree twice")]
    Duplicate(TreePath),
    /// A path whose directory is no entry.
    #[error("{0} is in no directory of the tree")]
    Orphan(TreePath),
    /// A regular file without the digest that the rest of the world speaks.
    #[error("{0} has no SHA-256")]
    NoSha256(TreePath),
    /// More packages than can be numbered.
    #[error("the image has more than {} packages", Package::MAX_COUNT)]
    TooManyPackages,
    /// A record that does not fit a block.
    #[error("{0} does not fit a block of the manifest: its path or its link target is too long")]
    TooLong(TreePath),
    /// An entry that no file system of Linux could hold.
    #[error("{path} cannot be held in a manifest: {problem}")]
    Unfit {
        /// The entry.
        path: TreePath,
        /// What of it does not fit.
        problem: &'static str,
    },
    /// A package or file system name that is too long.
    #[error("the name {0:?} cannot be held in a manifest")]
    BadName(String),
    /// A file system at the root, two at one mount point, or more than an image can have.
    #[error("these file systems cannot be those below the root of one image")]
    Filesystems,
    /// More than the format can hold.
    #[error("the image's {0} is larger than a manifest can hold")]
    TooLarge(&'static str),
}

impl Builder {
    /// Adds an entry; regular files whose content is held need their SHA-256.
    pub fn push(
        &mut self,
        entry: Entry,
        sha256: Option<Sha256>,
        package: Option<Package>,
        modified: (i64, u32),
    ) {
        self.baked.push(Baked {
            entry,
            sha256,
            package,
            modified,
        });
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// Entries that do not make a tree, or that exceed a limit of the format.
    pub fn finish(
        mut self,
        rules: Rules,
        mut filesystems: Vec<Filesystem>,
        not_held: AttributeSet,
    ) -> Result<BakedManifest, BuildError> {
        self.baked.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        self.check(&rules)?;
        filesystems.sort();
        filesystems.dedup();
        check_filesystems(&filesystems)?;
        let files = || {
            self.baked
                .iter()
                .filter(|baked| matches!(baked.entry.node, Node::File { .. }))
        };
        let (entries, xattrs) = self.entry_sections()?;
        let sha256 = files()
            .flat_map(|baked| *baked.sha256.expect("checked").as_bytes())
            .collect::<Vec<u8>>();
        let packages = self.package_section()?;
        let header = Header {
            entry_count: self.baked.len() as u64,
            file_count: files().count() as u64,
            content_bytes: files().fold(0, |sum, baked| sum.saturating_add(baked.entry.size())),
            not_held,
            filesystems,
            rules,
            sections: Sections {
                entries: entries.len() as u64,
                xattrs: xattrs.len() as u64,
                sha256: sha256.len() as u64,
                packages: packages.len() as u64,
            },
        };
        let body = [entries, xattrs, sha256, packages].concat();
        let mut side = SIDE_MAGIC.to_vec();
        for baked in files() {
            side.extend_from_slice(&baked.modified.0.to_le_bytes());
            side.extend_from_slice(&baked.modified.1.to_le_bytes());
        }
        assemble(&header, &body, &side)
    }

    fn check(&self, rules: &Rules) -> Result<(), BuildError> {
        let mut directories = Directories::default();
        let mut before: Option<&TreePath> = None;
        for baked in &self.baked {
            let path = &baked.entry.path;
            if before.is_some_and(|before| before == path) {
                return Err(BuildError::Duplicate(path.clone()));
            }
            if !directories.admit(&baked.entry, rules) {
                return Err(BuildError::Orphan(path.clone()));
            }
            if matches!(baked.entry.node, Node::File { .. }) && baked.sha256.is_none() {
                return Err(BuildError::NoSha256(path.clone()));
            }
            if let Some(problem) = problem(&baked.entry) {
                return Err(BuildError::Unfit {
                    path: path.clone(),
                    problem,
                });
            }
            before = Some(path);
        }
        Ok(())
    }

    /// Records in blocks that begin on their own, and the attribute sets in the order of their first use.
    fn entry_sections(&self) -> Result<(Vec<u8>, Vec<u8>), BuildError> {
        let mut entries: Vec<u8> = Vec::new();
        let mut blocks = EntryBlocks::default();
        for baked in &self.baked {
            entries.extend(blocks.push(&baked.entry)?.unwrap_or_default());
        }
        entries.extend(blocks.last);
        Ok((entries, blocks.sets.bytes))
    }

    /// The sorted list of packages, then two bytes an entry: its package's number from 1, or 0.
    fn package_section(&self) -> Result<Vec<u8>, BuildError> {
        let mut numbers: BTreeMap<&Package, u16> = self
            .baked
            .iter()
            .filter_map(|baked| baked.package.as_ref())
            .map(|package| (package, 0))
            .collect();
        if numbers.len() > Package::MAX_COUNT {
            return Err(BuildError::TooManyPackages);
        }
        let mut section = Vec::new();
        varint::put(&mut section, numbers.len() as u64);
        for ((package, number), next) in numbers.iter_mut().zip(1..) {
            *number = next;
            for text in [&package.name, &package.version] {
                if text.len() > Package::MAX_BYTES {
                    return Err(BuildError::BadName(text.clone()));
                }
                put_bytes(&mut section, text.as_bytes());
            }
        }
        for baked in &self.baked {
            let number = baked.package.as_ref().map_or(0, |package| numbers[package]);
            section.extend_from_slice(&number.to_le_bytes());
        }
        Ok(section)
    }
}

/// What of an entry the format has no place for, and no file system of Linux either.
fn problem(entry: &Entry) -> Option<&'static str> {
    /// Length, and length of the name and of the value, as varints.
    const SET_OVERHEAD_BYTES: usize = 8;
    let mut set_bytes = SET_OVERHEAD_BYTES;
    for xattr in entry.xattrs.as_slice() {
        set_bytes += xattr.name.len() + xattr.value.len() + SET_OVERHEAD_BYTES;
        if xattr.name.is_empty() || xattr.name.len() > Xattrs::MAX_NAME_BYTES {
            return Some("the name of an extended attribute is empty or too long");
        }
        if xattr.value.len() > Xattrs::MAX_VALUE_BYTES {
            return Some("the value of an extended attribute is too long");
        }
    }
    let unfit_links = |links: &Links| {
        entry.node == Node::Directory || links.least.is_root() || links.least > entry.path
    };
    match &entry.node {
        _ if set_bytes > MAX_SET_BYTES => Some("its extended attributes are too long together"),
        _ if entry.mode > 0o7777 => Some("its mode has more than twelve bits"),
        _ if entry.links.as_ref().is_some_and(unfit_links) => Some("its hard-link group is none"),
        Node::File {
            verity: Some(_), ..
        } if !entry.flags.has_verity() => {
            Some("it was measured by fs-verity, which it does not have")
        }
        Node::Symlink { target } if target.len() > MAX_TARGET_BYTES => {
            Some("its link target is too long")
        }
        _ => None,
    }
}

fn check_filesystems(sorted: &[Filesystem]) -> Result<(), BuildError> {
    if let Some(bad) = sorted
        .iter()
        .find(|filesystem| filesystem.kind.len() > Filesystem::MAX_KIND_BYTES)
    {
        return Err(BuildError::BadName(bad.kind.clone()));
    }
    let distinct = sorted.is_sorted_by(|a, b| a.mount_point < b.mount_point);
    let below_root = sorted
        .iter()
        .all(|filesystem| !filesystem.mount_point.is_root());
    if distinct && below_root && sorted.len() <= MAX_FILESYSTEMS {
        Ok(())
    } else {
        Err(BuildError::Filesystems)
    }
}

fn assemble(header: &Header, body: &[u8], side: &[u8]) -> Result<BakedManifest, BuildError> {
    let encoded = header.encode();
    if encoded.len() as u64 > MAX_HEADER_BYTES {
        return Err(BuildError::TooLarge("set of rules"));
    }
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(BuildError::TooLarge("tree"));
    }
    let preamble = layout::preamble(encoded.len() as u64, body.len() as u64);
    let table: Vec<u8> = body
        .chunks(BLOCK_BYTES)
        .flat_map(|block| *Blake3::of(block).as_bytes())
        .collect();
    Ok(BakedManifest {
        identity: layout::identity(&preamble, &encoded, &table),
        bytes: [&preamble, &encoded[..], body, &table, side].concat(),
        entry_count: header.entry_count,
    })
}
