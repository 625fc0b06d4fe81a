//! Entries as bytes, each led by those before it in the same block. Canonical: one entry has one encoding there.
//!
//! ```text
//! likeness   varint: its number in this block; the next number to be given is followed by a new likeness
//! path       varint bytes shared with the path before it, span
//! by kind    file: content; symlink: span, its target; device: varint major, varint minor
//! links      of a linked likeness: varint bytes that the group's least path shares with this one, span; varint names outside
//!
//! span       varint 2 n and n bytes that are no span of this block yet; or varint 2 n + 1: the span that n others followed
//! content    varint size, 32 bytes BLAKE3, and its fs-verity measurement where the kind says so; of a known file: varint, how
//!            many others followed the content that it has
//! ```
//!
//! [`Packer`] writes these, [`super::unpacker`] reads them. What is numbered begins again in each block.

use std::collections::HashMap;

use crate::entry::{Device, Entry, Measurement, Node};
use crate::manifest::likeness::{Likeness, RecordKind};
use crate::path::shared_prefix;
use crate::{Blake3, Sha256, varint};

/// No link target is longer: `PATH_MAX` of the kernel.
pub(super) const MAX_TARGET_BYTES: usize = 4096;

/// Writes records that follow each other.
#[derive(Debug, Default)]
pub(super) struct Packer {
    before: Vec<u8>,
    likenesses: HashMap<Likeness, u64>,
    spans: HashMap<Box<[u8]>, u64>,
    contents: HashMap<Content, u64>,
}

/// What a file holds. Files of one content have one SHA-256; were it otherwise, two contents would be written.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    size: u64,
    blake3: Blake3,
    verity: Option<Measurement>,
    sha256: Option<Sha256>,
}

/// What a record says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// There is none, or one before it has the same.
    Nothing,
    /// It is the first of the block to have it.
    New,
}

impl Packer {
    /// Appends the record of the next entry in path order.
    pub(super) fn pack(
        &mut self,
        out: &mut Vec<u8>,
        entry: &Entry,
        sha256: Option<Sha256>,
        xattrs_at: Option<u64>,
    ) -> Said {
        let mut likeness = Likeness::of(entry, xattrs_at);
        let content = content_of(&entry.node, sha256);
        let known = content
            .as_ref()
            .and_then(|content| self.contents.get(content))
            .map(|number| self.contents.len() as u64 - 1 - number);
        if known.is_some() {
            likeness.kind = RecordKind::KnownFile;
        }
        self.likeness(out, likeness);
        let path = entry.path.as_bytes();
        let shared = shared_prefix(&self.before, path);
        varint::put(out, shared as u64);
        self.span(out, &path[shared..]);
        self.before.truncate(shared);
        self.before.extend_from_slice(&path[shared..]);
        match (&entry.node, known) {
            (Node::File { .. }, Some(followed_by)) => varint::put(out, followed_by),
            (Node::File { .. }, None) => put_content(out, &entry.node),
            (Node::Symlink { target }, _) => self.span(out, target),
            (Node::CharDevice(device) | Node::BlockDevice(device), _) => put_device(out, device),
            (Node::SelfFile | Node::Directory | Node::Fifo | Node::Socket, _) => {}
        }
        if let Some(links) = &entry.links {
            let least = links.least.as_bytes();
            let shared = shared_prefix(path, least);
            varint::put(out, shared as u64);
            self.span(out, &least[shared..]);
            varint::put(out, u64::from(links.outside));
        }
        match content.filter(|_| known.is_none()) {
            Some(new) => {
                self.contents.insert(new, self.contents.len() as u64);
                Said::New
            }
            None => Said::Nothing,
        }
    }

    fn likeness(&mut self, out: &mut Vec<u8>, likeness: Likeness) {
        let next = self.likenesses.len() as u64;
        let number = *self.likenesses.entry(likeness).or_insert(next);
        varint::put(out, number);
        if number == next {
            likeness.encode(out);
        }
    }

    fn span(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let next = self.spans.len() as u64;
        if let Some(number) = self.spans.get(bytes) {
            let followed_by = next - 1 - number;
            varint::put(out, followed_by << 1 | 1);
        } else {
            self.spans.insert(bytes.into(), next);
            varint::put(out, (bytes.len() as u64) << 1);
            out.extend_from_slice(bytes);
        }
    }
}

fn content_of(node: &Node, sha256: Option<Sha256>) -> Option<Content> {
    match node {
        Node::File {
            size,
            content,
            verity,
        } => Some(Content {
            size: *size,
            blake3: *content,
            verity: verity.as_deref().copied(),
            sha256,
        }),
        _ => None,
    }
}

fn put_content(out: &mut Vec<u8>, node: &Node) {
    if let Node::File {
        size,
        content,
        verity,
    } = node
    {
        varint::put(out, *size);
        out.extend_from_slice(content.as_bytes());
        if let Some(measurement) = verity {
            out.extend_from_slice(measurement.as_bytes());
        }
    }
}

fn put_device(out: &mut Vec<u8>, device: &Device) {
    varint::put(out, u64::from(device.major));
    varint::put(out, u64::from(device.minor));
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

pub(super) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(varint::take(rest)?).ok()
}
