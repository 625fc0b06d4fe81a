//! A long file in, hashed by all threads together: BLAKE3 is a tree, and each segment of the file a branch of it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use drift::compare::Met;
use drift::{Blake3, TreePath};
use driftmark_kernel::{Stat, direct, page_cache};

use super::read::{Content, Read, Reader, seal};
use super::walk::HeldPlace;

/// From this length on a file waits until all threads are there: alone, one would hold up the rest.
pub(super) const LONG_BYTES: u64 = 8 * SEGMENT_BYTES;
/// A longer one is read as any other: there is a digest in memory for each segment.
pub(super) const MAX_LONG_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// A power of two, so that a segment is a whole branch; as much as is read at once.
pub(super) const SEGMENT_BYTES: u64 = 1024 * 1024;
/// So far ahead of the reading a file is asked for that is on the disk alone.
const AHEAD_BYTES: u64 = 4 * SEGMENT_BYTES;

/// What came of helping with a long file.
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum Hashed {
    /// Another thread hashes the last segment.
    ByOthers,
    /// It did not hold still, or could not be read.
    Changed,
    /// All of it.
    Whole(Read),
}

/// A long file that was opened.
pub(super) struct Long {
    pub(super) path: TreePath,
    pub(super) place: HeldPlace,
    /// When it was opened, nanoseconds since 1970.
    pub(super) read_at: i64,
    met: Mutex<Option<Met>>,
    file: File,
    before: Stat,
    /// The next segment that nobody hashes yet.
    next: AtomicU64,
    /// Segments that are not hashed yet.
    left: AtomicU64,
    failed: AtomicBool,
    /// It is read around the page cache.
    is_around: bool,
    /// It is read through it, and as far as is known on the disk alone.
    is_cold: AtomicBool,
    values: Mutex<Vec<ChainingValue>>,
}

impl Long {
    pub(super) fn new(
        path: TreePath,
        place: HeldPlace,
        met: Option<Met>,
        file: File,
        before: Stat,
        read_at: i64,
    ) -> Self {
        let segments = before.size.div_ceil(SEGMENT_BYTES);
        page_cache::as_asked(&file);
        let is_around = direct::is_on(&file).unwrap_or(false);
        Long {
            path,
            place,
            read_at,
            met: Mutex::new(met),
            file,
            before,
            next: AtomicU64::new(0),
            left: AtomicU64::new(segments),
            failed: AtomicBool::new(false),
            is_around,
            is_cold: AtomicBool::new(!is_around),
            values: Mutex::new(vec![[0; 32]; segments as usize]),
        }
    }

    fn values(&self) -> MutexGuard<'_, Vec<ChainingValue>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it was when it was opened.
    pub(super) fn length(&self) -> u64 {
        self.before.size
    }

    /// The entry that it met; once.
    pub(super) fn take_met(&self) -> Option<Met> {
        self.met
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Hashes segments until none is left. The thread that ends the last one is given the file as it was read.
    pub(super) fn help(&self, reader: &mut Reader<'_>, at_work: &dyn Fn(u64)) -> Hashed {
        let segments = self.before.size.div_ceil(SEGMENT_BYTES);
        let mut is_last = false;
        loop {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            if nth >= segments {
                return if is_last {
                    self.whole(reader)
                } else {
                    Hashed::ByOthers
                };
            }
            if !self.failed.load(Ordering::Relaxed) {
                match self.segment(nth, reader) {
                    Ok(Some(value)) => self.values()[nth as usize] = value,
                    Ok(None) | Err(_) => self.failed.store(true, Ordering::Release),
                }
                at_work(SEGMENT_BYTES);
            }
            is_last |= self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        }
    }

    /// None of a segment that is not there as a whole any more.
    fn segment(&self, nth: u64, reader: &mut Reader<'_>) -> io::Result<Option<ChainingValue>> {
        let start = nth * SEGMENT_BYTES;
        let end = (start + SEGMENT_BYTES).min(self.before.size);
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start);
        let asked = self.ask_ahead(start, reader);
        let part = start..end;
        let count = reader.pass_part(&self.file, &self.before, part, asked, &mut |bytes| {
            hasher.update(bytes);
        })?;
        let whole = count == Some(end - start);
        Ok(whole.then(|| hasher.finalize_non_root()))
    }

    /// Has what comes next read from the disk, until some of it turns out to be in the page cache. Whether it did so.
    fn ask_ahead(&self, start: u64, reader: &mut Reader<'_>) -> bool {
        if !self.is_cold.load(Ordering::Relaxed) {
            return false;
        }
        let from = if start == 0 { 0 } else { start + AHEAD_BYTES };
        let to = start + AHEAD_BYTES + SEGMENT_BYTES;
        let asked = reader.ask_for(&self.file, &self.before, from..to);
        if !asked {
            self.is_cold.store(false, Ordering::Relaxed);
        }
        asked
    }

    fn whole(&self, reader: &mut Reader<'_>) -> Hashed {
        let has_failed = self.failed.load(Ordering::Acquire);
        if has_failed || (self.is_around && reader.was_passed(&self.file, &self.before)) {
            return Hashed::Changed;
        }
        let content = Content::of(self.before.size, root(&self.values()));
        let (path, holding) = (self.path.clone(), self.place.place().holding);
        match seal(path, &self.file, &self.before, holding, content) {
            Ok(Some(read)) => Hashed::Whole(read),
            Ok(None) | Err(_) => Hashed::Changed,
        }
    }
}

/// The digest of a file by those of its segments, of which there are at least two.
fn root(values: &[ChainingValue]) -> Blake3 {
    let (left, right) = values.split_at(left_segments(values.len()));
    merge_subtrees_root(&branch(left), &branch(right), Mode::Hash).into()
}

fn branch(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [value] => *value,
        _ => {
            let (left, right) = values.split_at(left_segments(values.len()));
            merge_subtrees_non_root(&branch(left), &branch(right), Mode::Hash)
        }
    }
}

/// The left branch is the largest power of two that leaves something for the right.
fn left_segments(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branches_of_any_length_make_the_digest_of_the_whole() {
        let segment = SEGMENT_BYTES as usize;
        let bytes: Vec<u8> = (0..17 * segment + 5).map(|nth| (nth % 251) as u8).collect();
        for length in [
            segment + 1,
            2 * segment,
            2 * segment + 1024,
            3 * segment,
            5 * segment - 1,
            8 * segment,
            17 * segment + 5,
        ] {
            let whole = &bytes[..length];
            let values: Vec<_> = whole
                .chunks(segment)
                .enumerate()
                .map(|(nth, chunk)| {
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset((nth * segment) as u64);
                    hasher.update(chunk).finalize_non_root()
                })
                .collect();
            assert_eq!(root(&values), Blake3::of(whole), "{length} bytes");
        }
    }
}
