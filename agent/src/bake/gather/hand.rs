//! One thread's side of a bake: it reads and hashes file after file, and packs what it found.

use std::sync::atomic::{AtomicU64, Ordering};

use drift::TreePath;

use super::pool::{Batch, Job, LongFile, Pool};
use super::tree::Met;
use super::{Gathered, Stretch};
use crate::bake::BakeError;
use crate::scan::{Digests, HeldPlace, Read, Reader, Wants};

/// A thread of a bake.
pub(super) struct Hand<'a> {
    pool: &'a Pool<'a>,
    reader: Reader<'a>,
    /// What was packed last.
    stretch: Stretch,
    /// Bytes of the file that is being read which were told already.
    told: &'a AtomicU64,
}

impl<'a> Hand<'a> {
    pub(super) fn new(
        pool: &'a Pool<'a>,
        at_work: &'a (dyn Fn(u64) + Sync),
        told: &'a AtomicU64,
    ) -> Self {
        Hand {
            pool,
            reader: Reader::new(
                pool.reading.interrupt,
                &|_: &TreePath| false,
                at_work,
                &pool.inodes,
            ),
            stretch: Stretch::default(),
            told,
        }
    }

    /// Until there is nothing left to do.
    pub(super) fn work(&mut self) -> Result<(), BakeError> {
        while let Some(job) = self.pool.next() {
            match job {
                Job::Batch(mut batch) => {
                    while !batch.met.is_empty() {
                        self.next_of(&mut batch)?;
                    }
                }
                Job::Long(long) => self.file(long.at, long.path, long.place, Whether::Long)?,
            }
        }
        Ok(())
    }

    /// Sees to the first path of a batch.
    pub(super) fn next_of(&mut self, batch: &mut Batch) -> Result<(), BakeError> {
        let at = batch.start;
        batch.start += 1;
        match batch.met.pop_front() {
            Some(Met::File(path, place)) => self.file(at, path, place, Whether::Any),
            Some(Met::Known(gathered)) => self.pack(at, *gathered),
            None => Ok(()),
        }
    }

    fn file(
        &mut self,
        at: u64,
        path: TreePath,
        place: HeldPlace,
        whether: Whether,
    ) -> Result<(), BakeError> {
        let wants = Wants {
            leave_long: whether == Whether::Any && self.pool.reading.threads > 1,
            ..Wants::default()
        };
        match self
            .reader
            .read(&path, place.place(), Digests::Both, &wants)
        {
            Read::Found {
                found,
                sha256,
                stat,
                ..
            } => self.pack(
                at,
                Gathered {
                    entry: found.entry,
                    group: found.group,
                    sha256,
                    modified: stat.mtime,
                },
            )?,
            Read::Long { stat, .. } => {
                let long = LongFile {
                    size: stat.size,
                    at,
                    path,
                    place,
                };
                if let Some(long) = self.pool.leave(long) {
                    self.file(long.at, long.path, long.place, Whether::Long)?;
                }
            }
            Read::Gap(gap) => self.pool.gap(gap),
            Read::Interrupted => return Err(BakeError::Interrupted),
            Read::Gone | Read::Enough(_) | Read::Coming { .. } => {}
        }
        Ok(())
    }

    fn pack(&mut self, at: u64, gathered: Gathered) -> Result<(), BakeError> {
        let size = gathered.entry.size();
        let told = self.told.swap(0, Ordering::Relaxed);
        self.pool.count(1, size.saturating_sub(told));
        if let Some(group) = gathered.group {
            self.pool.see(group, &gathered.entry.path);
        }
        let next = self.stretch.start + self.stretch.draft.len() as u64;
        if at != next || self.stretch.is_full() {
            self.close();
            self.stretch = Stretch::of(at);
        }
        Ok(self.stretch.push(gathered)?)
    }

    /// Hands over what was packed.
    pub(super) fn close(&mut self) {
        let full = std::mem::take(&mut self.stretch);
        if !full.draft.is_empty() {
            self.pool.keep(full.finish(self.pool.reading.aside));
        }
    }
}

/// Which files are read at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whether {
    /// All but the long ones.
    Any,
    /// A long one too.
    Long,
}
