//! Hard-link groups: which names share a file, known when all of them have been seen.
//!
//! The least of a group's names in path order names the group. How many names lie outside the tree is the number that the
//! kernel tells less the names that were met, so files with several names wait here until the walk is over; there are
//! few of them. Names that a gap covers count as met: what could not be read is never drift.

use std::collections::HashMap;

use crate::TreePath;
use crate::entry::{Entry, Links};
use crate::observation::{Found, Group};

/// Files with several names, waiting for their group to be complete.
#[derive(Debug, Default)]
pub struct LinkGroups {
    groups: HashMap<((u32, u32), u64), Names>,
    waiting: Vec<(Group, Settled)>,
    /// Names that gaps cover, by the name of the group that the manifest puts them in.
    covered: HashMap<TreePath, Names>,
}

/// A path whose links are known, with the entry that it met.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// What the manifest says.
    pub expected: Option<Entry>,
    /// What is there, `links` included.
    pub found: Found,
}

#[derive(Debug)]
struct Names {
    least: TreePath,
    seen: u32,
}

impl LinkGroups {
    /// Gives a path with a single name back at once, and keeps one with several.
    pub fn hold_or_settle(&mut self, expected: Option<Entry>, found: Found) -> Option<Settled> {
        let Some(group) = found.group else {
            return Some(Settled { expected, found });
        };
        self.see(group, &found.entry.path);
        self.waiting.push((group, Settled { expected, found }));
        None
    }

    /// Notes a name of a group that is not to be judged: it is there, and known to be as it should be.
    pub fn see(&mut self, group: Group, path: &TreePath) {
        let names = self.groups.entry((group.device, group.inode));
        let names = names.or_insert_with(|| Names {
            least: path.clone(),
            seen: 0,
        });
        names.seen += 1;
        if *path < names.least {
            names.least = path.clone();
        }
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
            .or_insert_with(|| Names {
                least: entry.path.clone(),
                seen: 0,
            });
        names.seen += 1;
        if entry.path < names.least {
            names.least = entry.path.clone();
        }
    }

    /// Everything that waited, in the order in which it came, with its links.
    pub fn settle(self) -> impl Iterator<Item = Settled> {
        let LinkGroups {
            groups,
            waiting,
            covered,
        } = self;
        waiting.into_iter().map(move |(group, mut settled)| {
            let names = &groups[&(group.device, group.inode)];
            let expected = settled
                .expected
                .as_ref()
                .and_then(|expected| expected.links.as_ref());
            let unseen = expected.and_then(|links| covered.get(&links.least));
            let least = unseen
                .map_or(&names.least, |unseen| (&names.least).min(&unseen.least))
                .clone();
            let seen = names
                .seen
                .saturating_add(unseen.map_or(0, |unseen| unseen.seen));
            settled.found.entry.links = Some(Links {
                least,
                outside: group.names.saturating_sub(seen),
            });
            settled
        })
    }
}
