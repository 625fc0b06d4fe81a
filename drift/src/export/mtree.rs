//! BSD mtree, as `mtree(5)` of NetBSD and libarchive read it.
//!
//! It has no words for extended attributes, hard-link groups, Linux file flags and fs-verity: these are left out.

use std::fmt::Write as _;

use crate::entry::{Entry, Node};
use crate::manifest::Origin;

/// Lines of an mtree specification with full paths.
#[derive(Debug, Clone, Copy)]
pub struct Mtree;

impl Mtree {
    /// What comes before the first entry.
    pub const HEAD: &str = "#mtree v2.0\n";

    /// The line of an entry.
    pub fn line(entry: &Entry, origin: &Origin) -> String {
        let path = if entry.path.is_root() {
            b".".to_vec()
        } else {
            [b"./", entry.path.as_bytes()].concat()
        };
        let mut line = vis(&path);
        let kind = match &entry.node {
            Node::File { .. } | Node::SelfFile => "file",
            Node::Directory => "dir",
            Node::Symlink { .. } => "link",
            Node::CharDevice(_) => "char",
            Node::BlockDevice(_) => "block",
            Node::Fifo => "fifo",
            Node::Socket => "socket",
        };
        let _ = write!(
            line,
            " type={kind} mode={:04o} uid={} gid={}",
            entry.mode, entry.uid, entry.gid
        );
        match &entry.node {
            Node::File { size, .. } => {
                let _ = write!(line, " size={size}");
            }
            Node::Symlink { target } => {
                let _ = write!(line, " link={}", vis(target));
            }
            Node::CharDevice(device) | Node::BlockDevice(device) => {
                let _ = write!(line, " device=native,{},{}", device.major, device.minor);
            }
            Node::SelfFile | Node::Directory | Node::Fifo | Node::Socket => {}
        }
        if let Some(sha256) = origin.sha256 {
            let _ = write!(line, " sha256={sha256}");
        }
        line
    }
}

/// `vis(3)` in the octal style: everything but plain printable ASCII as three octal digits.
fn vis(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'#' | b'=' | b'\\' | b'*' | b'?' | b'[' => {
                let _ = write!(text, "\\{byte:03o}");
            }
            0x21..=0x7e => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TreePath;
    use crate::entry::{FileFlags, Xattrs};

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let entry = Entry {
            path: TreePath::new(b"etc/a b\n#\xff").unwrap(),
            mode: 0o644,
            uid: 0,
            gid: 42,
            node: Node::Symlink {
                target: (*b"../x y").into(),
            },
            xattrs: Xattrs::NONE,
            flags: FileFlags::NONE,
            links: None,
        };
        assert_eq!(
            Mtree::line(&entry, &Origin::default()),
            "./etc/a\\040b\\012\\043\\377 type=link mode=0644 uid=0 gid=42 link=../x\\040y"
        );
    }
}
