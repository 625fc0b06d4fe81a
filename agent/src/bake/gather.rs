//! Receives an image's file systems; hands on everything that a manifest holds of them.

mod tree;

use std::sync::atomic::AtomicBool;

use drift::compare::LinkGroups;
use drift::coverage::Gap;
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::observation::Group;
use drift::rules::Rules;
use drift::{Sha256, TreePath};

use super::BakeError;
use crate::scan::Progress;
use crate::scan::filesystems::Filesystems;

/// How to read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) threads: usize,
    pub(super) interrupt: &'a AtomicBool,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
}

/// Where Driftmark keeps what describes the image.
const HOME: &[u8] = b"usr/lib/driftmark";
/// What describes the image and so cannot be described by it, below [`HOME`].
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

/// Reads the trees, led by the rules.
pub(super) fn gather(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<Vec<Gathered>, BakeError> {
    let (mut gathered, gaps) = tree::walk(filesystems, rules, reading)?;
    if let Some(first) = gaps.first() {
        let first = format!("{} ({})", first.path, gap_words(first));
        return Err(BakeError::Gaps {
            count: gaps.len(),
            first,
        });
    }
    add_self_files(&mut gathered);
    Ok(gathered)
}

/// Settles the hard-link groups, now that every name was seen.
pub(super) fn with_links(
    gathered: Vec<Gathered>,
) -> impl Iterator<Item = (Entry, Option<Sha256>, (i64, u32))> {
    let mut groups = LinkGroups::default();
    for Gathered { entry, group, .. } in &gathered {
        group
            .iter()
            .for_each(|group| groups.see(*group, &entry.path));
    }
    gathered.into_iter().map(move |gathered| {
        let Gathered {
            mut entry,
            group,
            sha256,
            modified,
        } = gathered;
        entry.links = group.map(|group| groups.links(group, &entry.path));
        (entry, sha256, modified)
    })
}

pub(super) fn is_self(path: &TreePath) -> bool {
    path.parent()
        .is_some_and(|parent| parent.as_bytes() == HOME)
        && SELF_FILES.contains(&path.name())
}

/// The manifest will lie in the image even where it is made outside, so it is an entry in either case.
pub(super) fn add_self_files(gathered: &mut Vec<Gathered>) {
    let has = |gathered: &[Gathered], bytes: &[u8]| {
        gathered
            .iter()
            .any(|known| known.entry.path.as_bytes() == bytes)
    };
    if !has(gathered, HOME) {
        return;
    }
    for name in SELF_FILES {
        let path = TreePath::new(&[HOME, b"/", name].concat()).expect("a plain path");
        if !has(gathered, path.as_bytes()) {
            gathered.push(self_file(path, None));
        }
    }
}

pub(super) fn self_file(path: TreePath, owner: Option<(u16, u32, u32)>) -> Gathered {
    let (mode, uid, gid) = owner.unwrap_or((0o644, 0, 0));
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
