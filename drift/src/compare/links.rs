//! Hard-link groups: which names share a file, known when all of them have been seen.
//!
//! The least of a group's names in path order names the group. How many names lie outside the tree is the number that the
//! kernel tells less the names that were met, so a name waits here until the last of its group was met, or the walk is
//! over. Names that a gap covers count as met: what could not be read is never drift.

use std::collections::HashMap;

use crate::TreePath;
use crate::entry::{Entry, Links};
use crate::observation::Group;

/// Names of files with several of them, each with a `T` that waits for its group to be complete.
#[derive(Debug)]
pub struct LinkGroups<T> {
    groups: HashMap<((u32, u32), u64), Names<T>>,
    /// Names that gaps cover, by the name of the group that the manifest puts them in.
    covered: HashMap<TreePath, Covered>,
}

/// A name whose links are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled<T> {
    /// What waited with it.
    pub waited: T,
    /// The links that it was to have.
    pub expected: Option<Links>,
    /// Those that it has.
    pub links: Links,
}

/// The names of a group that were met.
#[derive(Debug)]
struct Names<T> {
    least: TreePath,
    seen: u32,
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// How many names the kernel told.
    names: u32,
    expected: Option<Links>,
    waits: T,
}

#[derive(Debug)]
struct Covered {
    least: TreePath,
    seen: u32,
}

impl<T> Default for LinkGroups<T> {
    fn default() -> Self {
        LinkGroups {
            groups: HashMap::new(),
            covered: HashMap::new(),
        }
    }
}

impl<T> LinkGroups<T> {
    /// Keeps a name with the links that it is expected to have. With the last name of a group come all that waited of it;
    /// what else is then met of it begins it anew.
    pub fn hold(
        &mut self,
        group: Group,
        path: &TreePath,
        expected: Option<Links>,
        waits: T,
    ) -> Vec<Settled<T>> {
        let names = self.names(group, path);
        names.waiting.push(Waiting {
            names: group.names,
            expected,
            waits,
        });
        if names.seen < group.names {
            return Vec::new();
        }
        // No name that a gap covers can be one of these.
        let nothing = HashMap::new();
        let complete = self.groups.remove(&(group.device, group.inode));
        complete.map_or_else(Vec::new, |names| names.settle(&nothing).collect())
    }

    /// Notes a name of a group that does not wait.
    pub fn see(&mut self, group: Group, path: &TreePath) {
        self.names(group, path);
    }

    /// The links of a name, once all names of its group that are there were seen.
    pub fn links(&self, group: Group, name: &TreePath) -> Links {
        match self.groups.get(&(group.device, group.inode)) {
            Some(names) => Links {
                least: names.least.clone(),
                outside: group.names.saturating_sub(names.seen),
            },
            None => Links {
                least: name.clone(),
                outside: group.names.saturating_sub(1),
            },
        }
    }

    /// Notes an entry that a gap covers: it may still be a name of the group that it was in.
    pub fn cover(&mut self, entry: &Entry) {
        let Some(links) = &entry.links else { return };
        let names = self
            .covered
            .entry(links.least.clone())
            .or_insert_with(|| Covered {
                least: entry.path.clone(),
                seen: 0,
            });
        names.seen += 1;
        if entry.path < names.least {
            names.least = entry.path.clone();
        }
    }

    /// Everything that still waits, with its links. Names of one group come in the order in which they came here.
    pub fn settle(self) -> impl Iterator<Item = Settled<T>> {
        let LinkGroups { groups, covered } = self;
        groups
            .into_values()
            .flat_map(move |names| names.settle(&covered).collect::<Vec<_>>())
    }

    /// The group of a name that is met now.
    fn names(&mut self, group: Group, path: &TreePath) -> &mut Names<T> {
        let names = self.groups.entry((group.device, group.inode));
        let names = names.or_insert_with(|| Names {
            least: path.clone(),
            seen: 0,
            waiting: Vec::new(),
        });
        names.seen += 1;
        if *path < names.least {
            names.least = path.clone();
        }
        names
    }
}

impl<T> Names<T> {
    fn settle(self, covered: &HashMap<TreePath, Covered>) -> impl Iterator<Item = Settled<T>> {
        let Names {
            least,
            seen,
            waiting,
        } = self;
        waiting.into_iter().map(move |waiting| {
            let expected = waiting.expected.as_ref();
            let unseen = expected.and_then(|links| covered.get(&links.least));
            let least = unseen.map_or(&least, |unseen| (&least).min(&unseen.least));
            let seen = seen.saturating_add(unseen.map_or(0, |unseen| unseen.seen));
            Settled {
                links: Links {
                    least: least.clone(),
                    outside: waiting.names.saturating_sub(seen),
                },
                expected: waiting.expected,
                waited: waiting.waits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Blake3;
    use crate::entry::{FileFlags, Node, Xattrs};

    fn path(name: &str) -> TreePath {
        TreePath::new(name.as_bytes()).unwrap()
    }

    fn links(least: &str, outside: u32) -> Links {
        Links {
            least: path(least),
            outside,
        }
    }

    #[test]
    fn what_a_gap_covers_is_no_name_of_a_group_that_is_complete_whichever_comes_first() {
        let covered = Entry {
            path: path("a"),
            mode: 0o644,
            uid: 0,
            gid: 0,
            node: Node::file(0, Blake3::of(b"")),
            xattrs: Xattrs::NONE,
            flags: FileFlags::NONE,
            links: Some(links("a", 0)),
        };
        // Of three names one cannot be read, and the file has two by now: it cannot be one of them.
        let group = Group {
            device: (8, 1),
            inode: 7,
            names: 2,
        };
        for covers_first in [true, false] {
            let mut groups = LinkGroups::default();
            if covers_first {
                groups.cover(&covered);
            }
            assert_eq!(groups.hold(group, &path("b"), Some(links("a", 0)), ()), []);
            if !covers_first {
                groups.cover(&covered);
            }
            let settled = groups.hold(group, &path("c"), Some(links("a", 0)), ());
            let found: Vec<_> = settled.into_iter().map(|one| one.links).collect();
            assert_eq!(found, [links("b", 0), links("b", 0)]);
        }
    }
}
