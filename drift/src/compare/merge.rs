//! The ordered merge: which entry a path meets, and which entries were passed over.

use std::cmp::Ordering;

use crate::TreePath;
use crate::compare::CompareError;
use crate::entry::Entry;
use crate::manifest::{Contents, Entries, ManifestError, Part, Source};
use crate::path::compare_bytes;

/// One forward pass over a manifest, led by the paths of a walk in the same order.
#[derive(Debug)]
pub struct Merge<'m, S> {
    entries: Entries<'m, S>,
    next: Option<Met>,
    started: bool,
    /// The path that came last: one buffer for all of them.
    before: Option<Vec<u8>>,
    /// What the last gap covers: nothing below it is met any more.
    gap: Option<TreePath>,
}

/// An entry with its place in the manifest.
#[derive(Debug, Clone)]
pub struct Met {
    /// From 0, in path order.
    pub ordinal: u64,
    /// The entry.
    pub entry: Entry,
}

impl<'m, S: Source> Merge<'m, S> {
    /// Begins before the first entry.
    pub fn new(manifest: &'m Contents<S>) -> Self {
        Self::over(manifest.entries())
    }

    /// Begins before the first entry of a part, and ends with its last.
    pub fn part(manifest: &'m Contents<S>, part: &Part) -> Self {
        Self::over(manifest.entries_of(part))
    }

    /// Begins at a path, or the first entry after it.
    pub fn from(manifest: &'m Contents<S>, first: &TreePath) -> Self {
        Self::over(manifest.entries_from(first))
    }

    fn over(entries: Entries<'m, S>) -> Self {
        Merge {
            entries,
            next: None,
            started: false,
            before: None,
            gap: None,
        }
    }

    /// The entry at `path`, if the manifest has one; entries before it are gone, and told to `missing`.
    ///
    /// # Errors
    /// A manifest that cannot be read, a path that does not come after the one before, or one that a gap covers.
    pub fn meet(
        &mut self,
        path: &TreePath,
        missing: &mut dyn FnMut(Entry),
    ) -> Result<Option<Met>, CompareError> {
        if self.compared(path).is_le() || self.gap.as_ref().is_some_and(|gap| path.is_within(gap)) {
            return Err(self.out_of_order(path));
        }
        self.goes_on_from(path);
        while let Some(met) = self.peek()? {
            match met.entry.path.cmp(path) {
                Ordering::Less => missing(self.take()?.expect("it was peeked at").entry),
                Ordering::Equal => return Ok(self.take()?),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Passes over the entries at `path` and below it, telling them to `covered`: a gap covers them, so they are not gone.
    /// Entries before it are, and told to `missing`. A directory may have been met before its gap was (it could not be
    /// listed).
    ///
    /// # Errors
    /// A manifest that cannot be read, or a gap that neither comes after the path before nor has it in it.
    pub fn cover(
        &mut self,
        path: &TreePath,
        missing: &mut dyn FnMut(Entry),
        covered: &mut dyn FnMut(Entry),
    ) -> Result<(), CompareError> {
        let compared = self.compared(path);
        let in_order = compared.is_ge() || self.before().is_within(path);
        if !in_order || self.gap.as_ref().is_some_and(|gap| path.is_within(gap)) {
            return Err(self.out_of_order(path));
        }
        while self.peek()?.is_some_and(|met| met.entry.path < *path) {
            missing(self.take()?.expect("it was peeked at").entry);
        }
        while self
            .peek()?
            .is_some_and(|met| met.entry.path.is_within(path))
        {
            covered(self.take()?.expect("it was peeked at").entry);
        }
        if compared.is_gt() {
            self.goes_on_from(path);
        }
        self.gap = Some(path.clone());
        Ok(())
    }

    /// Tells `missing` everything that no path has met.
    ///
    /// # Errors
    /// A manifest that cannot be read.
    pub fn finish(mut self, missing: &mut dyn FnMut(Entry)) -> Result<(), ManifestError> {
        while let Some(met) = self.take()? {
            missing(met.entry);
        }
        Ok(())
    }

    /// How a path lies from the one before: greater if it comes after it.
    fn compared(&self, path: &TreePath) -> Ordering {
        match &self.before {
            Some(before) => compare_bytes(path.as_bytes(), before),
            None => Ordering::Greater,
        }
    }

    fn goes_on_from(&mut self, path: &TreePath) {
        let before = self.before.get_or_insert_default();
        before.clear();
        before.extend_from_slice(path.as_bytes());
    }

    fn before(&self) -> TreePath {
        let before = self.before.as_deref().map(TreePath::new);
        before.and_then(Result::ok).unwrap_or_default()
    }

    fn out_of_order(&self, found: &TreePath) -> CompareError {
        CompareError::OutOfOrder {
            before: self.before(),
            found: found.clone(),
        }
    }

    fn peek(&mut self) -> Result<Option<&Met>, ManifestError> {
        if !self.started {
            self.started = true;
            self.advance()?;
        }
        Ok(self.next.as_ref())
    }

    fn take(&mut self) -> Result<Option<Met>, ManifestError> {
        self.peek()?;
        let taken = self.next.take();
        if taken.is_some() {
            self.advance()?;
        }
        Ok(taken)
    }

    fn advance(&mut self) -> Result<(), ManifestError> {
        let next = self.entries.next_numbered()?;
        self.next = next.map(|numbered| Met {
            ordinal: numbered.ordinal,
            entry: numbered.entry,
        });
        Ok(())
    }
}
