//! One path of an image: what it is, who owns it, and everything else that is held of it.

mod attribute;
mod flags;
mod permissions;
mod shown;
mod verity;
mod xattr;

use crate::{Blake3, TreePath};

pub use attribute::{Attribute, AttributeSet};
pub use flags::FileFlags;
pub use permissions::Permissions;
pub use shown::Shown;
pub use verity::Measurement;
pub use xattr::{Xattr, Xattrs};

/// One path of an image with everything that is held of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner, as a number.
    pub uid: u32,
    /// Group, as a number.
    pub gid: u32,
    /// What kind of thing it is, with what only that kind has.
    pub node: Node,
    /// Extended attributes, sorted by name, without what never counts (see [`Xattrs::held`]).
    pub xattrs: Xattrs,
    /// File flags (`chattr`), masked to those that are held.
    pub flags: FileFlags,
    /// The hard-link group; none for directories and for things with a single name.
    pub links: Option<Links>,
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Digest of the content.
        content: Blake3,
        /// What the kernel measured of it when it was baked, if it had fs-verity (flag `V`) then. It stands for size and
        /// content and is no attribute of its own; what is observed has none.
        verity: Option<Box<Measurement>>,
    },
    /// A file that describes the image and so cannot be described by it: the manifest, its signature
    /// and its statement. A regular file whose size and content are not held.
    SelfFile,
    /// A directory; its size and link count are not held.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, exactly as the kernel spells it (never followed).
        target: Box<[u8]>,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The numbers of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The hard-link group that a file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The first of the group's names in manifest order.
    pub least: TreePath,
    /// How many of its names are not entries (outside the tree, or below a volatile rule).
    pub outside: u32,
}

/// The kind of an entry by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

impl Node {
    /// A regular file, not measured by fs-verity.
    pub fn file(size: u64, content: Blake3) -> Self {
        Node::File {
            size,
            content,
            verity: None,
        }
    }

    /// The kind alone.
    pub fn kind(&self) -> Kind {
        match self {
            Node::File { .. } | Node::SelfFile => Kind::File,
            Node::Directory => Kind::Directory,
            Node::Symlink { .. } => Kind::Symlink,
            Node::CharDevice(_) => Kind::CharDevice,
            Node::BlockDevice(_) => Kind::BlockDevice,
            Node::Fifo => Kind::Fifo,
            Node::Socket => Kind::Socket,
        }
    }
}

impl Kind {
    /// The word for it in JSON and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::CharDevice => "char-device",
            Kind::BlockDevice => "block-device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

impl Entry {
    /// Whether it is a regular file that someone may execute.
    pub fn is_executable(&self) -> bool {
        self.node.kind() == Kind::File && self.mode & 0o111 != 0
    }

    /// Length in bytes; 0 for what has none that is held.
    pub fn size(&self) -> u64 {
        match self.node {
            Node::File { size, .. } => size,
            _ => 0,
        }
    }

    /// Which attributes differ between this (expected) entry and what was found at the same path.
    ///
    /// Where the kind differs, only what both kinds have is compared beside it. `links` is compared as it stands:
    /// a caller that learns link groups late compares them late ([`crate::compare`]).
    pub fn differences(&self, found: &Entry) -> AttributeSet {
        let mut changed = AttributeSet::EMPTY;
        let mut note = |attribute, differs| {
            if differs {
                changed.insert(attribute);
            }
        };
        note(Attribute::Mode, self.mode != found.mode);
        note(Attribute::Uid, self.uid != found.uid);
        note(Attribute::Gid, self.gid != found.gid);
        note(Attribute::Xattr, self.xattrs != found.xattrs);
        note(Attribute::Flags, self.flags != found.flags);
        note(Attribute::Links, self.links != found.links);
        note(Attribute::Kind, self.node.kind() != found.node.kind());
        match (&self.node, &found.node) {
            (
                Node::File { size, content, .. },
                Node::File {
                    size: found_size,
                    content: found_content,
                    ..
                },
            ) => {
                note(Attribute::Size, size != found_size);
                note(Attribute::Content, content != found_content);
            }
            (
                Node::Symlink { target },
                Node::Symlink {
                    target: found_target,
                },
            ) => {
                note(Attribute::Target, target != found_target);
            }
            (Node::CharDevice(device), Node::CharDevice(found_device))
            | (Node::BlockDevice(device), Node::BlockDevice(found_device)) => {
                note(Attribute::Device, device != found_device);
            }
            _ => {}
        }
        changed
    }
}
