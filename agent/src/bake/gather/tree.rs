//! File systems in, what a manifest holds of each path out: one thread walks, the others read what it meets, and where
//! they are behind it reads too.

use std::sync::atomic::Ordering;

use drift::coverage::Gap;
use drift::rules::Rules;

use super::hand::Hand;
use super::pool::{Batch, Pool};
use super::{Gathered, Reading, Tree, is_self, self_file_of};
use crate::bake::BakeError;
use crate::scan::filesystems::Filesystems;
use crate::scan::{Visit, Walk, directory_entry, group, other_entry, unreadable};

/// What the walk meets at a path that has a place in the manifest.
pub(super) enum Met {
    /// A regular file, to be read.
    File(drift::TreePath, crate::scan::HeldPlace),
    /// Anything else: all is known of it.
    Known(Box<Gathered>),
}

/// Reads everything. The gaps are in path order.
pub(super) fn read(
    filesystems: &Filesystems,
    rules: &Rules,
    reading: Reading<'_>,
) -> Result<(Tree, Vec<Gap>), BakeError> {
    let pool = Pool::new(filesystems, reading);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..reading.threads.max(1))
            .map(|_| scope.spawn(|| pool.work_at(|hand: &mut Hand<'_>| hand.work())))
            .collect();
        let walked = pool.work_at(|hand| {
            let walked = walk(hand, &pool, rules);
            pool.walked();
            walked?;
            hand.work()
        });
        let read = readers.into_iter().map(|reader| match reader.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        read.chain([walked]).collect::<Result<(), BakeError>>()
    })?;
    if reading.interrupt.load(Ordering::Relaxed) {
        return Err(BakeError::Interrupted);
    }
    Ok(pool.finish())
}

/// The walker's side. It reads a file itself only while the others have enough to do.
fn walk(hand: &mut Hand<'_>, pool: &Pool<'_>, rules: &Rules) -> Result<(), BakeError> {
    let mut batch = Batch::default();
    let walked = Walk::new(pool.filesystems, rules).run::<BakeError>(&mut |visit| {
        pool.go_on()?;
        let Some(met) = meet(visit, pool) else {
            return Ok(());
        };
        batch.met.push_back(met);
        while batch.met.len() >= Batch::FULL && !pool.offer(&mut batch) {
            hand.next_of(&mut batch)?;
        }
        Ok(())
    })?;
    walked.map_err(BakeError::unopened)?;
    while !batch.met.is_empty() {
        hand.next_of(&mut batch)?;
    }
    Ok(())
}

/// What there is to do about a path; none if all that is to be said of it is a gap.
fn meet(visit: Visit<'_>, pool: &Pool<'_>) -> Option<Met> {
    let (path, stat, entry) = match visit {
        Visit::File { at, place, .. } if is_self(at.path()) => {
            let known = match place.stat() {
                Ok(stat) => self_file_of(at.into_path(), (stat.mode, stat.uid, stat.gid)),
                Err(error) => {
                    pool.gap(unreadable(at.path(), &error));
                    return None;
                }
            };
            return Some(Met::Known(Box::new(known)));
        }
        Visit::File { at, place, .. } => return Some(Met::File(at.into_path(), place.hold())),
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
            at, stat, place, ..
        } => {
            let path = at.into_path();
            let entry = other_entry(path.clone(), &stat, place);
            (path, stat, entry)
        }
        Visit::Gap(gap) => {
            pool.gap(gap);
            return None;
        }
    };
    match entry {
        Ok(entry) => Some(Met::Known(Box::new(Gathered {
            entry,
            group: group(&stat),
            sha256: None,
            modified: stat.mtime,
        }))),
        Err(error) => {
            pool.gap(unreadable(&path, &error));
            None
        }
    }
}
