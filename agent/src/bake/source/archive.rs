//! A tar in (`docker export`, a root file system); its tree out, as extracting it would make it, without doing so.
//!
//! Read once, from a file or a pipe: contents are hashed as they stream by, and what stays in memory is one record a path.
//! A tar is an image as far as it goes: it carries no file flags, and often no extended attributes, and what it does not
//! carry is not held. What it says twice is as the last says; what leads out of it is refused.

mod pax;
mod reader;
mod shelf;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::Ordering;

use drift::entry::{Attribute, AttributeSet, Device, Entry, FileFlags, Node, Xattrs};
use drift::manifest::BuildError;
use drift::observation::Group;
use drift::rules::{Built, Rules};
use drift::{Sha256, TreePath, escape};
use sha2::Digest as _;

use self::reader::{Header, Reader, TarError};
pub(in crate::bake) use self::shelf::{OwnDirectory, Shelf};
use crate::bake::gather::{Gathered, Reading, Tree, is_self, self_file_of};
use crate::bake::{BakeError, Share, shown, traces};
use crate::scan::Progress;
use crate::scan::filesystems::Filesystems;

/// Why an archive is not an image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Its format.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A path that leads out of it, or is none.
    #[error("{0} is not a path below the archive's root")]
    Path(String),
    /// Something in what is no directory.
    #[error(
        "{0} is in no directory of the archive: make it with its directories, and without links in their place"
    )]
    Orphan(String),
    /// A directory with something in it that is replaced by something else.
    #[error("{0} is a directory with something in it, and later something else")]
    Replaced(String),
    /// A hard link to nothing.
    #[error("{path} is a hard link to {target}, which is not in the archive before it")]
    Link {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A kind of member that no file system has.
    #[error("{path} is of type {flag:?}, which is not read")]
    Kind {
        /// The member.
        path: String,
        /// Its type.
        flag: char,
    },
    /// Nothing in it.
    #[error("it has no members: an image has at least directories")]
    Empty,
    /// More than fits.
    #[error("it has more than {MAX_MEMBERS} members")]
    TooMany,
    /// Package databases that are too large to look into.
    #[error(
        "its package databases are longer than {} bytes together",
        shelf::MAX_KEPT
    )]
    TooMuchToKeep,
    /// What is looked into cannot be put anywhere.
    #[error("keep the image's package databases at hand")]
    Shelf(#[source] io::Error),
    /// It was told to end.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// The tree of an archive.
pub(in crate::bake) struct Archive {
    nodes: Vec<Inode>,
    paths: BTreeMap<TreePath, usize>,
    carries_xattrs: bool,
    has_text_acls: bool,
}

/// What one or several paths are.
struct Inode {
    mode: u16,
    uid: u32,
    gid: u32,
    modified: (i64, u32),
    node: Node,
    sha256: Option<Sha256>,
    xattrs: Xattrs,
    names: u32,
    /// What [`Shelf`] needs of it.
    kept: Option<Vec<u8>>,
}

impl Archive {
    /// Opens a tar, standard input for `-`.
    pub(in crate::bake) fn open(path: &Path) -> Result<Box<dyn Read>, BakeError> {
        if path == Path::new("-") {
            return Ok(Box::new(io::stdin().lock()));
        }
        let file = File::open(path).map_err(|source| BakeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Box::new(file))
    }

    /// Reads the tar of that path.
    pub(in crate::bake) fn read(
        path: &Path,
        tar: Box<dyn Read>,
        reading: Reading<'_>,
    ) -> Result<Self, BakeError> {
        Self::stream(tar, reading).map_err(|source| match source {
            ArchiveError::Interrupted => BakeError::Interrupted,
            source => BakeError::Archive {
                path: path.to_owned(),
                source: Box::new(source),
            },
        })
    }

    fn stream(input: impl Read, reading: Reading<'_>) -> Result<Self, ArchiveError> {
        let mut archive = Archive {
            nodes: Vec::new(),
            paths: BTreeMap::new(),
            carries_xattrs: false,
            has_text_acls: false,
        };
        let mut reader = Reader::new(io::BufReader::with_capacity(1 << 20, input));
        let (mut entries, mut bytes, mut kept) = (0, 0, 0);
        while let Some(header) = reader.next()? {
            if reading.interrupt.load(Ordering::Relaxed) {
                return Err(ArchiveError::Interrupted);
            }
            archive.take(header, &mut reader, reading, &mut kept)?;
            entries += 1;
            bytes += archive.nodes.last().map_or(0, |last| match last.node {
                Node::File { size, .. } => size,
                _ => 0,
            });
            if entries % 512 == 0 {
                (reading.progress)(Progress { entries, bytes });
            }
            if entries > MAX_MEMBERS {
                return Err(ArchiveError::TooMany);
            }
        }
        if entries == 0 {
            return Err(ArchiveError::Empty);
        }
        archive.complete()?;
        Ok(archive)
    }

    /// What an image that is read from this tar does not hold.
    pub(in crate::bake) fn not_held(&self) -> AttributeSet {
        let mut not_held = AttributeSet::of(&[Attribute::Flags]);
        if self.has_text_acls || !self.carries_xattrs {
            not_held.insert(Attribute::Xattr);
        }
        not_held
    }

    /// Whether there is something at a path.
    pub(in crate::bake) fn has(&self, path: &TreePath) -> bool {
        self.paths.contains_key(path)
    }

    /// Puts what is looked into rather than walked on a shelf.
    pub(in crate::bake) fn put_on(
        &self,
        shelf: Shelf,
    ) -> Result<(Filesystems, Option<OwnDirectory>), BakeError> {
        let members = self.paths.iter().map(|(path, nth)| {
            let inode = &self.nodes[*nth];
            (path, &inode.node, inode.kept.as_deref())
        });
        shelf.fill(members).map_err(BakeError::no_shelf)
    }

    /// What each rule allows, and how much lies under volatile ones.
    pub(in crate::bake) fn share(&self, built: &Built) -> Share {
        let mut share = Share::of_none(built);
        for (path, nth) in &self.paths {
            let inode = &self.nodes[*nth];
            let file = match inode.node {
                Node::File { size, .. } => Some((size, inode.mode & 0o111 != 0)),
                _ => None,
            };
            share.add(built, path, file);
        }
        share
    }

    /// Everything that a manifest holds of it, led by the rules as a walk is.
    pub(in crate::bake) fn gather(
        &self,
        rules: &Rules,
        reading: Reading<'_>,
    ) -> Result<Tree, BuildError> {
        let held = self
            .paths
            .iter()
            .filter(|(path, _)| !rules.below_volatile(path));
        let gathered = held.map(|(path, nth)| {
            let inode = &self.nodes[*nth];
            if is_self(path) && matches!(inode.node, Node::File { .. }) {
                return self_file_of(path.clone(), (inode.mode, inode.uid, inode.gid));
            }
            inode.gathered(path, *nth)
        });
        Tree::of(gathered, reading.aside)
    }

    fn take<R: Read>(
        &mut self,
        header: Header,
        reader: &mut Reader<R>,
        reading: Reading<'_>,
        kept: &mut u64,
    ) -> Result<(), ArchiveError> {
        let path = tree_path(&header.path)?;
        self.refuse_orphan(&path)?;
        if header.flag == b'1' {
            return self.hard_link(path, &header.link);
        }
        let device = Device {
            major: header.device.0,
            minor: header.device.1,
        };
        // Before pax, a directory was a file whose name ends in a slash.
        let is_directory = header.flag == b'5' || (header.flag == 0 && header.path.ends_with(b"/"));
        let (mut sha256, mut content) = (None, None);
        let node = match header.flag {
            _ if is_directory => Node::Directory,
            0 | b'0' | b'7' | b'S' => {
                let keeps = shelf::is_read(&path) || traces::reads(&path);
                let (node, digest, bytes) = hashed(reader, header.size, keeps, reading, kept)?;
                (sha256, content) = (Some(digest), bytes);
                node
            }
            b'2' => Node::Symlink {
                target: header.link.clone().into(),
            },
            b'3' => Node::CharDevice(device),
            b'4' => Node::BlockDevice(device),
            b'6' => Node::Fifo,
            flag => {
                return Err(ArchiveError::Kind {
                    path: path.to_text(),
                    flag: flag.into(),
                });
            }
        };
        self.carries_xattrs |= !header.xattrs.is_empty();
        self.has_text_acls |= header.has_text_acl;
        let is_link = matches!(node, Node::Symlink { .. });
        let inode = Inode {
            // Links have no mode of their own; Linux shows this.
            mode: if is_link { 0o777 } else { header.mode },
            uid: header.uid,
            gid: header.gid,
            modified: header.modified,
            node,
            sha256,
            xattrs: Xattrs::held(header.xattrs),
            names: 1,
            kept: content,
        };
        self.put(path, inode)
    }

    /// As extraction does: a directory stays and takes the later owner and mode, anything else is replaced.
    fn put(&mut self, path: TreePath, inode: Inode) -> Result<(), ArchiveError> {
        let is_directory = matches!(inode.node, Node::Directory);
        if path.is_root() && !is_directory {
            return Err(ArchiveError::Path(
                "the root, which is no directory,".into(),
            ));
        }
        self.forget(&path, is_directory)?;
        self.paths.insert(path, self.nodes.len());
        self.nodes.push(inode);
        Ok(())
    }

    fn forget(&mut self, path: &TreePath, for_directory: bool) -> Result<(), ArchiveError> {
        let Some(nth) = self.paths.get(path).copied() else {
            return Ok(());
        };
        let is_directory = matches!(self.nodes[nth].node, Node::Directory);
        if is_directory && !for_directory {
            let mut below = self.paths.range(path.clone()..).skip(1);
            if below.next().is_some_and(|(next, _)| next.is_within(path)) {
                return Err(ArchiveError::Replaced(path.to_text()));
            }
        }
        self.nodes[nth].names -= 1;
        self.paths.remove(path);
        Ok(())
    }

    fn hard_link(&mut self, path: TreePath, link: &[u8]) -> Result<(), ArchiveError> {
        let target = tree_path(link)?;
        let nth = self.paths.get(&target).copied();
        let nth = nth.filter(|nth| !matches!(self.nodes[*nth].node, Node::Directory));
        let Some(nth) = nth else {
            return Err(ArchiveError::Link {
                path: path.to_text(),
                target: target.to_text(),
            });
        };
        if path == target {
            return Ok(());
        }
        self.forget(&path, false)?;
        self.nodes[nth].names += 1;
        self.paths.insert(path, nth);
        Ok(())
    }

    /// A directory may come after what is in it, but nothing else may lie where one belongs.
    fn refuse_orphan(&self, path: &TreePath) -> Result<(), ArchiveError> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        match self.paths.get(&parent).map(|nth| &self.nodes[*nth].node) {
            None | Some(Node::Directory) => Ok(()),
            Some(_) => Err(ArchiveError::Orphan(path.to_text())),
        }
    }

    /// A docker export has no entry for the root itself, which then is as roots are made.
    fn complete(&mut self) -> Result<(), ArchiveError> {
        if !self.paths.contains_key(&TreePath::root()) {
            self.put(
                TreePath::root(),
                Inode {
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    modified: (0, 0),
                    node: Node::Directory,
                    sha256: None,
                    xattrs: Xattrs::NONE,
                    names: 1,
                    kept: None,
                },
            )?;
        }
        for path in self.paths.keys() {
            let parent = path.parent();
            let holder = parent.map(|parent| self.paths.get(&parent));
            let holder = holder.map(|nth| nth.map(|nth| &self.nodes[*nth].node));
            if !matches!(holder, None | Some(Some(Node::Directory))) {
                return Err(ArchiveError::Orphan(path.to_text()));
            }
        }
        Ok(())
    }
}

impl Inode {
    fn gathered(&self, path: &TreePath, nth: usize) -> Gathered {
        let entry = Entry {
            path: path.clone(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            node: self.node.clone(),
            xattrs: self.xattrs.clone(),
            flags: FileFlags::NONE,
            links: None,
        };
        let group = (self.names > 1).then_some(Group {
            device: (0, 0),
            inode: nth as u64,
            names: self.names,
        });
        Gathered {
            entry,
            group,
            sha256: self.sha256,
            modified: self.modified,
        }
    }
}

/// Hashes a content as it streams by, and keeps it if it is to be looked into.
fn hashed<R: Read>(
    reader: &mut Reader<R>,
    size: u64,
    keeps: bool,
    reading: Reading<'_>,
    kept: &mut u64,
) -> Result<(Node, Sha256, Option<Vec<u8>>), ArchiveError> {
    if keeps {
        *kept = kept.saturating_add(size);
        if *kept > shelf::MAX_KEPT {
            return Err(ArchiveError::TooMuchToKeep);
        }
    }
    let mut content = keeps.then(Vec::new);
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
    reader.content::<ArchiveError>(&mut |bytes| {
        blake3.update(bytes);
        sha256.update(bytes);
        if let Some(content) = &mut content {
            content.extend_from_slice(bytes);
        }
        if reading.interrupt.load(Ordering::Relaxed) {
            return Err(ArchiveError::Interrupted);
        }
        Ok(())
    })?;
    let node = Node::file(size, blake3.finalize().into());
    Ok((node, Sha256::from_bytes(sha256.finalize().into()), content))
}

/// `./usr/bin/` and `usr/bin` are the same; what is absolute or has a `..` is refused.
fn tree_path(path: &[u8]) -> Result<TreePath, ArchiveError> {
    let bad = || ArchiveError::Path(escape(path));
    if path.is_empty() || path[0] == b'/' {
        return Err(bad());
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(bad()),
            name => components.push(name),
        }
    }
    TreePath::new(&components.join(&b'/')).map_err(|_| bad())
}

impl BakeError {
    pub(super) fn no_shelf(source: io::Error) -> Self {
        BakeError::Archive {
            path: "the archive".into(),
            source: Box::new(ArchiveError::Shelf(source)),
        }
    }

    pub(super) fn no_filesystems_of_a_tar(path: &Path) -> Self {
        BakeError::Read {
            path: path.to_owned(),
            source: io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} is one tree: --filesystem has no meaning for a tar",
                    shown(path)
                ),
            ),
        }
    }
}

/// Each takes a few hundred bytes of memory; the largest images have a tenth of it.
const MAX_MEMBERS: u64 = 10_000_000;
