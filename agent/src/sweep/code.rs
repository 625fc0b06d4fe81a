//! A file that a process runs or has loaded in; whether it is the image's, and if not, what it is, out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use drift::compare::Stray;
use drift::entry::Node;
use drift::{Blake3, TreePath};

use crate::baseline::{Baseline, InImage};

/// Programs of the image that runtimes run from a copy in memory, so that no container can write to them: by what they call
/// the copy.
const COPIED: [(&[u8], [&[u8]; 4]); 2] = [
    (
        b"/memfd:runc_cloned",
        [
            b"/usr/bin/runc",
            b"/usr/sbin/runc",
            b"/usr/local/bin/runc",
            b"/usr/local/sbin/runc",
        ],
    ),
    (
        b"/memfd:",
        [
            b"/usr/bin/crun",
            b"/usr/sbin/crun",
            b"/usr/local/bin/crun",
            b"/usr/local/sbin/crun",
        ],
    ),
];

/// What is known of the files that processes run: kept from one sweep to the next, so that nothing is looked up or read
/// twice.
#[derive(Debug)]
pub(super) struct Files {
    held: InImage,
    /// What was read: files without names, by device and inode and what they were said to be.
    read: BTreeMap<(u64, u64), bool>,
}

impl Default for Files {
    fn default() -> Self {
        Files {
            held: InImage::of_most(Files::MOST),
            read: BTreeMap::new(),
        }
    }
}

impl Files {
    /// More files than are mapped on most machines: a megabyte. Where there are more they are looked up again.
    const MOST: usize = 16 * 1024;
    /// A program that is longer than this is not read to the end: it is none of the image's then.
    const MOST_BYTES: u64 = 1024 * 1024 * 1024;

    /// Whether the image has a file at this path. Of a manifest that cannot be read nothing is told: passes say that.
    pub(super) fn has(&mut self, baseline: &Baseline, path: &TreePath) -> bool {
        self.held.has(baseline, path).unwrap_or(true)
    }

    /// What a file is that has no name any more; none where it is, byte for byte, what the image has at its path: a package
    /// was upgraded beneath the process.
    pub(super) fn unnamed(
        &mut self,
        baseline: &Baseline,
        id: (u64, u64),
        path: &TreePath,
        open: impl FnOnce() -> Option<File>,
    ) -> Option<Stray> {
        let is_in_memory = path.as_bytes().starts_with(b"memfd:");
        let stray = if is_in_memory {
            Stray::Memory
        } else {
            Stray::Deleted
        };
        if let Some(is_the_images) = self.read.get(&id) {
            return (!is_the_images).then_some(stray);
        }
        let originals: Vec<TreePath> = if is_in_memory {
            originals(path)
        } else {
            vec![path.clone()]
        };
        let is_the_images = is_one_of(baseline, &originals, open);
        if self.read.len() >= Files::MOST {
            self.read.clear();
        }
        self.read.insert(id, is_the_images);
        (!is_the_images).then_some(stray)
    }

    /// Forgets what was read of files that no process has any more: their numbers may be others' soon.
    pub(super) fn keep(&mut self, there: &BTreeSet<(u64, u64)>) {
        self.read.retain(|id, _| there.contains(id));
    }
}

/// Of which programs of the image a file in memory may be a copy, by its name: that it is one is for its content to say.
fn originals(path: &TreePath) -> Vec<TreePath> {
    let name = [b"/", path.as_bytes()].concat();
    let copied = COPIED.iter().filter(|(prefix, _)| name.starts_with(prefix));
    let originals = copied.flat_map(|(_, originals)| originals);
    originals
        .filter_map(|original| TreePath::new(original).ok())
        .collect()
}

/// Whether a file has the content that the image holds at one of these paths. One that cannot be read has not. It is not
/// even opened where it could not be: that may be a server's to answer.
fn is_one_of(
    baseline: &Baseline,
    originals: &[TreePath],
    open: impl FnOnce() -> Option<File>,
) -> bool {
    let node = |path: &TreePath| Some(baseline.manifest.lookup(path).ok()??.node);
    let held = originals
        .iter()
        .filter_map(node)
        .filter_map(|node| match node {
            Node::File { size, content, .. } => Some((size, content)),
            _ => None,
        });
    let held: Vec<(u64, Blake3)> = held.collect();
    if held.is_empty() {
        return false;
    }
    let Some(found) = open().and_then(content_of) else {
        return false;
    };
    held.contains(&found)
}

/// Length and digest.
fn content_of(mut file: File) -> Option<(u64, Blake3)> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 64 * 1024]);
    while hasher.count() <= Files::MOST_BYTES {
        match file.read(&mut buffer).ok()? {
            0 => return Some((hasher.count(), Blake3::from(hasher.finalize()))),
            read => hasher.update(&buffer[..read]),
        };
    }
    None
}
