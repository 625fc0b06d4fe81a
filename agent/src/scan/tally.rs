//! Counts what a scan comes to: its summary and its coverage.

use std::time::Instant;

use drift::compare::Finding;
use drift::coverage::{Coverage, ScanRecord};
use drift::manifest::Manifest;
use drift::observation::Found;

use super::{Pass, ScanSummary};
use crate::baseline::ManifestFile;

/// Progress is told after this many paths.
const PROGRESS_EVERY: u64 = 512;

/// Counts what a scan comes to.
pub(super) struct Tally {
    pass: Pass,
    pub(super) coverage: Coverage,
    entries: u64,
    bytes: u64,
    drifts: u64,
    files_read: u64,
    pub(super) unverified: u64,
}

impl Tally {
    pub(super) fn new(manifest: &Manifest<ManifestFile>, pass: Pass) -> Self {
        let header = manifest.header();
        let coverage = Coverage {
            expected_entries: header.entry_count,
            not_held: header
                .not_held
                .iter()
                .map(|attribute| attribute.word().to_owned())
                .collect(),
            ..Coverage::default()
        };
        Tally {
            pass,
            coverage,
            entries: 0,
            bytes: 0,
            drifts: 0,
            files_read: 0,
            unverified: 0,
        }
    }

    pub(super) fn found(&mut self, found: &Found, tell: &dyn Fn(u64, u64)) {
        if let Some((size, _)) = found.content() {
            self.bytes += size;
            self.files_read += 1;
        }
        self.trusted(tell);
    }

    pub(super) fn trusted(&mut self, tell: &dyn Fn(u64, u64)) {
        self.entries += 1;
        if self.entries.is_multiple_of(PROGRESS_EVERY) {
            tell(self.entries, self.bytes);
        }
    }

    pub(super) fn count(&mut self, finding: &Finding) {
        match finding {
            Finding::Drift(_) => self.drifts += 1,
            Finding::Held(_) => {}
            Finding::Gap(gap) => {
                self.coverage.gap_count += 1;
                if self.coverage.gaps.len() < Coverage::MAX_GAPS {
                    self.coverage.gaps.push(gap.clone());
                }
            }
        }
    }

    pub(super) fn finish(mut self, started: Instant) -> ScanSummary {
        let elapsed = started.elapsed();
        let rehashed = if self.pass == Pass::Quick {
            self.files_read
        } else {
            0
        };
        let record = ScanRecord {
            age_seconds: 0,
            took_milliseconds: elapsed.as_millis() as u64,
            entries: self.entries,
            bytes: self.bytes,
            rehashed,
        };
        match self.pass {
            Pass::Full => self.coverage.seen = Some(record),
            Pass::Quick => self.coverage.quick = Some(record),
        }
        self.coverage.gaps.sort_by(|a, b| a.path.cmp(&b.path));
        self.coverage.verified_entries = self
            .coverage
            .expected_entries
            .saturating_sub(self.unverified);
        ScanSummary {
            entries: self.entries,
            bytes: self.bytes,
            drifts: self.drifts,
            gaps: self.coverage.gap_count,
            rehashed,
            elapsed,
            coverage: self.coverage,
        }
    }
}
