//! Receives an image's file systems; hands on everything that a manifest holds of them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use drift::compare::LinkGroups;
use drift::coverage::Gap;
use drift::entry::{Entry, FileFlags, Node, Xattrs};
use drift::observation::Found;
use drift::rules::Rules;
use drift::{Sha256, TreePath};
use driftmark_kernel::Stat;

use super::BakeError;
use crate::scan::filesystems::Filesystems;
use crate::scan::{
    Digests, HeldPlace, Progress, Read, Reader, Visit, Walk, Wants, directory_entry, group,
    other_entry, unreadable,
};

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
    pub(super) found: Found,
    pub(super) sha256: Option<Sha256>,
    pub(super) modified: (i64, u32),
}

/// Reads the trees, led by the rules.
pub(super) fn gather(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<Vec<Gathered>, BakeError> {
    let (mut gathered, gaps) = walk(filesystems, rules, reading)?;
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

/// Walks on one thread and reads on several; order does not matter, the builder sorts.
fn walk(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<(Vec<Gathered>, Vec<Gap>), BakeError> {
    // Each may hold a directory open, of which a process may often have no more than 1,024.
    const QUEUED_FILES: usize = 128;
    let (jobs, queued) = sync_channel::<(TreePath, HeldPlace)>(QUEUED_FILES);
    let queued = Mutex::new(queued);
    let gathered = Mutex::new(Vec::new());
    let gaps = Mutex::new(Vec::new());
    let seen = Seen {
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        progress: reading.progress,
    };
    let no_names = |_: &TreePath| false;
    let walked = std::thread::scope(|scope| {
        for _ in 0..reading.threads.max(1) {
            scope.spawn(|| {
                let mut reader = Reader::new(reading.interrupt, &no_names, &|_| {});
                loop {
                    let next = queued.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((path, place)) = next else { return };
                    match reader.read(&path, place.place(), Digests::Both, &Wants::default()) {
                        Read::Found {
                            found,
                            sha256,
                            stat,
                        } => {
                            seen.count(found.entry.size());
                            let modified = stat.mtime;
                            push(
                                &gathered,
                                Gathered {
                                    found,
                                    sha256,
                                    modified,
                                },
                            );
                        }
                        Read::Gap(gap) => push(&gaps, gap),
                        Read::Gone | Read::Interrupted | Read::Enough(_) | Read::Long { .. } => {}
                    }
                }
            });
        }
        let jobs = jobs;
        let plain = |path: TreePath, stat: &Stat, entry: io::Result<Entry>| match entry {
            Ok(entry) => {
                seen.count(0);
                let found = Found {
                    group: group(stat),
                    ..Found::plain(entry)
                };
                push(
                    &gathered,
                    Gathered {
                        found,
                        sha256: None,
                        modified: stat.mtime,
                    },
                );
            }
            Err(error) => push(&gaps, unreadable(&path, &error)),
        };
        Walk::new(filesystems, rules).run(&mut |visit| {
            if reading.interrupt.load(Ordering::Relaxed) {
                return Err(BakeError::Interrupted);
            }
            match visit {
                Visit::File { path, place } if is_self(&path) => match place.stat() {
                    Ok(stat) => push(
                        &gathered,
                        self_file(path, Some((stat.mode, stat.uid, stat.gid))),
                    ),
                    Err(error) => push(&gaps, unreadable(&path, &error)),
                },
                Visit::File { path, place } => jobs
                    .send((path, place.hold()))
                    .map_err(|_| BakeError::Interrupted)?,
                Visit::Directory {
                    path,
                    dir,
                    stat,
                    holding,
                } => {
                    let entry = directory_entry(path.clone(), dir, &stat, holding);
                    plain(path, &stat, entry);
                }
                Visit::Other { path, stat, place } => {
                    let entry = other_entry(path.clone(), &stat, place);
                    plain(path, &stat, entry);
                }
                Visit::Gap(gap) => push(&gaps, gap),
            }
            Ok(())
        })
    });
    walked?.map_err(|source| BakeError::Root {
        path: "/".into(),
        source,
    })?;
    if reading.interrupt.load(Ordering::Relaxed) {
        return Err(BakeError::Interrupted);
    }
    let gathered = gathered
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut gaps = gaps.into_inner().unwrap_or_else(PoisonError::into_inner);
    gaps.sort_by(|a: &Gap, b: &Gap| a.path.cmp(&b.path));
    Ok((gathered, gaps))
}

struct Seen<'a> {
    entries: AtomicU64,
    bytes: AtomicU64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl Seen<'_> {
    fn count(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if entries.is_multiple_of(512) {
            (self.progress)(Progress { entries, bytes });
        }
    }
}

fn push<T>(to: &Mutex<Vec<T>>, value: T) {
    to.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(value);
}

/// Settles the hard-link groups, now that every name was seen.
pub(super) fn with_links(
    gathered: Vec<Gathered>,
) -> impl Iterator<Item = (Entry, Option<Sha256>, (i64, u32))> {
    let mut groups = LinkGroups::default();
    let mut baked = Vec::with_capacity(gathered.len());
    let mut facts: BTreeMap<TreePath, (Option<Sha256>, (i64, u32))> = BTreeMap::new();
    for Gathered {
        found,
        sha256,
        modified,
    } in gathered
    {
        let path = found.group.map(|_| found.entry.path.clone());
        match groups.hold_or_settle(None, found) {
            Some(settled) => baked.push((settled.found.entry, sha256, modified)),
            None => {
                facts.insert(path.expect("only groups are held"), (sha256, modified));
            }
        }
    }
    for settled in groups.settle() {
        let (sha256, modified) = facts[&settled.found.entry.path];
        baked.push((settled.found.entry, sha256, modified));
    }
    baked.into_iter()
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
            .any(|known| known.found.entry.path.as_bytes() == bytes)
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
        found: Found::plain(entry),
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
