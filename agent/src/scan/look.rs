//! Paths that may be other than they were in; what they are now, judged as a scan judges them, out.
//!
//! Invariant: what a look tells of a path is what a full scan would tell of it now. The one exception is said: of an inode
//! with several names a look knows the names that the manifest puts together, and no others; where the kernel counts more
//! or fewer of them than should be, the look is in doubt, and only a pass over the tree can tell which they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use drift::TreePath;
use drift::compare::CompareError;
use drift::manifest::ManifestError;

use super::filesystems::Filesystems;
use super::pipeline::judge_settled;
use super::shared::{Led, Shared, Waits};
use super::worker::{Told, Worker};
use super::{Order, Pass, ScanError, ScanRequest, Sink, Verified};
use crate::baseline::Baseline;

/// A look that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look {
    /// Where.
    pub path: TreePath,
    /// How far down.
    pub reach: Reach,
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
    /// Set it to end early.
    pub interrupt: &'a AtomicBool,
}

/// What looks came to beside what they told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Names that were looked at besides, as they are names of the same inodes.
    pub besides: Vec<TreePath>,
    /// Whether an inode has names that only a pass over the tree can tell.
    pub is_in_doubt: bool,
}

/// Names of the image that are one inode's: each group by its least path.
#[derive(Debug, Default)]
pub struct Linked(BTreeMap<TreePath, Vec<TreePath>>);

/// What waits for the one who looks: he takes it after each path, and no path has more to tell.
const QUEUED: usize = 64;

impl Linked {
    /// Reads them in one pass over the manifest.
    ///
    /// # Errors
    /// A manifest that cannot be read.
    pub fn read(baseline: &Baseline) -> Result<Self, ManifestError> {
        let mut groups: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
        for entry in baseline.manifest.entries() {
            let entry = entry?;
            if let Some(links) = entry.links {
                groups.entry(links.least).or_default().push(entry.path);
            }
        }
        Ok(Linked(groups))
    }

    /// The names of the inode that the image has at a path, where it has more than one there.
    ///
    /// # Errors
    /// A manifest that cannot be read.
    pub fn names(
        &self,
        baseline: &Baseline,
        path: &TreePath,
    ) -> Result<&[TreePath], ManifestError> {
        if self.0.is_empty() {
            return Ok(&[]);
        }
        let links = baseline
            .manifest
            .lookup(path)?
            .and_then(|entry| entry.links);
        let names = links.and_then(|links| self.0.get(&links.least));
        Ok(names.map_or(&[], Vec::as_slice))
    }
}

/// Looks, telling `sink` every finding.
///
/// # Errors
/// A manifest that cannot be read, or an interrupt. What was told until then stands for nothing.
pub fn look(request: &LookRequest<'_>, sink: &mut Sink<'_>) -> Result<Looked, ScanError> {
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
    for look in request.looks {
        match look.reach {
            Reach::Itself => worker.look_at(&look.path, &mut marks, &mut drain)?,
            Reach::Below => worker.look_below(&look.path, &mut marks, &mut drain)?,
        }
    }
    let besides = besides(request)?;
    for path in &besides {
        worker.look_at(path, &mut marks, &mut drain)?;
    }
    drop(worker);
    let (later, _) = shared.finish();
    let mut is_in_doubt = false;
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
        besides,
        is_in_doubt,
    })
}

/// Other names of the inodes that are looked at, as the image has them.
fn besides(request: &LookRequest<'_>) -> Result<Vec<TreePath>, ScanError> {
    let mut besides = BTreeSet::new();
    for look in request.looks {
        let groups = match look.reach {
            Reach::Itself => vec![
                request
                    .linked
                    .names(request.baseline, &look.path)
                    .map_err(CompareError::from)?,
            ],
            Reach::Below => {
                let all = request.linked.0.values();
                let is_below = |name: &TreePath| name.is_within(&look.path);
                let below = |names: &&Vec<TreePath>| names.iter().any(is_below);
                all.filter(below).map(Vec::as_slice).collect()
            }
        };
        besides.extend(groups.into_iter().flatten().cloned());
    }
    let covering = Covering::of(request.looks);
    let is_new = |path: &TreePath| !covering.covers(path);
    Ok(besides.into_iter().filter(is_new).collect())
}
