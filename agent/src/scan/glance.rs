//! A quick pass looks at each part before it holds it against the manifest: what looks as it did is as it was.
//!
//! What it takes for unchanged is what the threads would find unchanged entry by entry ([`super::worker`]); to find so here
//! is one `statx` for each name, and nothing is decoded.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::portrait::{Portrait, Sketch};
use super::shared::Shared;
use super::tally::Count;
use super::verified::Share;
use super::walk::{Visit, Walk};
use super::{Pass, ScanError};

/// The parts that are left to be gone through, and the portraits of the others.
///
/// # Errors
/// An interrupt.
pub(super) fn unchanged<'v>(
    shared: &Shared<'_>,
    shares: Vec<Share<'v>>,
) -> Result<(Vec<Share<'v>>, Vec<Portrait>), ScanError> {
    if shared.pass != Pass::Quick {
        return Ok((shares, Vec::new()));
    }
    let stretches = Mutex::new(Stretches::of(&shares, shared.threads));
    let take = || {
        let mut stretches = stretches.lock().unwrap_or_else(PoisonError::into_inner);
        stretches.next()
    };
    let look = || {
        let mut glance = Glance::of(shared);
        while let Some(stretch) = take() {
            glance.look(stretch.start, &shares[stretch])?;
        }
        Ok(glance.seen)
    };
    let looked = std::thread::scope(|scope| {
        // Where no more threads may be, this one does it all.
        let others: Vec<_> = (1..shared.threads)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, look).ok())
            .collect();
        let own = look();
        let others = others.into_iter().map(|other| match other.join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        others.chain([own]).collect::<Result<Vec<_>, ScanError>>()
    })?;
    let mut seen = vec![Seen::NOTHING; shares.len()];
    for (nth, of_part) in looked.into_iter().flatten() {
        seen[nth] = of_part;
    }
    let (left, unchanged) = sorted(shares, &seen);
    // Of the others it was told when they were seen.
    let linked = unchanged.iter().filter(|portrait| portrait.is_linked);
    let mut count = Count::default();
    count.entries = linked.map(Portrait::entries).sum();
    shared.tell(&mut count);
    Ok((left, unchanged))
}

/// What a glance at a part saw.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// It looks as it did when all of it was verified.
    is_unchanged: bool,
    /// Something in it has more names than one, or had, or may have.
    is_linked: bool,
}

impl Seen {
    const NOTHING: Seen = Seen {
        is_unchanged: false,
        is_linked: true,
    };
}

/// Passes over what is unchanged.
///
/// A name of a file with several is gone through with all its other names. Their inode tells of one that it was given or
/// lost, but not of a directory above one that has moved: out of a part, or into one, that looks different now.
fn sorted<'v>(shares: Vec<Share<'v>>, seen: &[Seen]) -> (Vec<Share<'v>>, Vec<Portrait>) {
    let mut changed = seen.iter().filter(|seen| !seen.is_unchanged);
    let goes_through_links = changed.any(|seen| seen.is_linked);
    let (mut left, mut unchanged) = (Vec::new(), Vec::new());
    for (share, seen) in shares.into_iter().zip(seen) {
        let passes_over = seen.is_unchanged && !(goes_through_links && seen.is_linked);
        match &share.portrait {
            Some(portrait) if passes_over => unchanged.push(portrait.clone()),
            _ => left.push(share),
        }
    }
    (left, unchanged)
}

/// Parts that follow each other and of which it is known how they looked, to be looked at in one walk: for each walk the
/// directories above its first path are listed once more. Long stretches come first and short ones last, so that all
/// threads end together.
struct Stretches {
    known: Vec<usize>,
    next: usize,
    threads: usize,
}

impl Stretches {
    fn of(shares: &[Share<'_>], threads: usize) -> Self {
        let known = (0..shares.len()).filter(|&nth| shares[nth].portrait.is_some());
        Stretches {
            known: known.collect(),
            next: 0,
            threads,
        }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        let left = &self.known[self.next..];
        let first = *left.first()?;
        let most = (left.len() / (2 * self.threads)).max(1);
        let followed = left[..most].iter().zip(first..);
        let count = followed
            .take_while(|(nth, expected)| *nth == expected)
            .count();
        self.next += count;
        Some(first..first + count)
    }
}

/// One thread's.
struct Glance<'s> {
    shared: &'s Shared<'s>,
    sketch: Sketch,
    count: Count,
    /// By the place of the part.
    seen: Vec<(usize, Seen)>,
}

impl<'s> Glance<'s> {
    fn of(shared: &'s Shared<'s>) -> Self {
        Glance {
            shared,
            sketch: Sketch::default(),
            count: Count::default(),
            seen: Vec::new(),
        }
    }

    /// Looks at parts that follow each other, of which the first is at this place.
    fn look(&mut self, mut nth: usize, shares: &[Share<'_>]) -> Result<(), ScanError> {
        let shared = self.shared;
        let (Some(first), Some(last)) = (shares.first(), shares.last()) else {
            return Ok(());
        };
        let mut walk = Walk::new(shared.filesystems, shared.manifest.rules())
            .between(first.part.start.as_ref(), last.part.end.as_ref());
        let mut rest = shares.iter();
        let mut share = rest.next();
        self.sketch.restart();
        let walked = walk.run(&mut |visit| {
            shared.rest(0);
            shared.go_on()?;
            // Where that path has gone, this part and those after it do not look as they did.
            let next = share.and_then(|share| share.part.end.as_ref());
            if next.is_some_and(|next| visit.is_at(next)) {
                self.looked(nth, share);
                (nth, share) = (nth + 1, rest.next());
            }
            self.draw(visit);
            Ok::<(), ScanError>(())
        })?;
        // One that cannot be begun has seen nothing.
        if walked.is_ok() {
            self.looked(nth, share);
        }
        Ok(())
    }

    fn draw(&mut self, visit: Visit<'_>) {
        match visit {
            Visit::Directory { path, stat, .. } => self.sketch.directory(&path, &stat),
            Visit::Other { at, stat, .. } => self.sketch.name(&at, &stat),
            Visit::File { at, place, .. } => match place.stat() {
                Ok(stat) => self.sketch.name(&at, &stat),
                Err(_) => self.sketch.miss(),
            },
            Visit::Gap(_) => self.sketch.miss(),
        }
    }

    /// A part was looked at to its end.
    fn looked(&mut self, nth: usize, share: Option<&Share<'_>>) {
        let ordinals = share.map(|share| &share.part.ordinals);
        let drawn = ordinals.map(|ordinals| self.sketch.finish(ordinals));
        self.sketch.restart();
        let portrait = share.and_then(|share| share.portrait.as_ref());
        let (Some(drawn), Some(portrait)) = (drawn, portrait) else {
            return;
        };
        let is_verified = share.is_some_and(|share| share.marks.are_complete());
        let seen = Seen {
            is_unchanged: is_verified && drawn.looks.is_some() && drawn == *portrait,
            is_linked: drawn.is_linked || portrait.is_linked,
        };
        self.seen.push((nth, seen));
        if seen.is_unchanged && !seen.is_linked {
            self.count.entries += drawn.entries();
            self.shared.tell(&mut self.count);
        }
    }
}
