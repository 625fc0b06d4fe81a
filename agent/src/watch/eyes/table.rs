//! Marked directories by what events call them in; where each lies, out.
//!
//! A directory knows its name and the one that it is in, so that what is below one that was renamed needs no change. Some
//! 84 bytes each with what the allocator takes, and as many as [`Table::MOST`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

use drift::TreePath;

/// A directory: its handle, hashed with a secret of this process. That two of a hundred thousand are the same is as likely
/// as one in three thousand millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Key(u64);

/// Directories, and where they are.
#[derive(Debug, Default)]
pub(super) struct Table {
    secret: RandomState,
    /// What paths begin with, and the directory that this is.
    top: Option<(Key, TreePath)>,
    nodes: BTreeMap<Key, Node>,
    /// Those that were removed or moved away. Events of what was in them may still be queued behind that one, as the
    /// kernel puts some together.
    leaving: BTreeSet<Key>,
}

#[derive(Debug)]
struct Node {
    parent: Key,
    name: Box<[u8]>,
}

impl Table {
    /// Eight megabytes, and some two hundred of the kernel's, which holds an inode for each mark.
    pub(super) const MOST: usize = 100_000;
    /// Deeper is nothing that has a path.
    const DEEPEST: usize = TreePath::MAX_BYTES / 2;

    /// What a handle is called here.
    pub(super) fn key(&self, form: i32, bytes: &[u8]) -> Key {
        Key(self.secret.hash_one((form, bytes)))
    }

    /// Has a directory be what all others are below.
    pub(super) fn begin(&mut self, top: Key, path: TreePath) {
        self.top = Some((top, path));
    }

    /// Has a directory be at this name from now on.
    pub(super) fn put(&mut self, key: Key, parent: Key, name: &[u8]) {
        self.leaving.remove(&key);
        let name = name.into();
        self.nodes.insert(key, Node { parent, name });
    }

    /// Has a directory be nowhere, once all that is queued was read ([`Table::forget`]).
    pub(super) fn leave(&mut self, key: Key) {
        if self.nodes.contains_key(&key) {
            self.leaving.insert(key);
        }
    }

    /// Lets go of those that have left.
    pub(super) fn forget(&mut self) {
        for key in std::mem::take(&mut self.leaving) {
            self.nodes.remove(&key);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Where a directory is; none where it is none of these, or is in none of these.
    pub(super) fn path(&self, key: Key) -> Option<TreePath> {
        let (top, path) = self.top.as_ref()?;
        let (mut at, mut names) = (key, Vec::new());
        while at != *top {
            let node = self.nodes.get(&at)?;
            names.push(&*node.name);
            at = node.parent;
            if names.len() > Table::DEEPEST {
                // Moves that are not all known yet may put one below itself.
                return None;
            }
        }
        names.extend((!path.is_root()).then_some(path.as_bytes()));
        names.reverse();
        TreePath::new(&names.join(&b'/')).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(table: &Table, key: Key) -> Option<String> {
        table.path(key).map(|path| path.to_text())
    }

    #[test]
    fn what_is_below_a_directory_goes_with_it_and_one_that_left_is_known_until_all_was_read() {
        let mut table = Table::default();
        let [top, etc, deep, other] = [0, 1, 2, 3].map(|form| table.key(form, b"handle"));
        table.begin(top, TreePath::new(b"srv").unwrap());
        table.put(etc, top, b"etc");
        table.put(deep, etc, b"deep");
        assert_eq!(spelled(&table, top).unwrap(), "/srv");
        assert_eq!(spelled(&table, deep).unwrap(), "/srv/etc/deep");
        assert_eq!(spelled(&table, other), None);
        table.put(etc, top, b"moved");
        assert_eq!(spelled(&table, deep).unwrap(), "/srv/moved/deep");
        table.leave(etc);
        table.leave(other);
        assert_eq!(spelled(&table, deep).unwrap(), "/srv/moved/deep");
        table.forget();
        assert_eq!(spelled(&table, deep), None);
        table.put(etc, top, b"back");
        assert_eq!(spelled(&table, deep).unwrap(), "/srv/back/deep");
        table.leave(etc);
        table.put(etc, top, b"again");
        table.forget();
        assert_eq!(spelled(&table, deep).unwrap(), "/srv/again/deep");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn directories_in_a_ring_have_no_path() {
        let mut table = Table::default();
        let [top, one, other] = [0, 1, 2].map(|form| table.key(form, b""));
        table.begin(top, TreePath::root());
        table.put(one, other, b"one");
        table.put(other, one, b"other");
        assert_eq!(table.path(one), None);
        assert_eq!(table.path(top), Some(TreePath::root()));
    }
}
