//! A process in; what it runs, has mapped and sees mounted that no event tells, out.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drift::attribution::{Attribution, Confidence, Origin};
use drift::compare::{Code, Stray, judge_code, judge_hidden_cover, judge_module};
use drift::coverage::ProcessSweep;
use drift::entry::{Attribute, Kind};
use drift::finding::Drift;
use drift::manifest::ManifestError;
use drift::{Blake3, TreePath};
use driftmark_kernel::{Mount, boot, mounts};
use rustix::io::Errno;

use super::maps::Mapping;
use super::{SweepError, SweepRequest, Sweeper, Swept, hidden, maps, modules};
use crate::scan::filesystems::{Filesystems, within};
use crate::scan::mounts::table;
use crate::watch::attribution::{
    DELETED, Directory, Running, Witness, is_known_container, unit_of,
};

/// One sweep, going on.
pub(super) struct Sweep<'a> {
    request: SweepRequest<'a>,
    by: &'a mut Sweeper,
    witness: Witness,
    filesystems: Filesystems,
    ours: Vec<Mount>,
    own_namespace: Option<Vec<u8>>,
    /// Those that were looked at.
    namespaces: BTreeSet<Vec<u8>>,
    /// Files without names that processes have.
    unnamed: BTreeSet<(u64, u64)>,
    /// The last program that was the image's: services run one many times over.
    own: Option<((u64, u64), Vec<u8>)>,
    /// The path that was mapped last: most are mapped several times in a row.
    last: Vec<u8>,
    now: Duration,
    swept: Swept,
}

/// One process.
struct Process<'a> {
    pid: u32,
    directory: &'a Directory,
    running: &'a Running,
    /// Whether what it runs is the image's.
    is_the_images: bool,
}

impl Process<'_> {
    fn who(&self, witness: &Witness) -> Attribution {
        witness.found(self.pid, self.directory, |_| self.is_the_images)
    }
}

/// What is gone for so long is told again when it is back: a program that is started over and over is told now and then.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// So much is remembered; beyond that it is told again.
const MOST_TOLD: usize = 4096;
/// So many moments are told of one sweep. What is more is told by later ones.
const MOST_MOMENTS: usize = 64;
/// So many files that are mapped for writing are looked at after a sweep. More are counted, and left to the scans.
const MOST_MAPPED: usize = 1024;
/// A mount table that is longer is not read.
const MOST_MOUNTS_BYTES: u64 = 4 * 1024 * 1024;
/// A path that is longer is not named in a report that may have no room for it.
const MOST_SHOWN_BYTES: usize = 512;

impl<'a> Sweep<'a> {
    pub(super) fn begin(
        by: &'a mut Sweeper,
        request: SweepRequest<'a>,
    ) -> Result<Self, SweepError> {
        let needed = |what| move |error| SweepError::Needed(what, error);
        let ours = table(&by.root).map_err(needed("read the mounts"))?;
        let wanted = &request.baseline.manifest.header().filesystems;
        Ok(Sweep {
            request,
            witness: Witness::new(by.command_line).map_err(needed("look at the root"))?,
            filesystems: Filesystems::open(&by.root, wanted, &ours)
                .map_err(needed("open the file systems"))?,
            own_namespace: own_namespace(&by.root),
            namespaces: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            own: None,
            last: Vec::new(),
            now: Duration::from_nanos(boot::boottime_ns()),
            swept: Swept::default(),
            ours,
            by,
        })
    }
}

impl Sweep<'_> {
    pub(super) fn look_at(&mut self, pid: u32) -> Result<(), ManifestError> {
        let Ok(directory) = &Directory::open(pid) else {
            return Ok(());
        };
        let running = match directory.program() {
            Ok(running) => running,
            // The kernel's own, or it has ended.
            Err(Errno::NOENT | Errno::SRCH) => return Ok(()),
            Err(_) => {
                self.missed(directory);
                return Ok(());
            }
        };
        self.swept.record.processes += 1;
        let Some(is_elsewhere) = self.witness.is_elsewhere(directory) else {
            self.missed(directory);
            return Ok(());
        };
        if is_elsewhere {
            self.swept.record.containers += 1;
            if directory
                .cgroup()
                .is_some_and(|group| is_known_container(&group))
            {
                return Ok(());
            }
        }
        let mut process = Process {
            pid,
            directory,
            running: &running,
            is_the_images: false,
        };
        let stray = self.judge_program(&process);
        process.is_the_images = matches!(stray, None | Some((_, Stray::Drifted)));
        if let Some((path, stray)) = stray {
            let id = running.file().unwrap_or_default();
            self.tell_code(&path, (Code::Program, stray), id, &process);
        }
        if !is_elsewhere {
            self.look_at_mappings(&process);
            self.look_at_mounts(&process)?;
        }
        Ok(())
    }

    /// Something could not be read of a process: a gap, unless it is one of the kernel's own, or has ended.
    fn missed(&mut self, directory: &Directory) {
        let is_none = matches!(directory.program(), Err(Errno::NOENT | Errno::SRCH));
        self.swept.record.unread += u64::from(!is_none);
    }

    /// What it runs that is not the image's.
    fn judge_program(&mut self, process: &Process<'_>) -> Option<(TreePath, Stray)> {
        let (running, baseline) = (process.running, self.request.baseline);
        let origin = running.origin();
        if origin == Origin::Unknown {
            let is_it = |(file, link): &(_, Vec<u8>)| {
                running.file() == Some(*file) && running.link() == link.as_slice()
            };
            if self.own.as_ref().is_some_and(is_it) {
                return None;
            }
            let path = within(&self.by.root, running.path())?;
            let is_held =
                self.by.files.has(baseline, &path) && running.lies_at(&self.filesystems, &path);
            let stray = match is_held {
                true if self.request.drifted.contains(&path) => Some(Stray::Drifted),
                true => None,
                false => Some(Stray::Foreign),
            };
            if let Some(file) = running.file().filter(|_| stray.is_none()) {
                self.own = Some((file, running.link().to_owned()));
            }
            return stray.map(|stray| (path, stray));
        }
        let path = self.unnamed_path(running.path())?;
        let id = running.file()?;
        let stray = self.judge_unnamed(process.directory, "exe", id, &path)?;
        Some((path, stray))
    }

    /// What to call a file that has no name any more. What is in memory belongs to no tree but the machine's own.
    fn unnamed_path(&self, path: &[u8]) -> Option<TreePath> {
        match path.starts_with(b"/memfd:") {
            true if self.by.root != Path::new("/") => None,
            _ => within(&self.by.root, path),
        }
    }

    fn judge_unnamed(
        &mut self,
        directory: &Directory,
        link: &str,
        id: (u64, u64),
        path: &TreePath,
    ) -> Option<Stray> {
        self.unnamed.insert(id);
        // What lay in a file system of the image is read; whoever else would answer may let it wait.
        let parent = path.parent().unwrap_or_default();
        let beside = || self.filesystems.directory(&parent)?.stat();
        let is_near = path.as_bytes().starts_with(b"memfd:")
            || beside().is_ok_and(|beside| beside.id().0 == id.0);
        let open = || directory.file(link).ok().filter(|_| is_near);
        self.by.files.unnamed(self.request.baseline, id, path, open)
    }

    fn look_at_mappings(&mut self, process: &Process<'_>) {
        let mut is_read = true;
        let text = process.directory.file("maps");
        let read = text.map_err(io::Error::from).and_then(|text| {
            maps::read(text, &mut Vec::new(), |mapping| {
                is_read &= self.look_at_mapping(process, &mapping);
            })
        });
        if !is_read || read.is_err() {
            self.missed(process.directory);
        }
        self.last.clear();
    }

    /// Whether it could be looked at.
    fn look_at_mapping(&mut self, process: &Process<'_>, mapping: &Mapping<'_>) -> bool {
        if mapping.is_shared {
            self.look_at_shared(process, mapping);
            return true;
        }
        // What is shared and run is written by the process itself, or by another that it shares it with.
        if !mapping.runs
            || mapping.path == process.running.link()
            || mapping.path == self.last.as_slice()
        {
            return true;
        }
        self.last.clear();
        self.last.extend_from_slice(mapping.path);
        let baseline = self.request.baseline;
        let whole = within(&self.by.root, mapping.path);
        if let Some(path) = whole
            .as_ref()
            .filter(|path| self.by.files.has(baseline, path))
        {
            if self.request.drifted.contains(path) {
                let what = (Code::Library, Stray::Drifted);
                self.tell_code(path, what, (0, mapping.inode), process);
            }
            return true;
        }
        let (path, stray, id) = match mapping.path.strip_suffix(DELETED) {
            None => (whole, Some(Stray::Foreign), (0, mapping.inode)),
            Some(unnamed) => {
                let Some(path) = self.unnamed_path(unnamed) else {
                    return true;
                };
                let link = format!("map_files/{}", mapping.range);
                let Some(id) = process.directory.file_behind(&link) else {
                    return false;
                };
                let stray = self.judge_unnamed(process.directory, &link, id, &path);
                (Some(path), stray, id)
            }
        };
        if let Some((path, stray)) = path.zip(stray) {
            self.tell_code(&path, (Code::Library, stray), id, process);
        }
        true
    }

    /// What is mapped for writing, or may be made so at any time, as its file was opened for writing.
    fn look_at_shared(&mut self, process: &Process<'_>, mapping: &Mapping<'_>) {
        let Some(path) = within(&self.by.root, mapping.path) else {
            return;
        };
        let rules = self.request.baseline.manifest.rules();
        if rules.below_volatile(&path)
            || self.swept.mapped.contains_key(&path)
            || !self.by.files.has(self.request.baseline, &path)
        {
            return;
        }
        let may_differ = rules.allowance(&path, Kind::File).attributes;
        let is_writable =
            || (process.directory).is_writable(&format!("map_files/{}", mapping.range));
        if may_differ.contains(Attribute::Content) || !(mapping.writes || is_writable()) {
            return;
        }
        self.swept.record.mapped += 1;
        if self.swept.mapped.len() < MOST_MAPPED {
            let mut who = process.who(&self.witness);
            // That it can write there is certain; that it does is not.
            who.confidence = Confidence::Late;
            self.swept.mapped.insert(path, Arc::new(who));
        }
    }

    fn look_at_mounts(&mut self, process: &Process<'_>) -> Result<(), ManifestError> {
        let Some(namespace) = process.directory.link("ns/mnt") else {
            self.missed(process.directory);
            return Ok(());
        };
        if self.own_namespace.as_ref() == Some(&namespace) || !self.namespaces.insert(namespace) {
            return Ok(());
        }
        self.swept.record.namespaces += 1;
        let Some(theirs) = mounts_of(process.directory) else {
            self.missed(process.directory);
            return Ok(());
        };
        let group = process.directory.cgroup();
        let unit = group.as_deref().and_then(unit_of);
        let is_service = unit.is_some_and(|unit| unit.ends_with(b".service"));
        let Sweep { request, ours, .. } = self;
        let hidden = hidden::hidden(request.baseline, &self.by.root, ours, theirs, is_service)?;
        for cover in hidden {
            let id = [
                b"mount".as_slice(),
                cover.path.as_bytes(),
                cover.what.as_bytes(),
            ];
            let drift = || judge_hidden_cover(&cover.path, &cover.what);
            self.tell(&id, drift, Some(process));
        }
        Ok(())
    }

    pub(super) fn look_at_modules(&mut self) -> Result<(), SweepError> {
        let Some([proc, sys]) = &self.by.kernel else {
            return Ok(());
        };
        let loaded = modules::loaded(proc, sys);
        let failed = |error| SweepError::Needed("read which kernel modules are loaded", error);
        let Some(mut loaded) = loaded.map_err(failed)? else {
            return Ok(());
        };
        self.by.modules.retain(|name| loaded.contains(name));
        loaded.retain(|name| !self.by.modules.contains(name));
        if loaded.is_empty() {
            return Ok(());
        }
        let new = loaded.clone();
        modules::without_the_images(self.request.baseline, &mut loaded)?;
        let own = new.into_iter().filter(|name| !loaded.contains(name));
        self.by.modules.extend(own);
        for name in loaded {
            if let Ok(path) = TreePath::new(&[b"/sys/module/", name.as_slice()].concat()) {
                self.tell(&[b"module", &name], || judge_module(&path), None);
            }
        }
        Ok(())
    }

    /// `file` parts what has the same name.
    fn tell_code(
        &mut self,
        path: &TreePath,
        (code, stray): (Code, Stray),
        file: (u64, u64),
        process: &Process<'_>,
    ) {
        let ((device, inode), kind) = (file, [code as u8, stray as u8]);
        let (device, inode) = (device.to_le_bytes(), inode.to_le_bytes());
        let id = [b"code".as_slice(), &kind, &device, &inode, path.as_bytes()];
        self.tell(&id, || judge_code(path, code, stray), Some(process));
    }

    /// Tells what was found, unless it was there before by the same id.
    fn tell(&mut self, id: &[&[u8]], drift: impl FnOnce() -> Drift, who: Option<&Process<'_>>) {
        let id = Blake3::of(&id.join(&0));
        let told = &mut self.by.told;
        let is_known = told.contains_key(&id);
        if !is_known && self.swept.moments.len() >= MOST_MOMENTS {
            return;
        }
        if is_known || told.len() < MOST_TOLD {
            told.insert(id, self.now);
        }
        if !is_known {
            let who = who.map(|process| Box::new(process.who(&self.witness)));
            self.swept.moments.push(Drift {
                attribution: who,
                ..drift()
            });
        }
    }

    pub(super) fn end(self) -> Swept {
        let (by, now) = (self.by, self.now);
        by.told
            .retain(|_, last| now.saturating_sub(*last) < FORGOTTEN);
        by.files.keep(&self.unnamed);
        self.request.baseline.manifest.forget_blocks();
        let mut swept = self.swept;
        let shown = swept.mapped.keys();
        let shown = shown.filter(|path| path.as_bytes().len() <= MOST_SHOWN_BYTES);
        swept.record.mapped_paths = shown.take(ProcessSweep::MAX_MAPPED).cloned().collect();
        swept
    }
}

/// None where they cannot be told.
fn mounts_of(directory: &Directory) -> Option<Vec<Mount>> {
    let mut text = Vec::new();
    let file = directory.file("mountinfo").ok()?;
    file.take(MOST_MOUNTS_BYTES).read_to_end(&mut text).ok()?;
    let is_whole = (text.len() as u64) < MOST_MOUNTS_BYTES;
    mounts::parse(&text).ok().filter(|_| is_whole)
}

/// The mount namespace that [`table`] tells of.
fn own_namespace(root: &Path) -> Option<Vec<u8>> {
    let of = |pid| Directory::open(pid).ok()?.link("ns/mnt");
    let first = (root == Path::new("/")).then(|| of(1)).flatten();
    first.or_else(|| of(std::process::id()))
}
