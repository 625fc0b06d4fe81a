//! One entry as bytes. Canonical: one entry has one encoding, and the decoder refuses every other.
//!
//! ```text
//! tag        1 byte: kind 1..=10, with bits for attributes, flags, links, and "owner and group are 0"
//! path       varint bytes shared with the path before it in this block, varint length, the rest
//! mode       2 bytes, little endian
//! owner      varint uid, varint gid, unless both are 0
//! by kind    file: varint size, 32 bytes BLAKE3, and its fs-verity measurement where the kind says so; symlink: varint length, target; device: varint major, varint minor
//! attributes varint offset of the set in the attribute section
//! flags      varint, not 0
//! links      varint length of the group's least path (0: this one), the path, varint names outside
//! ```

use crate::entry::{Device, Entry, FileFlags, Kind, Links, Measurement, Node, Xattrs};
use crate::manifest::ManifestError;
use crate::manifest::layout::{canonical_path, take_bytes};
use crate::path::shared_prefix;
use crate::{Blake3, TreePath, varint};

const HAS_XATTRS: u8 = 1 << 4;
const HAS_FLAGS: u8 = 1 << 5;
const HAS_LINKS: u8 = 1 << 6;
const OWNED_BY_ROOT: u8 = 1 << 7;
const KIND: u8 = 0x0f;
const FILE: u8 = 1;
const SELF_FILE: u8 = 2;
/// Regular files whose fs-verity measurement is held, which follows their content.
const MEASURED_BY_SHA256: u8 = 9;
const MEASURED_BY_SHA512: u8 = 10;

/// No link target is longer: `PATH_MAX` of the kernel.
pub(super) const MAX_TARGET_BYTES: usize = 4096;

/// A record whose attribute set is still an offset.
pub(super) struct Record {
    pub(super) entry: Entry,
    pub(super) xattrs_at: Option<u64>,
}

/// Appends the record of `entry`; `before` is the path before it in the same block, if any.
pub(super) fn encode(
    out: &mut Vec<u8>,
    entry: &Entry,
    before: Option<&TreePath>,
    xattrs_at: Option<u64>,
) {
    let root_owned = entry.uid == 0 && entry.gid == 0;
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        kind_code(&entry.node)
            | bit(xattrs_at.is_some(), HAS_XATTRS)
            | bit(!entry.flags.is_none(), HAS_FLAGS)
            | bit(entry.links.is_some(), HAS_LINKS)
            | bit(root_owned, OWNED_BY_ROOT),
    );
    let path = entry.path.as_bytes();
    let shared = before.map_or(0, |before| shared_prefix(before.as_bytes(), path));
    varint::put(out, shared as u64);
    put_bytes(out, &path[shared..]);
    out.extend_from_slice(&entry.mode.to_le_bytes());
    if !root_owned {
        varint::put(out, u64::from(entry.uid));
        varint::put(out, u64::from(entry.gid));
    }
    match &entry.node {
        Node::File {
            size,
            content,
            verity,
        } => {
            varint::put(out, *size);
            out.extend_from_slice(content.as_bytes());
            if let Some(measurement) = verity {
                out.extend_from_slice(measurement.as_bytes());
            }
        }
        Node::Symlink { target } => put_bytes(out, target),
        Node::CharDevice(device) | Node::BlockDevice(device) => {
            varint::put(out, u64::from(device.major));
            varint::put(out, u64::from(device.minor));
        }
        Node::SelfFile | Node::Directory | Node::Fifo | Node::Socket => {}
    }
    if let Some(offset) = xattrs_at {
        varint::put(out, offset);
    }
    if !entry.flags.is_none() {
        varint::put(out, u64::from(entry.flags.bits()));
    }
    if let Some(links) = &entry.links {
        let least = if links.least == entry.path {
            &[]
        } else {
            links.least.as_bytes()
        };
        put_bytes(out, least);
        varint::put(out, u64::from(links.outside));
    }
}

/// Takes one record from the front of `rest`.
pub(super) fn decode(rest: &mut &[u8], before: Option<&TreePath>) -> Result<Record, ManifestError> {
    decode_record(rest, before).ok_or(ManifestError::Malformed("a record"))
}

fn decode_record(rest: &mut &[u8], before: Option<&TreePath>) -> Option<Record> {
    let tag = take::<1>(rest)?[0];
    let path = decode_path(rest, before)?;
    let mode = u16::from_le_bytes(take(rest)?);
    if mode > 0o7777 {
        return None;
    }
    let (uid, gid) = decode_owner(rest, tag)?;
    let node = decode_node(rest, tag & KIND)?;
    let xattrs_at = if tag & HAS_XATTRS != 0 {
        Some(varint::take(rest)?)
    } else {
        None
    };
    let flags = decode_flags(rest, tag)?;
    let links = decode_links(rest, tag, &path)?;
    if links.is_some() && node.kind() == Kind::Directory {
        return None;
    }
    // The kernel measures only what has the flag.
    if matches!(tag & KIND, MEASURED_BY_SHA256 | MEASURED_BY_SHA512) && !flags.has_verity() {
        return None;
    }
    Some(Record {
        entry: Entry {
            path,
            mode,
            uid,
            gid,
            node,
            xattrs: Xattrs::NONE,
            flags,
            links,
        },
        xattrs_at,
    })
}

fn decode_path(rest: &mut &[u8], before: Option<&TreePath>) -> Option<TreePath> {
    let shared = usize::try_from(varint::take(rest)?).ok()?;
    let suffix = take_bytes(rest, TreePath::MAX_BYTES)?;
    let before_bytes = before.map_or(&[][..], TreePath::as_bytes);
    let prefix = before_bytes.get(..shared)?;
    let path = canonical_path(&[prefix, suffix].concat())?;
    let in_order = before.is_none_or(|before| *before < path);
    (in_order && shared_prefix(before_bytes, path.as_bytes()) == shared).then_some(path)
}

fn decode_owner(rest: &mut &[u8], tag: u8) -> Option<(u32, u32)> {
    if tag & OWNED_BY_ROOT != 0 {
        return Some((0, 0));
    }
    let owner = (take_u32(rest)?, take_u32(rest)?);
    (owner != (0, 0)).then_some(owner)
}

fn decode_node(rest: &mut &[u8], code: u8) -> Option<Node> {
    Some(match code {
        FILE => Node::file(varint::take(rest)?, Blake3::from_bytes(take(rest)?)),
        MEASURED_BY_SHA256 | MEASURED_BY_SHA512 => decode_measured(rest, code)?,
        SELF_FILE => Node::SelfFile,
        3 => Node::Directory,
        4 => Node::Symlink {
            target: take_bytes(rest, MAX_TARGET_BYTES)?.into(),
        },
        5 => Node::CharDevice(take_device(rest)?),
        6 => Node::BlockDevice(take_device(rest)?),
        7 => Node::Fifo,
        8 => Node::Socket,
        _ => return None,
    })
}

/// Apart, as most files are not measured.
#[cold]
fn decode_measured(rest: &mut &[u8], code: u8) -> Option<Node> {
    let (size, content) = (varint::take(rest)?, Blake3::from_bytes(take(rest)?));
    let measurement = match code {
        MEASURED_BY_SHA256 => Measurement::Sha256(take(rest)?),
        _ => Measurement::Sha512(take(rest)?),
    };
    Some(Node::File {
        size,
        content,
        verity: Some(Box::new(measurement)),
    })
}

fn decode_flags(rest: &mut &[u8], tag: u8) -> Option<FileFlags> {
    if tag & HAS_FLAGS == 0 {
        return Some(FileFlags::NONE);
    }
    FileFlags::from_held(take_u32(rest)?).filter(|flags| !flags.is_none())
}

fn decode_links(rest: &mut &[u8], tag: u8, path: &TreePath) -> Option<Option<Links>> {
    if tag & HAS_LINKS == 0 {
        return Some(None);
    }
    let least = match take_bytes(rest, TreePath::MAX_BYTES)? {
        b"" => path.clone(),
        bytes => canonical_path(bytes).filter(|least| least < path)?,
    };
    Some(Some(Links {
        least,
        outside: take_u32(rest)?,
    }))
}

fn kind_code(node: &Node) -> u8 {
    match node {
        Node::File { verity, .. } => match verity.as_deref() {
            None => FILE,
            Some(Measurement::Sha256(_)) => MEASURED_BY_SHA256,
            Some(Measurement::Sha512(_)) => MEASURED_BY_SHA512,
        },
        Node::SelfFile => SELF_FILE,
        Node::Directory => 3,
        Node::Symlink { .. } => 4,
        Node::CharDevice(_) => 5,
        Node::BlockDevice(_) => 6,
        Node::Fifo => 7,
        Node::Socket => 8,
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(varint::take(rest)?).ok()
}

fn take_device(rest: &mut &[u8]) -> Option<Device> {
    Some(Device {
        major: take_u32(rest)?,
        minor: take_u32(rest)?,
    })
}
