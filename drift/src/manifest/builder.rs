//! Makes a manifest: entries in any order, the same bytes whatever the order.

use std::collections::{BTreeMap, HashMap};

use crate::entry::{AttributeSet, Entry, Node, Xattrs};
use crate::manifest::entries::BLOCK_HEAD_BYTES;
use crate::manifest::layout::{self, BLOCK_BYTES, Filesystem, Header, SIDE_MAGIC, Sections};
use crate::manifest::record::{self, put_bytes};
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
    /// A package or file system name that is too long or empty.
    #[error("the name {0:?} cannot be held in a manifest")]
    BadName(String),
}

impl Builder {
    /// Adds an entry; regular files whose content is held need their SHA-256.
    pub fn push(&mut self, entry: Entry, sha256: Option<Sha256>, package: Option<Package>, modified: (i64, u32)) {
        self.baked.push(Baked { entry, sha256, package, modified });
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
        self.check()?;
        filesystems.sort();
        filesystems.dedup();
        if let Some(bad) = filesystems.iter().find(|filesystem| filesystem.kind.len() > Filesystem::MAX_KIND_BYTES) {
            return Err(BuildError::BadName(bad.kind.clone()));
        }
        let files = || self.baked.iter().filter(|baked| matches!(baked.entry.node, Node::File { .. }));
        let (entries, xattrs) = self.entry_sections()?;
        let sha256 = files().flat_map(|baked| *baked.sha256.expect("checked").as_bytes()).collect::<Vec<u8>>();
        let packages = self.package_section()?;
        let header = Header {
            entry_count: self.baked.len() as u64,
            file_count: files().count() as u64,
            content_bytes: files().map(|baked| baked.entry.size()).sum(),
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
        Ok(assemble(&header, &body, &side))
    }

    fn check(&self) -> Result<(), BuildError> {
        let mut directories: Vec<&TreePath> = Vec::new();
        let mut before: Option<&TreePath> = None;
        for baked in &self.baked {
            let path = &baked.entry.path;
            if before.is_some_and(|before| before == path) {
                return Err(BuildError::Duplicate(path.clone()));
            }
            let parent = path.parent();
            while directories.last().is_some_and(|directory| !path.is_within(directory)) {
                directories.pop();
            }
            if parent.is_some_and(|parent| directories.last() != Some(&&parent)) {
                return Err(BuildError::Orphan(path.clone()));
            }
            match baked.entry.node {
                Node::Directory => directories.push(path),
                Node::File { .. } if baked.sha256.is_none() => return Err(BuildError::NoSha256(path.clone())),
                _ => {}
            }
            before = Some(path);
        }
        Ok(())
    }

    /// Records in blocks that begin on their own, and the attribute sets in the order of their first use.
    fn entry_sections(&self) -> Result<(Vec<u8>, Vec<u8>), BuildError> {
        let mut entries: Vec<u8> = Vec::new();
        let mut sets = AttributeSets::default();
        let mut before: Option<&TreePath> = None;
        let mut file_ordinal = 0_u64;
        let mut bytes = Vec::new();
        for (ordinal, baked) in self.baked.iter().enumerate() {
            let xattrs_at = sets.offset(&baked.entry.xattrs);
            bytes.clear();
            record::encode(&mut bytes, &baked.entry, before, xattrs_at);
            let used = entries.len() % BLOCK_BYTES;
            if entries.is_empty() || used == 0 || used + bytes.len() > BLOCK_BYTES {
                entries.resize(entries.len().next_multiple_of(BLOCK_BYTES), 0);
                entries.extend_from_slice(&(ordinal as u64).to_le_bytes());
                entries.extend_from_slice(&file_ordinal.to_le_bytes());
                bytes.clear();
                record::encode(&mut bytes, &baked.entry, None, xattrs_at);
                if bytes.len() > BLOCK_BYTES - BLOCK_HEAD_BYTES {
                    return Err(BuildError::TooLong(baked.entry.path.clone()));
                }
            }
            entries.extend_from_slice(&bytes);
            before = Some(&baked.entry.path);
            file_ordinal += u64::from(matches!(baked.entry.node, Node::File { .. }));
        }
        Ok((entries, sets.bytes))
    }

    /// The sorted list of packages, then two bytes an entry: its package's number from 1, or 0.
    fn package_section(&self) -> Result<Vec<u8>, BuildError> {
        let mut numbers: BTreeMap<&Package, u16> =
            self.baked.iter().filter_map(|baked| baked.package.as_ref()).map(|package| (package, 0)).collect();
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

/// Each set once, however many entries have it.
#[derive(Default)]
struct AttributeSets {
    bytes: Vec<u8>,
    offsets: HashMap<Xattrs, u64>,
}

impl AttributeSets {
    fn offset(&mut self, xattrs: &Xattrs) -> Option<u64> {
        if xattrs.is_empty() {
            return None;
        }
        if let Some(offset) = self.offsets.get(xattrs) {
            return Some(*offset);
        }
        let mut set = Vec::new();
        varint::put(&mut set, xattrs.as_slice().len() as u64);
        for xattr in xattrs.as_slice() {
            put_bytes(&mut set, &xattr.name);
            put_bytes(&mut set, &xattr.value);
        }
        let offset = self.bytes.len() as u64;
        put_bytes(&mut self.bytes, &set);
        self.offsets.insert(xattrs.clone(), offset);
        Some(offset)
    }
}

fn assemble(header: &Header, body: &[u8], side: &[u8]) -> BakedManifest {
    let encoded = header.encode();
    let preamble = layout::preamble(encoded.len() as u64, body.len() as u64);
    let table: Vec<u8> = body.chunks(BLOCK_BYTES).flat_map(|block| *Blake3::of(block).as_bytes()).collect();
    BakedManifest {
        identity: layout::identity(&preamble, &encoded, &table),
        bytes: [&preamble, &encoded[..], body, &table, side].concat(),
        entry_count: header.entry_count,
    }
}
