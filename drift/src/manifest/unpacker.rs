//! Records in; out come entries, and what is numbered among them.

use std::cmp::Ordering;

use crate::entry::{Device, Entry, Links, Measurement, Node, Xattrs};
use crate::manifest::layout::canonical_path;
use crate::manifest::likeness::{Likeness, RecordKind};
use crate::manifest::record::{MAX_TARGET_BYTES, take, take_u32};
use crate::path::{Trail, shared_prefix};
use crate::{Blake3, TreePath, varint};

/// Reads records that follow each other. What it remembers of them is their places, a few bytes each.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    trail: Trail,
    likenesses: Vec<Likeness>,
    /// Where each span begins, and its length.
    spans: Vec<(u32, u32)>,
    /// Where each content begins, and of what kind it is.
    contents: Vec<(u32, RecordKind)>,
}

/// A record but for its path; its attribute set is still an offset.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) likeness: Likeness,
    pub(super) node: Node,
    pub(super) links: Option<Links>,
    /// The number of a file's content.
    pub(super) content: Option<u32>,
}

impl Record {
    pub(super) fn into_entry(self, path: TreePath, xattrs: Xattrs) -> Entry {
        let Likeness {
            mode,
            uid,
            gid,
            flags,
            ..
        } = self.likeness;
        Entry {
            path,
            mode,
            uid,
            gid,
            node: self.node,
            xattrs,
            flags,
            links: self.links,
        }
    }
}

impl Unpacker {
    /// Begins another block.
    pub(super) fn restart(&mut self) {
        self.trail.restart();
        self.likenesses.clear();
        self.spans.clear();
        self.contents.clear();
    }

    /// The path of the record that was read last.
    pub(super) fn path(&self) -> TreePath {
        self.trail.path()
    }

    /// The order of that path and another.
    pub(super) fn compare(&self, path: &TreePath) -> Ordering {
        self.trail.compare(path)
    }

    /// Whether that path is this one.
    pub(super) fn is_at(&self, path: &TreePath) -> bool {
        self.trail.is_at(path)
    }

    /// How many contents there were.
    pub(super) fn content_count(&self) -> usize {
        self.contents.len()
    }

    /// Reads the record at `at` of a block, and goes on behind it. None where it breaks the format.
    pub(super) fn next(&mut self, block: &[u8], at: &mut usize) -> Option<Record> {
        let mut rest = block.get(*at..)?;
        let likeness = self.likeness(&mut rest)?;
        let shared = take_length(&mut rest)?;
        let span = self.span(block, &mut rest)?;
        self.trail.go_on(shared, span)?;
        let mut content = None;
        let node = match likeness.kind {
            RecordKind::File | RecordKind::MeasuredBySha256 | RecordKind::MeasuredBySha512 => {
                content = Some(self.contents.len() as u32);
                self.contents.push((place(block, rest)?, likeness.kind));
                take_content(&mut rest, likeness.kind)?
            }
            RecordKind::KnownFile => {
                let number = nth_last(self.contents.len(), take_length(&mut rest)?)?;
                content = Some(number as u32);
                self.known(block, &likeness, number)?
            }
            RecordKind::Symlink => {
                let target = self.span(block, &mut rest)?;
                if target.len() > MAX_TARGET_BYTES {
                    return None;
                }
                Node::Symlink {
                    target: target.into(),
                }
            }
            RecordKind::CharDevice => Node::CharDevice(take_device(&mut rest)?),
            RecordKind::BlockDevice => Node::BlockDevice(take_device(&mut rest)?),
            RecordKind::SelfFile => Node::SelfFile,
            RecordKind::Directory => Node::Directory,
            RecordKind::Fifo => Node::Fifo,
            RecordKind::Socket => Node::Socket,
        };
        let links = match likeness.is_linked {
            true => Some(self.links(block, &mut rest)?),
            false => None,
        };
        *at = block.len() - rest.len();
        Some(Record {
            likeness,
            node,
            links,
            content,
        })
    }

    fn likeness(&mut self, rest: &mut &[u8]) -> Option<Likeness> {
        let number = take_length(rest)?;
        if number == self.likenesses.len() {
            self.likenesses.push(Likeness::decode(rest)?);
        }
        self.likenesses.get(number).copied()
    }

    fn span<'b>(&mut self, block: &'b [u8], rest: &mut &'b [u8]) -> Option<&'b [u8]> {
        let code = take_length(rest)?;
        if code & 1 == 0 {
            let start = place(block, rest)?;
            let bytes = rest.split_off(..code >> 1)?;
            self.spans.push((start, bytes.len() as u32));
            return Some(bytes);
        }
        let (start, length) = self.spans[nth_last(self.spans.len(), code >> 1)?];
        block[start as usize..].get(..length as usize)
    }

    fn known(&self, block: &[u8], likeness: &Likeness, number: usize) -> Option<Node> {
        let (at, kind) = self.contents[number];
        let node = take_content(&mut &block[at as usize..], kind)?;
        let is_measured = kind != RecordKind::File;
        (!is_measured || likeness.flags.has_verity()).then_some(node)
    }

    /// Apart, as most files have one name.
    #[cold]
    fn links<'b>(&mut self, block: &'b [u8], rest: &mut &'b [u8]) -> Option<Links> {
        let path = self.trail.path();
        let shared = take_length(rest)?;
        let span = self.span(block, rest)?;
        let least = [path.as_bytes().get(..shared)?, span].concat();
        let is_canonical = shared_prefix(path.as_bytes(), &least) == shared;
        let least = canonical_path(&least).filter(|least| is_canonical && *least <= path)?;
        let outside = take_u32(rest)?;
        (!least.is_root()).then_some(Links { least, outside })
    }
}

/// Where in a block what is left of it begins.
fn place(block: &[u8], rest: &[u8]) -> Option<u32> {
    u32::try_from(block.len() - rest.len()).ok()
}

/// The place of the one that `followed_by` others followed.
fn nth_last(count: usize, followed_by: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_sub(followed_by)
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint::take(rest)?).ok()
}

fn take_content(rest: &mut &[u8], kind: RecordKind) -> Option<Node> {
    let (size, content) = (varint::take(rest)?, Blake3::from_bytes(take(rest)?));
    match kind {
        RecordKind::MeasuredBySha256 => {
            take_measured(size, content, Measurement::Sha256(take(rest)?))
        }
        RecordKind::MeasuredBySha512 => {
            take_measured(size, content, Measurement::Sha512(take(rest)?))
        }
        _ => Some(Node::file(size, content)),
    }
}

/// Apart, as most files are not measured.
#[cold]
fn take_measured(size: u64, content: Blake3, measurement: Measurement) -> Option<Node> {
    Some(Node::File {
        size,
        content,
        verity: Some(Box::new(measurement)),
    })
}

fn take_device(rest: &mut &[u8]) -> Option<Device> {
    Some(Device {
        major: take_u32(rest)?,
        minor: take_u32(rest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root, a directory of root's with mode 0755.
    const ROOT: &[u8] = &[0, 0x83, 0xed, 0x01, 0, 0];

    /// Whether all of it is records.
    fn is_read(records: &[&[u8]]) -> bool {
        let block = records.concat();
        let (mut unpacker, mut at) = (Unpacker::default(), 0);
        while at < block.len() {
            if unpacker.next(&block, &mut at).is_none() {
                return false;
            }
        }
        true
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let fifo = &[1, 0x87, 0xa4, 0x01, 0, 2, b'b'][..];
        let content = &[5; 33][..];
        let file = [&[1, 0x81, 0xa4, 0x01, 0, 2, b'b'][..], content].concat();
        assert!(is_read(&[ROOT]));
        assert!(is_read(&[ROOT, fifo, &[1, 0, 2, b'c']]));
        assert!(is_read(&[ROOT, &[0, 0, 2, b'a'], &[0, 1, 4, b'/', b'b']]));
        // The span `b` again, and the content again.
        assert!(is_read(&[
            ROOT,
            &file,
            &[0, 0, 2, b'c'],
            &[2, 0x8b, 0, 0, 1, 4, b'/', b'b', 0]
        ]));
        for (what, records) in [
            ("a likeness beyond the next", &[ROOT, &[2, 0, 2, b'a']][..]),
            ("a likeness without a kind", &[&[0, 0x80, 0, 0, 0, 0]]),
            ("a likeness of an unknown kind", &[&[0, 0x8c, 0, 0, 0, 0]]),
            (
                "a mode of more than twelve bits",
                &[&[0, 0x83, 0, 0x10, 0, 0]],
            ),
            (
                "an owner that is told and is root",
                &[&[0, 0x03, 0, 0, 0, 0, 0, 0]],
            ),
            ("flags that are told and none", &[&[0, 0xa3, 0, 0, 0, 0, 0]]),
            ("flags that are not held", &[&[0, 0xa3, 0, 0, 1, 0, 0]]),
            ("a directory with links", &[&[0, 0xc3, 0, 0, 0, 0, 0, 0, 0]]),
            ("a first path that shares", &[&[0, 0x83, 0, 0, 1, 0]]),
            (
                "a path that shares less than it does",
                &[ROOT, &[0, 0, 4, b'a', b'b'], &[0, 0, 4, b'a', b'c']],
            ),
            ("a path twice", &[ROOT, &[0, 0, 2, b'a'], &[0, 1, 0]]),
            (
                "a path out of order",
                &[ROOT, &[0, 0, 2, b'b'], &[0, 0, 2, b'a']],
            ),
            ("an absolute path", &[ROOT, &[0, 0, 4, b'/', b'a']]),
            ("a span before the first", &[&[0, 0x83, 0, 0, 0, 1]]),
            (
                "a span longer than the block",
                &[ROOT, &[0, 0, 6, b'a', b'b']],
            ),
            (
                "a content before the first",
                &[ROOT, &[1, 0x8b, 0, 0, 0, 2, b'a', 0]],
            ),
            (
                "a content cut short",
                &[ROOT, &[1, 0x81, 0, 0, 0, 2, b'a', 5, 5, 5]],
            ),
            (
                "a group whose least is later",
                &[ROOT, &[1, 0xc7, 0, 0, 0, 2, b'a', 0, 2, b'b', 0]],
            ),
            (
                "a group whose least is the root",
                &[ROOT, &[1, 0xc7, 0, 0, 0, 2, b'a', 0, 0, 0]],
            ),
            (
                "a least that shares less than it does",
                &[
                    ROOT,
                    &[1, 0xc7, 0, 0, 0, 4, b'a', b'b', 0, 4, b'a', b'a', 0],
                ],
            ),
            ("nothing", &[ROOT, &[0]]),
        ] {
            assert!(!is_read(records), "{what}");
        }
    }

    #[test]
    fn a_measured_content_is_only_that_of_files_with_fs_verity() {
        let verity = [0x80, 0x80, 0x40];
        let measured = [
            &[1, 0xa9, 0xa4, 0x01][..],
            &verity,
            &[0, 2, b'b', 5],
            &[7; 64],
        ]
        .concat();
        let again = |tag: u8, flags: &[u8]| {
            let likeness = [&[2, tag, 0xa4, 0x01][..], flags].concat();
            [&likeness[..], &[0, 2, b'c', 0]].concat()
        };
        assert!(is_read(&[ROOT, &measured, &again(0xab, &verity)]));
        assert!(!is_read(&[ROOT, &measured, &again(0x8b, &[])]));
    }
}
