//! A quick pass looks at each part before it holds it against the manifest: what looks as it did is as it was.
//!
//! What it takes for unchanged is what the threads would find unchanged entry by entry ([`super::worker`]); to find so here
//! is one `statx` for each name, and nothing is decoded.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use drift::manifest::Part;

use super::portrait::{Portrait, Sketch};
use super::shared::Shared;
use super::tally::Count;
use super::verified::Marks;
use super::walk::{Visit, Walk};
use super::{Pass, ScanError};

/// A part with the marks of its entries, and how it looked when these were last gone through, if that is known.
pub(super) struct Share<'v> {
    pub(super) part: Part,
    pub(super) marks: Marks<'v>,
    pub(super) portrait: Option<Portrait>,
}

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
        Ok(glance.same)
    };
    let looked = std::thread::scope(|scope| {
        // Where no more threads may be, this one does it all.
        let others: Vec<_> = (1..shared.threads)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, look).ok())
            .collect();
        let own = look();
        let others = others.into_iter().map(|other| match other.join() {
            Ok(same) => same,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        others.chain([own]).collect::<Result<Vec<_>, ScanError>>()
    })?;
    let mut is_same = vec![false; shares.len()];
    looked.iter().flatten().for_each(|&nth| is_same[nth] = true);
    Ok(sorted(shares, &is_same))
}

/// A name of a file with several is gone through with all its other names. Their inode tells of one that it was given or
/// lost, but not of a directory above one that has moved: out of a part that had names of such files, and has changed.
fn sorted<'v>(shares: Vec<Share<'v>>, is_same: &[bool]) -> (Vec<Share<'v>>, Vec<Portrait>) {
    let is_linked = |share: &Share<'_>| {
        let portrait = share.portrait.as_ref();
        portrait.is_none_or(|portrait| portrait.is_linked)
    };
    let mut looked = shares.iter().zip(is_same);
    let links_may_be_others = looked.any(|(share, same)| !same && is_linked(share));
    let (mut left, mut same) = (Vec::new(), Vec::new());
    for (share, is_same) in shares.into_iter().zip(is_same) {
        match &share.portrait {
            Some(portrait) if *is_same && !(links_may_be_others && portrait.is_linked) => {
                same.push(portrait.clone());
            }
            _ => left.push(share),
        }
    }
    (left, same)
}

/// Parts that follow each other and are worth a glance, to be looked at in one walk: for each walk the directories above
/// its first path are listed once more. Long stretches come first and short ones last, so that all threads end together.
struct Stretches {
    candidates: Vec<usize>,
    next: usize,
    threads: usize,
}

impl Stretches {
    /// All of a part was verified, and it is known how it looked then.
    fn of(shares: &[Share<'_>], threads: usize) -> Self {
        let is_candidate = |share: &Share<'_>| {
            let portrait = share.portrait.as_ref();
            portrait.is_some_and(|portrait| portrait.looks.is_some()) && share.marks.are_complete()
        };
        let candidates = (0..shares.len()).filter(|&nth| is_candidate(&shares[nth]));
        Stretches {
            candidates: candidates.collect(),
            next: 0,
            threads,
        }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        let left = &self.candidates[self.next..];
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
    /// Places of the parts that look as they did.
    same: Vec<usize>,
}

impl<'s> Glance<'s> {
    fn of(shared: &'s Shared<'s>) -> Self {
        Glance {
            shared,
            sketch: Sketch::default(),
            count: Count::default(),
            same: Vec::new(),
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
                Err(_) => self.sketch.spoil(),
            },
            Visit::Gap(_) => self.sketch.spoil(),
        }
    }

    /// A part was looked at to its end.
    fn looked(&mut self, nth: usize, share: Option<&Share<'_>>) {
        let ordinals = share.map(|share| &share.part.ordinals);
        let drawn = ordinals.map(|ordinals| self.sketch.finish(ordinals));
        self.sketch.restart();
        let portrait = share.and_then(|share| share.portrait.as_ref());
        if let (Some(drawn), Some(portrait)) = (drawn, portrait)
            && drawn == *portrait
        {
            self.same.push(nth);
            self.count.entries += drawn.entries();
            self.shared.tell(&mut self.count);
        }
    }
}
