//! Bakes the manifest of an image: reads its whole tree and writes down what is there.

pub mod arguments;
mod rules;
mod share;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use drift::compare::LinkGroups;
use drift::coverage::Gap;
use drift::entry::{AttributeSet, Entry, FileFlags, Node, Xattrs};
use drift::manifest::{BakedManifest, BuildError, Builder, Filesystem};
use drift::observation::Found;
use drift::rules::{Built, Rules};
use drift::{Sha256, TreePath, escape};
use driftmark_kernel::Stat;

use crate::packages::{self, PackagesError};
use crate::scan::filesystems::Filesystems;
use crate::scan::{Digests, Place, Progress, Read, Reader, Visit, Walk, Wants, mounts};

pub use arguments::BakeArguments;
pub use rules::{ChosenRules, RulesChoice};
pub use share::Share;
pub(crate) use write::read_key;
pub use write::{Baked, bake};

/// Why an image cannot be baked. Nothing is written then.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The root of the tree cannot be opened.
    #[error("open the root of the tree {}", shown(path))]
    Root {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the tree or of the command line that cannot be read.
    #[error("read {}", shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("write {}", shown(path))]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What cannot be read cannot be promised.
    #[error(
        "{count} paths could not be read, the first is {first}: a manifest must hold everything"
    )]
    Gaps {
        /// How many.
        count: usize,
        /// The first, with the reason.
        first: String,
    },
    /// A file system of the image's fstab is not mounted.
    #[error(
        "{0} is in the image's fstab and not mounted: mount it, or bake with `--filesystem none`"
    )]
    FilesystemMissing(TreePath),
    /// No rules are known for what the image is.
    #[error(
        "there are no rules for {0}: give some with `--rules FILE`, or `--rules none` to allow nothing at all"
    )]
    UnknownDistribution(String),
    /// A rule file that is wrong.
    #[error("read rules")]
    RuleFile(#[from] drift::rules::BadRuleFile),
    /// Rules that do not go together.
    #[error("put the rules together")]
    Rules(#[from] drift::rules::RulesError),
    /// A package database that cannot be read: what it would say of the paths is part of the manifest.
    #[error("find out which packages own the paths")]
    Packages(#[from] PackagesError),
    /// Rules that leave too much unheld.
    #[error(
        "{volatile} of {all} executables lie under `volatile` rules, which is more than {} %: nobody would notice a changed one. Narrow these rules: {rules}",
        Share::MAX_EXECUTABLE_PERCENT
    )]
    TooVolatile {
        /// Executables under volatile rules.
        volatile: u64,
        /// All executables.
        all: u64,
        /// The rules, worst first.
        rules: String,
    },
    /// Entries that do not make a manifest.
    #[error("make the manifest")]
    Build(#[from] BuildError),
    /// A name or version that cannot be one.
    #[error("--{flag} {value:?}")]
    Argument {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        #[source]
        source: drift::statement::BadText,
    },
    /// A signing key that is none.
    #[error("read the signing key {}", shown(path))]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: drift::key::KeyError,
    },
    /// The signature could not be made.
    #[error("sign the manifest")]
    Sign(#[source] drift::key::NoRandomness),
    /// It was told to end.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// What to read and how.
pub(crate) struct Tree<'a> {
    pub(crate) root: &'a Path,
    pub(crate) filesystems: Vec<Filesystem>,
    pub(crate) built: Built,
    pub(crate) threads: usize,
    pub(crate) interrupt: &'a AtomicBool,
    pub(crate) progress: &'a (dyn Fn(Progress) + Sync),
}

/// Where Driftmark keeps what describes the image.
const HOME: &[u8] = b"usr/lib/driftmark";
/// What describes the image and so cannot be described by it, below [`HOME`].
const SELF_FILES: [&[u8]; 3] = [
    b"image.manifest",
    b"image.manifest.sig",
    b"image.statement.json",
];

/// A file's facts as the readers give them.
struct Gathered {
    found: Found,
    sha256: Option<Sha256>,
    modified: (i64, u32),
}

/// Reads the tree and makes its manifest.
pub(crate) fn read_tree(tree: Tree<'_>) -> Result<BakedManifest, BakeError> {
    let root = tree.root.canonicalize().map_err(|source| BakeError::Root {
        path: tree.root.to_owned(),
        source,
    })?;
    let table = mounts::table(&root).map_err(|source| BakeError::Read {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let filesystems =
        Filesystems::open(&root, &tree.filesystems, &table).map_err(|source| BakeError::Root {
            path: root.clone(),
            source,
        })?;
    if let Some(missing) = filesystems.missing.first() {
        return Err(BakeError::FilesystemMissing(missing.mount_point.clone()));
    }
    let owners = packages::owners(&filesystems)?;
    let (gathered, gaps) = gather(&tree, &filesystems)?;
    if let Some(first) = gaps.first() {
        let first = format!("{} ({})", first.path, gap_words(first));
        return Err(BakeError::Gaps {
            count: gaps.len(),
            first,
        });
    }
    let mut builder = Builder::default();
    for (entry, sha256, modified) in with_links(gathered) {
        let package = owners.get(&entry.path).cloned();
        builder.push(entry, sha256, package, modified);
    }
    Ok(builder.finish(tree.built.rules, tree.filesystems, AttributeSet::EMPTY)?)
}

/// Walks on one thread and reads on several; order does not matter, the builder sorts.
fn gather(
    tree: &Tree<'_>,
    filesystems: &Filesystems,
) -> Result<(Vec<Gathered>, Vec<Gap>), BakeError> {
    // Each may hold a directory open, of which a process may often have no more than 1,024.
    const QUEUED_FILES: usize = 128;
    let (jobs, queued) = sync_channel::<(TreePath, Place)>(QUEUED_FILES);
    let queued = Mutex::new(queued);
    let gathered = Mutex::new(Vec::new());
    let gaps = Mutex::new(Vec::new());
    let seen = Seen {
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        progress: tree.progress,
    };
    let no_names = |_: &TreePath| false;
    let walked = std::thread::scope(|scope| {
        for _ in 0..tree.threads.max(1) {
            scope.spawn(|| {
                let mut reader = Reader::new(tree.interrupt, &no_names, &|_| {});
                loop {
                    let next = queued.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((path, place)) = next else { return };
                    match reader.read(&path, &place, Digests::Both, &Wants::default()) {
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
                        Read::Gone | Read::Interrupted => {}
                    }
                }
            });
        }
        let jobs = jobs;
        Walk::new(filesystems, &tree.built.rules).run(&mut |visit| {
            if tree.interrupt.load(Ordering::Relaxed) {
                return Err(BakeError::Interrupted);
            }
            match visit {
                Visit::File { path, stat, .. } if is_self(&path) => {
                    push(&gathered, self_file(path, Some(&stat)));
                }
                Visit::File { path, place, .. } => jobs
                    .send((path, place))
                    .map_err(|_| BakeError::Interrupted)?,
                Visit::Other { entry, stat, group } => {
                    seen.count(0);
                    push(
                        &gathered,
                        Gathered {
                            found: Found {
                                group,
                                ..Found::plain(entry)
                            },
                            sha256: None,
                            modified: stat.mtime,
                        },
                    );
                }
                Visit::Gap(gap) => push(&gaps, gap),
            }
            Ok(())
        })
    });
    walked?.map_err(|source| BakeError::Root {
        path: tree.root.to_owned(),
        source,
    })?;
    if tree.interrupt.load(Ordering::Relaxed) {
        return Err(BakeError::Interrupted);
    }
    let mut gathered = gathered
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    add_self_files(&mut gathered);
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
fn with_links(
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

fn is_self(path: &TreePath) -> bool {
    path.parent()
        .is_some_and(|parent| parent.as_bytes() == HOME)
        && SELF_FILES.contains(&path.name())
}

/// The manifest will lie in the image even where it is made outside, so it is an entry in either case.
fn add_self_files(gathered: &mut Vec<Gathered>) {
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

fn self_file(path: TreePath, stat: Option<&Stat>) -> Gathered {
    let (mode, uid, gid) = stat.map_or((0o644, 0, 0), |stat| (stat.mode, stat.uid, stat.gid));
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

pub(crate) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// Rules that a walk over everything is led by.
pub(crate) fn no_rules() -> Rules {
    Rules::none()
}
