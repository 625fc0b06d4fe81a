//! What many entries have alike. A block has each likeness once, where the first entry of it is.
//!
//! ```text
//! tag         1 byte: kind 1..=11, with bits for attributes, flags, links, and "owner and group are 0"
//! mode        2 bytes, little endian
//! owner       varint uid, varint gid, unless both are 0
//! attributes  varint offset of the set in the attribute section
//! flags       varint, not 0
//! ```

use crate::entry::{Entry, FileFlags, Measurement, Node};
use crate::manifest::record::{take, take_u32};
use crate::varint;

const HAS_XATTRS: u8 = 1 << 4;
const HAS_FLAGS: u8 = 1 << 5;
const HAS_LINKS: u8 = 1 << 6;
const OWNED_BY_ROOT: u8 = 1 << 7;
const KIND: u8 = 0x0f;

/// Everything of an entry that others have too: all but path, content, target, device numbers and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Likeness {
    pub(super) kind: RecordKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Of its set, in the attribute section.
    pub(super) xattrs_at: Option<u64>,
    pub(super) flags: FileFlags,
    pub(super) is_linked: bool,
}

/// What follows the path in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// A file whose content is new in this block.
    File = 1,
    SelfFile,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
    /// The same as `File`, with what fs-verity measured behind it.
    MeasuredBySha256,
    MeasuredBySha512,
    /// A file whose content, measurement and all, is that of one before it in this block.
    KnownFile,
}

impl Likeness {
    /// That of an entry; a file's content is taken to be new.
    pub(super) fn of(entry: &Entry, xattrs_at: Option<u64>) -> Self {
        Likeness {
            kind: RecordKind::of(&entry.node),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            xattrs_at,
            flags: entry.flags,
            is_linked: entry.links.is_some(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let root_owned = self.uid == 0 && self.gid == 0;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            self.kind as u8
                | bit(self.xattrs_at.is_some(), HAS_XATTRS)
                | bit(!self.flags.is_none(), HAS_FLAGS)
                | bit(self.is_linked, HAS_LINKS)
                | bit(root_owned, OWNED_BY_ROOT),
        );
        out.extend_from_slice(&self.mode.to_le_bytes());
        if !root_owned {
            varint::put(out, u64::from(self.uid));
            varint::put(out, u64::from(self.gid));
        }
        if let Some(offset) = self.xattrs_at {
            varint::put(out, offset);
        }
        if !self.flags.is_none() {
            varint::put(out, u64::from(self.flags.bits()));
        }
    }

    pub(super) fn decode(rest: &mut &[u8]) -> Option<Self> {
        let tag = take::<1>(rest)?[0];
        let kind = RecordKind::from_code(tag & KIND)?;
        let mode = u16::from_le_bytes(take(rest)?);
        let (uid, gid) = match tag & OWNED_BY_ROOT {
            0 => (take_u32(rest)?, take_u32(rest)?),
            _ => (0, 0),
        };
        let xattrs_at = match tag & HAS_XATTRS {
            0 => None,
            _ => Some(varint::take(rest)?),
        };
        let flags = match tag & HAS_FLAGS {
            0 => FileFlags::NONE,
            _ => FileFlags::from_held(take_u32(rest)?).filter(|flags| !flags.is_none())?,
        };
        let likeness = Likeness {
            kind,
            mode,
            uid,
            gid,
            xattrs_at,
            flags,
            is_linked: tag & HAS_LINKS != 0,
        };
        let owner_is_told = tag & OWNED_BY_ROOT != 0 || (uid, gid) != (0, 0);
        (owner_is_told && likeness.is_possible()).then_some(likeness)
    }

    /// Directories have one name, and the kernel measures only what has the flag.
    fn is_possible(&self) -> bool {
        let links_fit = !self.is_linked || self.kind != RecordKind::Directory;
        let measured = matches!(
            self.kind,
            RecordKind::MeasuredBySha256 | RecordKind::MeasuredBySha512
        );
        self.mode <= 0o7777 && links_fit && (!measured || self.flags.has_verity())
    }
}

impl RecordKind {
    const ALL: [RecordKind; 11] = [
        RecordKind::File,
        RecordKind::SelfFile,
        RecordKind::Directory,
        RecordKind::Symlink,
        RecordKind::CharDevice,
        RecordKind::BlockDevice,
        RecordKind::Fifo,
        RecordKind::Socket,
        RecordKind::MeasuredBySha256,
        RecordKind::MeasuredBySha512,
        RecordKind::KnownFile,
    ];

    fn of(node: &Node) -> Self {
        match node {
            Node::File { verity, .. } => match verity.as_deref() {
                None => RecordKind::File,
                Some(Measurement::Sha256(_)) => RecordKind::MeasuredBySha256,
                Some(Measurement::Sha512(_)) => RecordKind::MeasuredBySha512,
            },
            Node::SelfFile => RecordKind::SelfFile,
            Node::Directory => RecordKind::Directory,
            Node::Symlink { .. } => RecordKind::Symlink,
            Node::CharDevice(_) => RecordKind::CharDevice,
            Node::BlockDevice(_) => RecordKind::BlockDevice,
            Node::Fifo => RecordKind::Fifo,
            Node::Socket => RecordKind::Socket,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}
