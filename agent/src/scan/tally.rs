//! Counts what a scan comes to: its summary and its coverage.

use std::time::Instant;

use drift::compare::Finding;
use drift::coverage::{Coverage, ScanRecord};
use drift::manifest::Manifest;
use drift::observation::Found;

use super::portrait::Portrait;
use super::read::By;
use super::{Pass, ScanSummary};
use crate::baseline::ManifestFile;

/// A thread tells of its progress after this many paths.
const PROGRESS_EVERY: u64 = 512;

/// What one thread counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    /// Paths looked at.
    pub(super) entries: u64,
    /// Bytes of content read.
    pub(super) bytes: u64,
    pub(super) files_read: u64,
    /// Files that were measured and not read, and their bytes.
    pub(super) measured: (u64, u64),
    /// Entries that could not be verified.
    pub(super) unverified: u64,
    /// Files that a sweep of the disk could only read through the page cache.
    pub(super) cached: u64,
    /// The latest moment that anything was read which is now marked.
    pub(super) read_until: i64,
    told: (u64, u64),
}

impl Count {
    /// The content of a file is known.
    pub(super) fn content(&mut self, found: &Found, by: By) {
        match (found.content(), by) {
            (Some((size, _)), By::Reading) => {
                self.bytes += size;
                self.files_read += 1;
            }
            (Some((size, _)), By::Measuring) => {
                self.measured.0 += 1;
                self.measured.1 += size;
            }
            (None, _) => {}
        }
    }

    /// Whether so much has come together that it should be told.
    pub(super) fn is_due(&self) -> bool {
        self.entries - self.told.0 >= PROGRESS_EVERY
    }

    /// Entries and bytes since this was last asked.
    pub(super) fn since_told(&mut self) -> (u64, u64) {
        let since = (self.entries - self.told.0, self.bytes - self.told.1);
        self.told = (self.entries, self.bytes);
        since
    }
}

/// Counts what a scan comes to.
pub(super) struct Tally {
    pass: Pass,
    pub(super) coverage: Coverage,
    drifts: u64,
    count: Count,
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
            drifts: 0,
            count: Count::default(),
        }
    }

    /// Counts a part that looks as it did when all of it was verified.
    pub(super) fn unchanged(&mut self, portrait: &Portrait) {
        self.count.entries += portrait.entries();
    }

    /// Adds what a thread counted.
    pub(super) fn add(&mut self, count: &Count) {
        self.count.entries += count.entries;
        self.count.bytes += count.bytes;
        self.count.files_read += count.files_read;
        self.count.measured.0 += count.measured.0;
        self.count.measured.1 += count.measured.1;
        self.count.unverified += count.unverified;
        self.count.cached += count.cached;
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
            self.count.files_read + self.count.measured.0
        } else {
            0
        };
        let record = ScanRecord {
            age_seconds: 0,
            oldest_seconds: elapsed.as_secs(),
            ceiling_seconds: None,
            took_milliseconds: elapsed.as_millis() as u64,
            entries: self.count.entries,
            bytes: self.count.bytes,
            rehashed,
            measured: self.count.measured.0,
            measured_bytes: self.count.measured.1,
            cached: self.count.cached,
        };
        self.coverage.limits.extend(record.cached_limit());
        match self.pass {
            Pass::Full => self.coverage.seen = Some(record),
            Pass::Quick => self.coverage.quick = Some(record),
            Pass::Disk => self.coverage.disk = Some(record),
        }
        self.coverage.gaps.sort_by(|a, b| a.path.cmp(&b.path));
        self.coverage.verified_entries = self
            .coverage
            .expected_entries
            .saturating_sub(self.count.unverified);
        ScanSummary {
            entries: self.count.entries,
            bytes: self.count.bytes,
            drifts: self.drifts,
            gaps: self.coverage.gap_count,
            rehashed,
            measured: self.count.measured.0,
            elapsed,
            coverage: self.coverage.noted(),
        }
    }
}
