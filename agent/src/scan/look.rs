//! Paths that may be other than they were in; what they are now, judged as a scan judges them, out.
//!
//! Invariant: what a look tells of a path is what a full scan would tell of it now. The one exception is said: of an inode
//! with several names a look knows the names that the manifest puts together, and no others; where the kernel counts more
//! or fewer of them than should be, the look is in doubt, and only a pass over the tree can tell which they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use drift::TreePath;
use drift::manifest::{Lookups, ManifestError};

use super::filesystems::Filesystems;
use super::pipeline::judge_settled;
use super::shared::{Led, Shared, Waits};
use super::worker::{Told, Worker};
use super::{Order, Pass, ScanError, ScanRequest, Sink, Verified};
use crate::baseline::{Baseline, ManifestFile};

/// A look that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look {
    /// Where.
    pub path: TreePath,
    /// How far down.
    pub reach: Reach,
}

impl Look {
    /// Whether a path is looked at.
    pub fn covers(&self, path: &TreePath) -> bool {
        match self.reach {
            Reach::Itself => *path == self.path,
            Reach::Below => path.is_within(&self.path),
        }
    }
}

/// How far down a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// At the path alone.
    Itself,
    /// At all that is below it, too.
    Below,
}

/// Which paths a set of looks covers.
#[derive(Debug, Default)]
pub struct Covering<'l>(BTreeMap<&'l TreePath, Reach>);

impl<'l> Covering<'l> {
    /// Those of these looks.
    pub fn of(looks: impl IntoIterator<Item = &'l Look>) -> Self {
        let mut covering = BTreeMap::new();
        for look in looks {
            let reach = covering.entry(&look.path).or_insert(look.reach);
            *reach = look.reach.max(*reach);
        }
        Covering(covering)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path is looked at.
    pub fn covers(&self, path: &TreePath) -> bool {
        if self.0.contains_key(path) {
            return true;
        }
        let mut above = std::iter::successors(path.parent(), TreePath::parent);
        above.any(|above| self.0.get(&above) == Some(&Reach::Below))
    }
}

/// Where and against what to look.
pub struct LookRequest<'a> {
    /// The image's verified manifest.
    pub baseline: &'a Baseline,
    /// Its file systems, open.
    pub filesystems: &'a Filesystems,
    /// Which names of the image are one inode's.
    pub linked: &'a Linked,
    /// Where to look.
    pub looks: &'a [Look],
    /// So many paths are looked at below one.
    pub most: usize,
    /// Set it to end early.
    pub interrupt: &'a AtomicBool,
}

/// What looks came to beside what they told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Where more is than [`LookRequest::most`]: not all of it was looked at.
    pub too_large: Vec<TreePath>,
    /// Names that were looked at besides, as they are names of the same inodes.
    pub besides: Vec<TreePath>,
    /// Whether an inode has names that only a pass over the tree can tell.
    pub is_in_doubt: bool,
}

/// Names of the image that are one inode's.
#[derive(Debug, Default)]
pub struct Linked {
    /// All of them, in path order.
    names: Vec<TreePath>,
    /// The place of the group of each.
    group_of: Vec<u32>,
    /// The places of the names of each.
    groups: Vec<Vec<u32>>,
}

/// What waits for the one who looks: he takes it after each path, and no path has more to tell.
const QUEUED: usize = 64;

impl Linked {
    /// Reads them in one pass over the manifest.
    ///
    /// # Errors
    /// A manifest that cannot be read.
    pub fn read(baseline: &Baseline) -> Result<Self, ManifestError> {
        let (mut linked, mut by_least) = (Linked::default(), HashMap::new());
        for entry in baseline.manifest.entries() {
            let entry = entry?;
            let Some(links) = entry.links else { continue };
            let group = *by_least.entry(links.least).or_insert_with(|| {
                linked.groups.push(Vec::new());
                linked.groups.len() - 1
            });
            linked.groups[group].push(linked.names.len() as u32);
            linked.group_of.push(group as u32);
            linked.names.push(entry.path);
        }
        Ok(linked)
    }

    /// The names of the inode that the image has at a path, where it has more than one there.
    pub fn names(&self, path: &TreePath) -> impl Iterator<Item = &TreePath> {
        let group = self.names.binary_search(path).ok();
        group.into_iter().flat_map(|nth| self.group(nth))
    }

    /// The names of all inodes that have one at a path, or below it.
    fn names_within(&self, path: &TreePath) -> impl Iterator<Item = &TreePath> {
        let first = self.names.partition_point(|name| name < path);
        let within = self.names[first..].iter();
        let count = within.take_while(|name| name.is_within(path)).count();
        (first..first + count).flat_map(|nth| self.group(nth))
    }

    fn group(&self, nth: usize) -> impl Iterator<Item = &TreePath> {
        let group = &self.groups[self.group_of[nth] as usize];
        group.iter().map(|&name| &self.names[name as usize])
    }
}

/// Looks, telling `sink` every finding. `lookups` are the manifest's, and serve for one look after another.
///
/// # Errors
/// A manifest that cannot be read, or an interrupt. What was told until then stands for nothing.
pub fn look(
    request: &LookRequest<'_>,
    lookups: &mut Lookups<'_, ManifestFile>,
    sink: &mut Sink<'_>,
) -> Result<Looked, ScanError> {
    let manifest = &request.baseline.manifest;
    let names_of_image = |path: &TreePath| matches!(manifest.lookup(path), Ok(Some(_)));
    let led = Led {
        manifest,
        filesystems: request.filesystems,
        names_of_image: &names_of_image,
    };
    // Whoever looks is waited for, reads what processes see, and is alone.
    let as_scan = ScanRequest {
        baseline: request.baseline,
        root: Path::new("/"),
        pass: Pass::Full,
        threads: 1,
        held_length: &|_| None,
        interrupt: request.interrupt,
        pace: None,
        order: Order::OfPaths,
        progress: &|_| {},
    };
    let shared = Shared::new(&led, &as_scan);
    let (told, findings) = sync_channel(QUEUED);
    let (at_work, rest) = (|_| {}, |_| {});
    let mut worker = Worker::new(&shared, &at_work, &rest, told);
    let mut unmarked = Verified::default();
    let mut marks = unmarked.all();
    let mut drain = || {
        for told in findings.try_iter() {
            if let Told::Finding(finding) = told {
                sink(finding);
            }
        }
    };
    let mut too_large = Vec::new();
    for look in request.looks {
        match look.reach {
            Reach::Itself => worker.look_at(&look.path, lookups, &mut marks, &mut drain)?,
            Reach::Below => {
                if !worker.look_below(&look.path, request.most, &mut marks, &mut drain)? {
                    too_large.push(look.path.clone());
                }
            }
        }
    }
    let besides = besides(request);
    for path in &besides {
        worker.look_at(path, lookups, &mut marks, &mut drain)?;
    }
    drop(worker);
    let (later, _) = shared.finish();
    let mut is_in_doubt = !too_large.is_empty();
    for mut settled in later.settled {
        let has_its_links = settled.expected.as_ref() == Some(&settled.links);
        is_in_doubt |= !has_its_links;
        match (&settled.waited, &settled.expected) {
            // All but its links is as it should be.
            (Waits::AsExpected(_), _) => continue,
            (Waits::Whole(_), Some(expected)) => settled.links = expected.clone(),
            (Waits::Whole(_), None) => {}
        }
        judge_settled(manifest, settled, &mut marks, sink)?;
    }
    Ok(Looked {
        too_large,
        besides,
        is_in_doubt,
    })
}

/// Other names of the inodes that are looked at, as the image has them.
fn besides(request: &LookRequest<'_>) -> Vec<TreePath> {
    let mut besides = BTreeSet::new();
    for look in request.looks {
        match look.reach {
            Reach::Itself => besides.extend(request.linked.names(&look.path)),
            Reach::Below => besides.extend(request.linked.names_within(&look.path)),
        }
    }
    let covering = Covering::of(request.looks);
    let is_new = |path: &&TreePath| !covering.covers(path);
    besides.into_iter().filter(is_new).cloned().collect()
}
