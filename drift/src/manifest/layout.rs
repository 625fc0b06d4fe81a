//! The outer form of the file: preamble, header, and where everything lies.

use std::ops::Range;

use crate::entry::AttributeSet;
use crate::manifest::index::Index;
use crate::manifest::record::put_bytes;
use crate::manifest::times;
use crate::manifest::{Identity, ManifestError, Source};
use crate::rules::Rules;
use crate::{Blake3, Sha256, TreePath, varint};

/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 2;

/// The body is hashed, read and cached in blocks of this many bytes; the last may be shorter.
pub const BLOCK_BYTES: usize = 64 * 1024;

pub(super) const MAGIC: &[u8; 8] = b"drftmark";
pub(super) const PREAMBLE_BYTES: usize = 40;

/// An index of all blocks that there can be, of long paths, with the largest of rules; a hostile length must not make us
/// allocate more.
pub(super) const MAX_HEADER_BYTES: u64 = 8 * 1024 * 1024;
/// 30 million entries; its table, which is held in memory, is then 2 MiB.
pub(super) const MAX_BODY_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// More mount points than an image's fstab has.
pub(super) const MAX_FILESYSTEMS: usize = 256;

/// What is known of a manifest before any entry is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// How many entries there are.
    pub entry_count: u64,
    /// How many of them are regular files whose content is held.
    pub file_count: u64,
    /// The sum of their sizes, in bytes.
    pub content_bytes: u64,
    /// Attributes that this build does not hold (a tar carries no flags, say): never compared.
    pub not_held: AttributeSet,
    /// The image's other local file systems, by mount point; the root is not among them.
    pub filesystems: Vec<Filesystem>,
    /// What may change.
    pub rules: Rules,
    pub(super) sections: Sections,
    pub(super) index: Index,
}

/// A local file system of the image, mounted below its root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mount_point: TreePath,
    /// Its type, such as `ext4`; at most 64 bytes.
    pub kind: String,
}

/// Lengths in bytes of the parts of the body, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sections {
    pub(super) entries: u64,
    pub(super) xattrs: u64,
    pub(super) sha256: u64,
    pub(super) packages: u64,
}

impl Sections {
    pub(super) fn xattrs_start(&self) -> u64 {
        self.entries
    }

    pub(super) fn sha256_start(&self) -> u64 {
        self.entries + self.xattrs
    }

    pub(super) fn packages_start(&self) -> u64 {
        self.sha256_start() + self.sha256
    }

    fn total(&self) -> Option<u64> {
        self.entries
            .checked_add(self.xattrs)?
            .checked_add(self.sha256)?
            .checked_add(self.packages)
    }
}

/// Where the body lies in the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) start: u64,
    pub(super) length: u64,
}

pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) body: Body,
    pub(super) table: Vec<Blake3>,
    /// Where the side section begins and ends.
    pub(super) side: Range<u64>,
    pub(super) identity: Identity,
}

pub(super) fn preamble(header_bytes: u64, body_bytes: u64) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&header_bytes.to_le_bytes());
    bytes[24..32].copy_from_slice(&body_bytes.to_le_bytes());
    bytes
}

pub(super) fn identity(preamble: &[u8], header: &[u8], table: &[u8]) -> Identity {
    let whole = [preamble, header, table].concat();
    Identity {
        sha256: Sha256::of(&whole),
        blake3: Blake3::of(&whole),
    }
}

/// Reads preamble, header and table; every length is checked against the source before anything is allocated.
pub(super) fn open(source: &impl Source) -> Result<Opened, ManifestError> {
    let length = source.length().map_err(ManifestError::Read)?;
    let mut start = [0; PREAMBLE_BYTES];
    if length < PREAMBLE_BYTES as u64 {
        return Err(ManifestError::Magic);
    }
    source.read_at(0, &mut start).map_err(ManifestError::Read)?;
    let (header_bytes, body_bytes) = read_preamble(&start)?;
    let blocks = body_bytes.div_ceil(BLOCK_BYTES as u64);
    let body = Body {
        start: PREAMBLE_BYTES as u64 + header_bytes,
        length: body_bytes,
    };
    let table_start = body.start + body_bytes;
    let side_start = table_start + blocks * 32;
    if side_start > length {
        return Err(ManifestError::Malformed("it is cut short"));
    }
    let read = |offset, bytes: u64| {
        let mut buffer = vec![0; bytes as usize];
        source
            .read_at(offset, &mut buffer)
            .map(|()| buffer)
            .map_err(ManifestError::Read)
    };
    let header_raw = read(PREAMBLE_BYTES as u64, header_bytes)?;
    let table_raw = read(table_start, blocks * 32)?;
    let header = Header::decode(&header_raw)?;
    if header.sections.total() != Some(body_bytes) {
        return Err(ManifestError::Malformed(
            "sections do not add up to the body",
        ));
    }
    times::check_length(source, side_start, length, header.file_count)?;
    let table = table_raw
        .as_chunks()
        .0
        .iter()
        .map(|&digest| Blake3::from_bytes(digest))
        .collect();
    Ok(Opened {
        header,
        body,
        table,
        side: side_start..length,
        identity: identity(&start, &header_raw, &table_raw),
    })
}

fn read_preamble(bytes: &[u8; PREAMBLE_BYTES]) -> Result<(u64, u64), ManifestError> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    if &bytes[..8] != MAGIC {
        return Err(ManifestError::Magic);
    }
    if u32_at(8) != VERSION {
        return Err(ManifestError::Version(u32_at(8)));
    }
    let (header_bytes, body_bytes) = (u64_at(16), u64_at(24));
    if u32_at(12) as usize != BLOCK_BYTES || bytes[32..] != [0; 8] {
        return Err(ManifestError::Malformed("preamble"));
    }
    if header_bytes > MAX_HEADER_BYTES || body_bytes > MAX_BODY_BYTES {
        return Err(ManifestError::Malformed(
            "it claims to be larger than a manifest can be",
        ));
    }
    Ok((header_bytes, body_bytes))
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [
            self.file_count,
            self.content_bytes,
            u64::from(self.not_held.bits()),
            self.sections.entries,
            self.sections.xattrs,
            self.sections.packages,
        ];
        for number in numbers {
            varint::put(&mut out, number);
        }
        self.index.encode(&mut out);
        varint::put(&mut out, self.filesystems.len() as u64);
        for filesystem in &self.filesystems {
            for bytes in [
                filesystem.mount_point.as_bytes(),
                filesystem.kind.as_bytes(),
            ] {
                put_bytes(&mut out, bytes);
            }
        }
        self.rules.encode(&mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        const BAD: ManifestError = ManifestError::Malformed("header");
        let mut rest = bytes;
        let mut number = || varint::take(&mut rest).ok_or(BAD);
        let (file_count, content_bytes) = (number()?, number()?);
        let not_held = u16::try_from(number()?)
            .ok()
            .and_then(AttributeSet::from_bits)
            .ok_or(BAD)?;
        let (entries, xattrs, packages) = (number()?, number()?, number()?);
        // Before anything is made of it: a body has no more.
        if entries > MAX_BODY_BYTES {
            return Err(BAD);
        }
        let blocks = entries.div_ceil(BLOCK_BYTES as u64);
        let index = Index::decode(&mut rest, blocks).ok_or(ManifestError::Malformed("index"))?;
        let (entry_count, content_count) = index.counts();
        if file_count > entry_count || content_count > file_count {
            return Err(ManifestError::Malformed("counts"));
        }
        let sections = Sections {
            entries,
            xattrs,
            sha256: content_count * 32,
            packages,
        };
        let mut number = || varint::take(&mut rest).ok_or(BAD);
        let count = number()?;
        if count > MAX_FILESYSTEMS as u64 {
            return Err(ManifestError::Malformed("too many file systems"));
        }
        let mut filesystems = Vec::new();
        for _ in 0..count {
            let mount_point = take_bytes(&mut rest, TreePath::MAX_BYTES).ok_or(BAD)?;
            let kind = take_bytes(&mut rest, Filesystem::MAX_KIND_BYTES).ok_or(BAD)?;
            filesystems.push(Filesystem {
                mount_point: canonical_path(mount_point).ok_or(BAD)?,
                kind: std::str::from_utf8(kind).map_err(|_| BAD)?.to_owned(),
            });
        }
        let sorted = filesystems.is_sorted_by(|a, b| a.mount_point < b.mount_point);
        if !sorted
            || filesystems
                .iter()
                .any(|filesystem| filesystem.mount_point.is_root())
        {
            return Err(ManifestError::Malformed("file systems"));
        }
        let rules = Rules::decode(rest).map_err(ManifestError::Rules)?;
        Ok(Header {
            entry_count,
            file_count,
            content_bytes,
            not_held,
            filesystems,
            rules,
            sections,
            index,
        })
    }
}

impl Filesystem {
    pub(super) const MAX_KIND_BYTES: usize = 64;
}

/// A length and as many bytes; none past `limit` or the end.
pub(super) fn take_bytes<'a>(rest: &mut &'a [u8], limit: usize) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take(rest)?)
        .ok()
        .filter(|&length| length <= limit)?;
    rest.split_off(..length)
}

/// A path without a leading `/`, as the manifest stores it.
pub(super) fn canonical_path(bytes: &[u8]) -> Option<TreePath> {
    if bytes.first() == Some(&b'/') {
        None
    } else {
        TreePath::new(bytes).ok()
    }
}
