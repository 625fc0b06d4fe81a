//! Golden bytes: what was written once is what is written today, and is still read.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "reads and writes the golden files"
)]

mod former;
mod manifests;
mod signatures;
mod tree;
mod wire;

use std::path::PathBuf;

use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::{Blake3, TreePath};

/// Compares with the golden file; writes one that is missing only where that is asked for by name.
fn golden(name: &str, made: &[u8]) {
    let path = place(name);
    if std::env::var("DRIFTMARK_WRITE_GOLDEN").is_ok() && !path.exists() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = kept(name);
    let differs = kept.iter().zip(made).position(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{name} is no longer what it was, from byte {differs:?} on ({} bytes)",
        made.len()
    );
}

/// What was kept under that name.
fn kept(name: &str) -> Vec<u8> {
    std::fs::read(place(name)).unwrap()
}

fn place(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name]
        .iter()
        .collect()
}

fn path(bytes: &[u8]) -> TreePath {
    TreePath::new(bytes).unwrap()
}

fn plain(at: &[u8], node: Node) -> Entry {
    Entry {
        path: path(at),
        mode: 0o755,
        uid: 0,
        gid: 0,
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    }
}

fn file(at: &[u8], content: &[u8]) -> Entry {
    plain(at, Node::file(content.len() as u64, Blake3::of(content)))
}
