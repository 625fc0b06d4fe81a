//! A path in that may be other than it was; what it is now, and what is below it, judged and told as in a scan.

use drift::TreePath;
use drift::compare::{CompareError, Finding, Merge, Met};
use drift::coverage::{Gap, GapReason};
use drift::manifest::Lookups;

use super::Worker;
use crate::baseline::ManifestFile;
use crate::scan::ScanError;
use crate::scan::verified::Marks;
use crate::scan::walk::{Visit, Walk, gap};

impl Worker<'_> {
    /// Looks at `path` alone, of which `lookups` tells what the image has. `drain` takes what was told: nobody else does
    /// meanwhile.
    pub(in crate::scan) fn look_at(
        &mut self,
        path: &TreePath,
        lookups: &mut Lookups<'_, ManifestFile>,
        marks: &mut Marks<'_>,
        drain: &mut dyn FnMut(),
    ) -> Result<(), ScanError> {
        self.leaves_long = false;
        let manifest = self.shared.manifest;
        let entry = lookups.entry(path).map_err(CompareError::from)?;
        let mut met = entry.map(unnumbered);
        if let Some(gap) = self.filesystem_missing_at(path) {
            self.met(met, marks, Visit::Gap(gap))?;
            drain();
            return Ok(());
        }
        let walk = Walk::new(self.shared.filesystems, manifest.rules());
        let is_there = walk.at(path, &mut |visit| self.met(met.take(), marks, visit))?;
        match met.filter(|_| !is_there) {
            Some(met) => self.missing(&met.entry),
            None => self.what_came(marks, drain)?,
        }
        drain();
        Ok(())
    }

    /// Looks at `path` and at all that is below it, but not at more than so many paths. Whether that was all.
    pub(in crate::scan) fn look_below(
        &mut self,
        path: &TreePath,
        most: usize,
        marks: &mut Marks<'_>,
        drain: &mut dyn FnMut(),
    ) -> Result<bool, ScanError> {
        self.leaves_long = false;
        let manifest = self.shared.manifest;
        if let Some(gap) = self.filesystem_missing_at(path) {
            self.tell(Finding::Gap(gap));
            drain();
            return Ok(true);
        }
        let mut merge = Merge::from(manifest, path);
        let mut walk = Walk::new(self.shared.filesystems, manifest.rules());
        let (mut is_covered, mut left) = (false, most);
        let walked = walk.below(path, &mut |visit| -> Result<(), ScanError> {
            self.shared.go_on()?;
            // Nobody else hears of it: whoever interrupts a look does so for good.
            left = left.checked_sub(1).ok_or(ScanError::Interrupted)?;
            let missing = &mut |entry: drift::entry::Entry| {
                self.missing(&entry);
                drain();
            };
            match visit {
                Visit::Gap(gap) => {
                    is_covered |= gap.path == *path;
                    let mut linked = Vec::new();
                    merge.cover(&gap.path, missing, &mut |covered| {
                        linked.extend(covered.links.is_some().then_some(covered));
                    })?;
                    let mut groups = self.shared.groups();
                    linked.iter().for_each(|entry| groups.cover(entry));
                    drop(groups);
                    self.tell(Finding::Gap(gap));
                }
                Visit::Directory { path: ref met, .. } => {
                    let met = merge.meet(met, missing)?;
                    self.met(met, marks, visit)?;
                }
                Visit::Other { ref at, .. } | Visit::File { ref at, .. } => {
                    let met = merge.meet(at.path(), missing)?;
                    self.met(met, marks, visit)?;
                }
            }
            drain();
            Ok(())
        });
        match walked {
            Err(ScanError::Interrupted) if self.shared.go_on().is_ok() => {
                self.what_came(marks, drain)?;
                return Ok(false);
            }
            walked => walked?,
        };
        self.what_came(marks, drain)?;
        if !is_covered {
            let before = &mut |_| {};
            merge.cover(path, before, &mut |gone| {
                self.missing(&gone);
                drain();
            })?;
        }
        Ok(true)
    }

    /// Of what lies in a file system that is not there nothing is known.
    fn filesystem_missing_at(&self, path: &TreePath) -> Option<Gap> {
        let point = self.shared.filesystems.missing_at(path)?;
        Some(gap(point, GapReason::FilesystemMissing, ""))
    }

    /// Reads what was asked for, and has come by now.
    fn what_came(
        &mut self,
        marks: &mut Marks<'_>,
        drain: &mut dyn FnMut(),
    ) -> Result<(), ScanError> {
        while let Some(coming) = self.ahead.pop() {
            self.has_come(coming, marks)?;
            drain();
        }
        Ok(())
    }
}

/// A look marks nothing, so the place among all entries does not matter.
fn unnumbered(entry: drift::entry::Entry) -> Met {
    Met {
        ordinal: u64::MAX,
        entry,
    }
}
