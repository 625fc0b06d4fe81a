//! File systems in, what a manifest holds of each path out: one thread walks, several read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use drift::TreePath;
use drift::coverage::Gap;
use drift::rules::Rules;

use super::{Gathered, Reading, is_self, self_file};
use crate::bake::BakeError;
use crate::scan::filesystems::Filesystems;
use crate::scan::{
    Digests, HeldPlace, Progress, Read, Reader, Visit, Walk, Wants, directory_entry, group,
    other_entry, unreadable,
};

/// Files go to the readers in batches of this many: one at a time, the queue would cost more than a small file.
const BATCH: usize = 32;
/// Batches that wait. Each file may hold a directory open, of which a process may often have no more than 1,024.
const QUEUED_BATCHES: usize = 4;

type Batch = Vec<(TreePath, HeldPlace)>;

/// Walks on one thread and reads on several; order does not matter, the builder sorts.
pub(super) fn walk(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<(Vec<Gathered>, Vec<Gap>), BakeError> {
    let (jobs, queued) = sync_channel::<Batch>(QUEUED_BATCHES);
    let queued = Mutex::new(queued);
    let seen = Seen {
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        progress: reading.progress,
    };
    let (mut gathered, mut gaps) = (Vec::new(), Vec::new());
    let walked = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..reading.threads.max(1))
            .map(|_| scope.spawn(|| read_batches(reading, &queued, &seen)))
            .collect();
        let walked = walk_into(&jobs, filesystems, rules, reading, &seen);
        drop(jobs);
        let read = readers.into_iter().map(|reader| match reader.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let read: Vec<_> = read.collect();
        for (more, more_gaps) in read.into_iter().chain([walked?]) {
            gathered.extend(more);
            gaps.extend(more_gaps);
        }
        Ok::<(), BakeError>(())
    });
    walked?;
    if reading.interrupt.load(Ordering::Relaxed) {
        return Err(BakeError::Interrupted);
    }
    gaps.sort_by(|a: &Gap, b: &Gap| a.path.cmp(&b.path));
    Ok((gathered, gaps))
}

/// A reader's side: batch after batch until the walk is over.
fn read_batches(
    reading: Reading<'_>,
    queued: &Mutex<Receiver<Batch>>,
    seen: &Seen<'_>,
) -> (Vec<Gathered>, Vec<Gap>) {
    let (mut gathered, mut gaps) = (Vec::new(), Vec::new());
    let no_names = |_: &TreePath| false;
    let mut reader = Reader::new(reading.interrupt, &no_names, &|_| {});
    loop {
        let next = queued.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else {
            return (gathered, gaps);
        };
        for (path, place) in batch {
            match reader.read(&path, place.place(), Digests::Both, &Wants::default()) {
                Read::Found {
                    found,
                    sha256,
                    stat,
                    ..
                } => {
                    seen.count(found.entry.size());
                    gathered.push(Gathered {
                        entry: found.entry,
                        group: found.group,
                        sha256,
                        modified: stat.mtime,
                    });
                }
                Read::Gap(gap) => gaps.push(gap),
                Read::Gone | Read::Interrupted | Read::Enough(_) | Read::Long { .. } => {}
            }
        }
    }
}

/// The walker's side: what has no content it gathers itself.
fn walk_into(
    jobs: &SyncSender<Batch>,
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
    seen: &Seen<'_>,
) -> Result<(Vec<Gathered>, Vec<Gap>), BakeError> {
    let (mut gathered, mut gaps, mut batch) = (Vec::new(), Vec::new(), Batch::new());
    let walked = Walk::new(filesystems, rules).run(&mut |visit| {
        if reading.interrupt.load(Ordering::Relaxed) {
            return Err(BakeError::Interrupted);
        }
        let (path, stat, entry) = match visit {
            Visit::File { path, place, .. } if is_self(&path) => {
                match place.stat() {
                    Ok(stat) => {
                        gathered.push(self_file(path, Some((stat.mode, stat.uid, stat.gid))));
                    }
                    Err(error) => gaps.push(unreadable(&path, &error)),
                }
                return Ok(());
            }
            Visit::File { path, place, .. } => {
                batch.push((path, place.hold()));
                if batch.len() == BATCH {
                    let full = std::mem::take(&mut batch);
                    jobs.send(full).map_err(|_| BakeError::Interrupted)?;
                }
                return Ok(());
            }
            Visit::Directory {
                path,
                dir,
                stat,
                holding,
                ..
            } => {
                let entry = directory_entry(path.clone(), dir, &stat, holding);
                (path, stat, entry)
            }
            Visit::Other {
                path, stat, place, ..
            } => {
                let entry = other_entry(path.clone(), &stat, place);
                (path, stat, entry)
            }
            Visit::Gap(gap) => {
                gaps.push(gap);
                return Ok(());
            }
        };
        match entry {
            Ok(entry) => {
                seen.count(0);
                gathered.push(Gathered {
                    entry,
                    group: group(&stat),
                    sha256: None,
                    modified: stat.mtime,
                });
            }
            Err(error) => gaps.push(unreadable(&path, &error)),
        }
        Ok(())
    })?;
    walked.map_err(BakeError::unopened)?;
    jobs.send(batch).map_err(|_| BakeError::Interrupted)?;
    Ok((gathered, gaps))
}

struct Seen<'a> {
    entries: AtomicU64,
    bytes: AtomicU64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl Seen<'_> {
    fn count(&self, bytes: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if entries.is_multiple_of(512) {
            (self.progress)(Progress { entries, bytes });
        }
    }
}
