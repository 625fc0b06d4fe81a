//! Receives an image's file systems; hands on everything that a manifest holds of them.

mod hand;
mod pool;
mod tree;

use std::sync::atomic::AtomicBool;

use drift::compare::LinkGroups;
use drift::coverage::Gap;
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::manifest::{Aside, BuildError, Draft, Drafted, Packed};
use drift::observation::Group;
use drift::rules::Rules;
use drift::{Sha256, TreePath};
use driftmark_kernel::process::trim_heap;

use super::BakeError;
use super::aside::SetAside;
use crate::scan::Progress;
use crate::scan::filesystems::Filesystems;

/// How to read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) threads: usize,
    pub(super) interrupt: &'a AtomicBool,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    /// Where what was read waits to be written down.
    pub(super) aside: &'a SetAside,
}

/// Where Driftmark keeps what describes the image.
const HOME: &[u8] = b"usr/lib/driftmark";
/// What describes the image and so cannot be described by it, below [`HOME`], in the order of paths.
const SELF_FILES: [&[u8]; 3] = [
    b"image.manifest",
    b"image.manifest.sig",
    b"image.statement.json",
];

/// A path's facts as the readers give them.
pub(super) struct Gathered {
    /// Its links are not set yet.
    pub(super) entry: Entry,
    pub(super) group: Option<Group>,
    pub(super) sha256: Option<Sha256>,
    pub(super) modified: (i64, u32),
}

/// Paths that follow each other, being packed.
#[derive(Default)]
pub(super) struct Stretch {
    /// Where the first of them is in the order of all paths.
    start: u64,
    draft: Draft,
    /// The link groups of those that have one, by their places in the draft.
    groups: Vec<(usize, Group)>,
}

/// A stretch that is packed.
pub(super) struct Kept {
    start: u64,
    packed: Packed,
    groups: Vec<(usize, Group)>,
}

impl Stretch {
    /// So many paths make a stretch: what is written down is given back stretch by stretch.
    const FULL: usize = 512;
    /// After so many the memory of those that were written down goes back to the machine: two megabytes.
    const GIVEN_BACK: usize = 64;

    fn of(start: u64) -> Self {
        Stretch {
            start,
            ..Self::default()
        }
    }

    fn push(&mut self, gathered: Gathered) -> Result<(), BuildError> {
        let Gathered {
            entry,
            group,
            sha256,
            modified,
        } = gathered;
        let place = self.draft.len();
        self.groups.extend(group.map(|group| (place, group)));
        self.draft.push(&Drafted {
            entry,
            sha256,
            modified,
        })
    }

    fn is_full(&self) -> bool {
        self.draft.len() == Stretch::FULL
    }

    fn finish(self, aside: &dyn Aside) -> Kept {
        Kept {
            start: self.start,
            packed: self.draft.finish(aside),
            groups: self.groups,
        }
    }
}

/// All that was gathered, in the order of paths.
pub(super) struct Tree {
    stretches: Vec<Kept>,
    /// Every name was seen.
    groups: LinkGroups<()>,
}

impl Tree {
    /// Of entries that come in the order of paths, as from an archive.
    pub(super) fn of(
        gathered: impl Iterator<Item = Gathered>,
        aside: &dyn Aside,
    ) -> Result<Self, BuildError> {
        let mut groups = LinkGroups::default();
        let (mut stretches, mut stretch) = (Vec::new(), Stretch::default());
        for (gathered, nth) in gathered.zip(0..) {
            if let Some(group) = gathered.group {
                groups.see(group, &gathered.entry.path);
            }
            if stretch.is_full() {
                let full = std::mem::replace(&mut stretch, Stretch::of(nth));
                stretches.push(full.finish(aside));
            }
            stretch.push(gathered)?;
        }
        stretches.push(stretch.finish(aside));
        Ok(Tree { stretches, groups })
    }

    /// Tells every entry with its links, in the order of paths. The manifest will lie in the image even where it is made
    /// outside, so it is an entry in either case.
    pub(super) fn write(
        self,
        aside: &dyn Aside,
        write: &mut dyn FnMut(Drafted) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let Tree { stretches, groups } = self;
        let mut owed: Vec<TreePath> = Vec::new();
        for (stretch, nth) in stretches.into_iter().zip(1_usize..) {
            // What the threads packed lies in heaps of theirs, where nothing that is written now would find a place.
            if nth.is_multiple_of(Stretch::GIVEN_BACK) {
                trim_heap();
            }
            let mut linked = stretch.groups.iter().peekable();
            for (mut drafted, place) in stretch.packed.entries(aside)?.zip(0..) {
                let path = &drafted.entry.path;
                while owed.last().is_some_and(|next| next < path) {
                    owed.pop()
                        .map(self_file)
                        .map_or(Ok(()), |owed| write(owed.into()))?;
                }
                owed.pop_if(|next| next == path);
                if path.as_bytes() == HOME {
                    let names = SELF_FILES.iter().rev();
                    owed.extend(names.map(|name| path.join(name).expect("a plain name")));
                }
                if let Some((_, group)) = linked.next_if(|(at, _)| *at == place) {
                    drafted.entry.links = Some(groups.links(*group, path));
                }
                write(drafted)?;
            }
        }
        let rest = owed.into_iter().rev();
        rest.map(self_file).try_for_each(|owed| write(owed.into()))
    }
}

impl From<Gathered> for Drafted {
    fn from(gathered: Gathered) -> Self {
        Drafted {
            entry: gathered.entry,
            sha256: gathered.sha256,
            modified: gathered.modified,
        }
    }
}

/// Reads the trees, led by the rules.
pub(super) fn gather(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<Tree, BakeError> {
    let (tree, gaps) = tree::read(filesystems, rules, reading)?;
    if let Some(first) = gaps.first() {
        let first = format!("{} ({})", first.path, gap_words(first));
        return Err(BakeError::Gaps {
            count: gaps.len(),
            first,
        });
    }
    Ok(tree)
}

pub(super) fn is_self(path: &TreePath) -> bool {
    SELF_FILES.contains(&path.name())
        && path
            .parent()
            .is_some_and(|parent| parent.as_bytes() == HOME)
}

/// One of [`SELF_FILES`], as it is to be.
fn self_file(path: TreePath) -> Gathered {
    self_file_of(path, (0o644, 0, 0))
}

/// One that is there, with its mode and owner.
pub(super) fn self_file_of(path: TreePath, (mode, uid, gid): (u16, u32, u32)) -> Gathered {
    let entry = Entry {
        path,
        mode,
        uid,
        gid,
        node: Node::SelfFile,
        xattrs: Xattrs::NONE,
        flags: FileFlags::NONE,
        links: None,
    };
    Gathered {
        entry,
        group: None,
        sha256: None,
        modified: (0, 0),
    }
}

fn gap_words(gap: &Gap) -> String {
    let sentence = gap.reason.sentence();
    if gap.detail.is_empty() {
        sentence.to_owned()
    } else {
        format!("{sentence}: {}", gap.detail)
    }
}
