//! Processes in; what no event tells of them out: what they run that is not the image's, what they have mapped for writing,
//! what is mounted over the image where others do not see it. And which kernel modules are not the image's.
//!
//! - [`look`]: one process after the other.
//! - [`maps`]: what a process has mapped.
//! - [`code`]: whether a file that it runs is the image's.
//! - [`hidden`]: mounts that only some processes see.
//! - [`modules`]: what the kernel has loaded.
//!
//! Invariants: what cannot be looked at is counted and told. A file without a name is the image's only if its content is.
//! What is found is told once, as a moment, for as long as it is there: it says who is on this machine, while the tree is
//! as it was. A process of another root is a container's: where a known runtime keeps it, it is counted and nothing else.

mod code;
mod hidden;
mod look;
mod maps;
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drift::attribution::Attribution;
use drift::coverage::ProcessSweep;
use drift::finding::Drift;
use drift::manifest::ManifestError;
use drift::{Blake3, TreePath};

use crate::baseline::Baseline;
use crate::watch::attribution::CommandLine;
use code::Files;
use look::Sweep;

/// What to sweep against.
#[derive(Debug, Clone, Copy)]
pub struct SweepRequest<'a> {
    /// The image's verified manifest.
    pub baseline: &'a Baseline,
    /// Files of the image that are known to have other content.
    pub drifted: &'a BTreeSet<TreePath>,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was looked at, age 0.
    pub record: ProcessSweep,
    /// What was not there at the last sweep.
    pub moments: Vec<Drift>,
    /// Files of the image that are mapped for writing, with who has them so: what is stored there no event tells.
    pub mapped: BTreeMap<TreePath, Arc<Attribution>>,
}

/// Sweeps, one after the other: remembers what was told.
#[derive(Debug)]
pub struct Sweeper {
    root: PathBuf,
    command_line: CommandLine,
    files: Files,
    /// Loaded modules that are the image's.
    modules: BTreeSet<Vec<u8>>,
    /// Where the kernel tells what it has loaded; nowhere for a tree that it was not started from.
    kernel: Option<[PathBuf; 2]>,
    /// What was told, with when it was last there.
    told: BTreeMap<Blake3, Duration>,
}

/// What keeps a sweep from being taken.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Something that all of it needs.
    #[error("{0}")]
    Needed(&'static str, #[source] io::Error),
    /// The manifest.
    #[error("read the manifest")]
    Manifest(#[from] ManifestError),
}

impl Sweeper {
    /// For the tree at `root`, spelled out.
    pub fn new(root: &Path, command_line: CommandLine) -> Self {
        Sweeper {
            root: root.to_owned(),
            command_line,
            files: Files::default(),
            modules: BTreeSet::new(),
            kernel: (root == Path::new("/")).then(|| ["/proc".into(), "/sys".into()]),
            told: BTreeMap::new(),
        }
    }

    /// The same, of a kernel that tells in `proc` and `sys` what it has loaded.
    #[must_use]
    pub fn with_kernel(mut self, proc: PathBuf, sys: PathBuf) -> Self {
        self.kernel = Some([proc, sys]);
        self
    }

    /// Looks at every process once.
    ///
    /// # Errors
    /// There is nothing to look at, or to hold it against.
    pub fn sweep(&mut self, request: SweepRequest<'_>) -> Result<Swept, SweepError> {
        let began = Instant::now();
        let mut sweep = Sweep::begin(self, request)?;
        let listed = |error| SweepError::Needed("list the processes", error);
        for pid in processes().map_err(listed)? {
            sweep.look_at(pid)?;
        }
        sweep.look_at_modules()?;
        let mut swept = sweep.end();
        swept.record.took_milliseconds = began.elapsed().as_millis() as u64;
        Ok(swept)
    }
}

/// The numbers of all processes.
fn processes() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}
