//! What of a manifest is read for what is asked of it, and how small it is.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod trees;

use std::cell::Cell;
use std::io;

use drift::entry::{AttributeSet, Entry, FileFlags, Node, Xattrs};
use drift::manifest::{BLOCK_BYTES, Builder, Package, Source, UnverifiedManifest};
use drift::rules::Rules;
use drift::{Blake3, Sha256, TreePath};
use trees::forge::Parts;

/// A manifest in memory that counts what is read of it.
struct Counted {
    bytes: Vec<u8>,
    reads: Cell<usize>,
}

impl Source for &Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        assert!(buffer.len() <= BLOCK_BYTES, "no more than a block at once");
        self.reads.set(self.reads.get() + 1);
        self.bytes.read_at(offset, buffer)
    }

    fn length(&self) -> io::Result<u64> {
        self.bytes.length()
    }
}

/// How often a fresh manifest is read while something is done with it, after it was opened.
fn reads<'c, T>(
    counted: &'c Counted,
    what: impl FnOnce(&UnverifiedManifest<&'c Counted>) -> T,
) -> (usize, T) {
    let manifest = UnverifiedManifest::open(counted).unwrap();
    counted.reads.set(0);
    let done = what(&manifest);
    (counted.reads.get(), done)
}

/// Files of some blocks, each of another content, some with attributes.
fn some_blocks() -> (Vec<Entry>, Counted) {
    let label = Xattrs::held([(b"security.selinux".to_vec(), b"system_u".to_vec())]);
    let mut entries = Vec::new();
    for nth in 0..9000_u32 {
        let mut entry = file(&format!("file-{nth:04}"), &nth.to_le_bytes());
        if nth.is_multiple_of(41) {
            entry.xattrs = label.clone();
        }
        entries.push(entry);
    }
    let files = entries.iter().map(|entry| (entry.clone(), Sha256::of(b"")));
    let bytes = bake(&files.collect::<Vec<_>>());
    let reads = Cell::default();
    (entries, Counted { bytes, reads })
}

#[test]
fn a_look_up_reads_one_block_and_cutting_into_parts_none() {
    let (entries, counted) = some_blocks();
    let (read, blocks) = reads(&counted, |manifest| {
        assert_eq!(manifest.parts(1).len() as u64, manifest.block_count());
        manifest.block_count()
    });
    assert!(read == 0 && blocks > 3, "{read} for {blocks} blocks");
    for entry in entries.iter().step_by(7) {
        let (read, found) = reads(&counted, |manifest| manifest.lookup(&entry.path).unwrap());
        assert_eq!(found.as_ref(), Some(entry));
        // An attribute set lies in a section of its own, which here is a part of one block.
        let most = if entry.xattrs.is_empty() { 1 } else { 2 };
        assert!((1..=most).contains(&read), "{read} for {}", entry.path);
        let absent = entry.path.join(b"absent").unwrap();
        let (read, found) = reads(&counted, |manifest| manifest.lookup(&absent).unwrap());
        assert_eq!((read, found), (1, None));
    }
}

#[test]
fn a_pass_reads_each_block_of_its_part_once() {
    let (entries, counted) = some_blocks();
    let (read, count) = reads(&counted, |manifest| {
        let passed = manifest.entries().map(|entry| drop(entry.unwrap()));
        passed.count()
    });
    assert_eq!(count, entries.len() + 1, "and the root");
    let (of_part, blocks) = reads(&counted, |manifest| {
        let parts = manifest.parts(2);
        let part = manifest.entries_of(&parts[1]);
        part.for_each(|entry| drop(entry.unwrap()));
        manifest.block_count()
    });
    // The attributes lie in the last block of entries, or in the next.
    assert!((2..=3).contains(&of_part), "{of_part}");
    assert!((blocks..=blocks + 1).contains(&(read as u64)), "{read}");
}

fn file(path: &str, content: &[u8]) -> Entry {
    Entry {
        path: TreePath::new(path.as_bytes()).unwrap(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        node: Node::file(content.len() as u64, Blake3::of(content)),
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn bake(files: &[(Entry, Sha256)]) -> Vec<u8> {
    let mut builder = Builder::default();
    let root = Entry {
        node: Node::Directory,
        ..file("", b"")
    };
    builder.push(root, None, None, (0, 0));
    for (entry, sha256) in files {
        let package = Package {
            name: "some".to_owned(),
            version: "1".to_owned(),
        };
        builder.push(
            entry.clone(),
            Some(*sha256),
            Some(package),
            (1_700_000_000, 7),
        );
    }
    let baked = builder.finish(Rules::none(), Vec::new(), AttributeSet::EMPTY);
    baked.unwrap().bytes
}

#[test]
fn what_came_before_costs_a_byte() {
    let files = |count: usize| {
        let file = |n| (file(&format!("{n:04}.html"), b"same"), Sha256::of(b"same"));
        let bytes = bake(&(0..count).map(file).collect::<Vec<_>>());
        Parts::of(&bytes).unwrap().body.len()
    };
    // Likeness, shared bytes, the rest of the path (a length, a digit, `.html`), content: nothing else.
    let of_new_path = 1 + 1 + 1 + 6 + 1;
    // From the second ten on the rest of a path mostly came before.
    let of_known_path = 1 + 1 + 1 + 1;
    assert_eq!(files(9) - files(4), 5 * of_new_path);
    assert_eq!(files(39) - files(32), 7 * of_known_path);
}

/// One content has one SHA-256; who claims otherwise gets both back.
#[test]
fn files_of_one_content_with_another_sha256_keep_their_own() {
    let entries = [("a", b"1"), ("b", b"2"), ("c", b"1")];
    let files = entries.map(|(path, sha256)| (file(path, b"same"), Sha256::of(sha256)));
    let bytes = bake(&files);
    let manifest = UnverifiedManifest::open(&bytes).unwrap();
    manifest.verify_all().unwrap();
    for (entry, sha256) in &files {
        let origin = manifest.origin(&entry.path).unwrap().unwrap();
        assert_eq!(origin.sha256, Some(*sha256), "{}", entry.path);
    }
}
