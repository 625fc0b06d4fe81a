//! A scan as anybody would write it: everything is read into memory, one path after the other, and compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use drift::entry::{AttributeSet, Entry, FileFlags, Links, Node, Xattrs};
use drift::finding::DriftKind;
use drift::{Blake3, TreePath};

/// What drifted, by path.
pub(crate) type Drifts = BTreeMap<TreePath, (DriftKind, AttributeSet)>;

/// Compares the tree at `root` with `expected`, without any rules.
pub(crate) fn compare(root: &Path, expected: &[Entry]) -> Drifts {
    let mut found = BTreeMap::new();
    look(root, TreePath::root(), &mut found);
    let names: HashMap<u64, BTreeSet<TreePath>> =
        found
            .iter()
            .fold(HashMap::new(), |mut names, (path, (_, inode, _))| {
                names
                    .entry(*inode)
                    .or_insert_with(BTreeSet::new)
                    .insert(path.clone());
                names
            });
    let found: BTreeMap<TreePath, Entry> = found
        .into_iter()
        .map(|(path, (mut entry, inode, links))| {
            if links > 1 && entry.node != Node::Directory {
                let known = &names[&inode];
                entry.links = Some(Links {
                    least: known.first().unwrap().clone(),
                    outside: links as u32 - known.len() as u32,
                });
            }
            (path, entry)
        })
        .collect();
    let mut drifts = Drifts::new();
    for entry in expected {
        match found.get(&entry.path) {
            None => {
                drifts.insert(
                    entry.path.clone(),
                    (DriftKind::Removed, AttributeSet::EMPTY),
                );
            }
            Some(there) => {
                let changed = entry.differences(there);
                if !changed.is_empty() {
                    drifts.insert(entry.path.clone(), (DriftKind::Changed, changed));
                }
            }
        }
    }
    let known: BTreeSet<&TreePath> = expected.iter().map(|entry| &entry.path).collect();
    for path in found.into_keys().filter(|path| !known.contains(path)) {
        drifts.insert(path, (DriftKind::Added, AttributeSet::EMPTY));
    }
    drifts
}

fn look(at: &Path, path: TreePath, found: &mut BTreeMap<TreePath, (Entry, u64, u64)>) {
    let metadata = std::fs::symlink_metadata(at).unwrap();
    let kind = metadata.file_type();
    let node = if kind.is_dir() {
        for listed in std::fs::read_dir(at).unwrap() {
            let name = listed.unwrap().file_name();
            look(&at.join(&name), path.join(name.as_bytes()).unwrap(), found);
        }
        Node::Directory
    } else if kind.is_symlink() {
        let target = std::fs::read_link(at).unwrap();
        Node::Symlink {
            target: target.as_os_str().as_bytes().into(),
        }
    } else {
        let content = std::fs::read(at).unwrap();
        Node::file(content.len() as u64, Blake3::of(&content))
    };
    let entry = Entry {
        path: path.clone(),
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        node,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    };
    found.insert(path, (entry, metadata.ino(), metadata.nlink()));
}
