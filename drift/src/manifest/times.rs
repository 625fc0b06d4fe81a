//! When files were last written: the side section, which is outside the identity, and which nothing compares.
//!
//! `drftside`, 8 bytes length of what follows, then runs of regular files that follow each other and were written at the same moment: varint how many, and
//! the moment. A moment is its seconds since 1970 less those of the moment before, as a varint whose lowest bit is the
//! sign, and varint nanoseconds.

use crate::manifest::pieces::{Aside, Piece, Pieces};
use crate::manifest::{ManifestError, Source};
use crate::varint;

const MAGIC: &[u8; 8] = b"drftside";
pub(super) const HEAD_BYTES: u64 = 16;
/// The longest run: three varints, the last of them of 32 bits.
const MAX_RUN_BYTES: u64 = 10 + 10 + 5;

/// Seconds and nanoseconds since 1970.
pub(super) type Moment = (i64, u32);

/// Appends a moment, `before` being the one before it.
pub(super) fn put(out: &mut Vec<u8>, before: &mut Moment, moment: Moment) {
    let more = moment.0.wrapping_sub(before.0);
    varint::put(out, (more << 1 ^ more >> 63) as u64);
    varint::put(out, u64::from(moment.1));
    *before = moment;
}

/// Takes one.
pub(super) fn take(rest: &mut &[u8], before: &mut Moment) -> Option<Moment> {
    let more = varint::take(rest)?;
    let more = (more >> 1) as i64 ^ -((more & 1) as i64);
    let nanoseconds = u32::try_from(varint::take(rest)?).ok()?;
    *before = (before.0.wrapping_add(more), nanoseconds);
    Some(*before)
}

/// Writes the side section.
#[derive(Debug, Default)]
pub(super) struct Times {
    written: Pieces,
    before: Moment,
    run: Option<(u64, Moment)>,
}

impl Times {
    /// Adds the next file.
    pub(super) fn push(&mut self, moment: Moment, aside: &dyn Aside) {
        match &mut self.run {
            Some((count, of)) if *of == moment => *count += 1,
            _ => {
                self.end_run(aside);
                self.run = Some((1, moment));
            }
        }
    }

    fn end_run(&mut self, aside: &dyn Aside) {
        if let Some((count, moment)) = self.run.take() {
            let mut bytes = Vec::with_capacity(MAX_RUN_BYTES as usize);
            varint::put(&mut bytes, count);
            put(&mut bytes, &mut self.before, moment);
            self.written.extend(&bytes, aside);
        }
    }

    /// The side section.
    pub(super) fn finish(mut self, aside: &dyn Aside) -> Vec<Piece> {
        self.end_run(aside);
        let head = [*MAGIC, self.written.length().to_le_bytes()].concat();
        let mut pieces = vec![Piece::Here(head)];
        pieces.extend(self.written.into_vec());
        pieces
    }
}

/// Checks what can be told of the side section, which begins at `start`, without reading it: it is not trusted, but holds
/// no more than the times of so many files.
pub(super) fn check_length(
    source: &impl Source,
    start: u64,
    end: u64,
    files: u64,
) -> Result<(), ManifestError> {
    let mut head = [0; HEAD_BYTES as usize];
    let length = (end.checked_sub(start))
        .and_then(|bytes| bytes.checked_sub(HEAD_BYTES))
        .ok_or(ManifestError::Malformed("it is cut short"))?;
    source
        .read_at(start, &mut head)
        .map_err(ManifestError::Read)?;
    if head != *[*MAGIC, length.to_le_bytes()].as_flattened()
        || length > files.saturating_mul(MAX_RUN_BYTES)
    {
        return Err(ManifestError::Malformed("side section"));
    }
    Ok(())
}

/// Whether what follows its head is the times of so many files and nothing else.
pub(super) fn are_of(mut rest: &[u8], files: u64) -> bool {
    let mut left = files;
    let mut moment = (0, 0);
    while !rest.is_empty() {
        let before = moment;
        let run = varint::take(&mut rest).filter(|&count| count > 0 && count <= left);
        let (Some(count), Some(_)) = (run, take(&mut rest, &mut moment)) else {
            return false;
        };
        // A run ends where the moment is another.
        if moment == before && left < files {
            return false;
        }
        left -= count;
    }
    left == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::InMemory;
    use proptest::prelude::*;

    fn section(moments: &[Moment]) -> Vec<u8> {
        let mut times = Times::default();
        for &moment in moments {
            times.push(moment, &InMemory);
        }
        let pieces = times.finish(&InMemory);
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| piece.bytes(&InMemory).unwrap())
            .collect();
        pieces.concat().split_off(HEAD_BYTES as usize)
    }

    #[test]
    fn files_of_one_moment_are_a_run() {
        assert_eq!(section(&[(0, 0); 100]), [100, 0, 0]);
        assert_eq!(section(&[(-1, 5), (-1, 5), (0, 5)]), [2, 1, 5, 1, 2, 5]);
    }

    proptest! {
        #[test]
        fn moments_come_back(moments: Vec<Moment>) {
            let (mut bytes, mut before) = (Vec::new(), (0, 0));
            moments.iter().for_each(|&moment| put(&mut bytes, &mut before, moment));
            let (mut rest, mut before) = (&bytes[..], (0, 0));
            for moment in &moments {
                prop_assert_eq!(take(&mut rest, &mut before), Some(*moment));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_section_is_of_so_many_files(few in proptest::collection::vec((-2i64..2, 0u32..2), 0..20), extreme in proptest::collection::vec(any::<Moment>(), 0..5)) {
            let moments = [few, extreme].concat();
            let bytes = section(&moments);
            let files = moments.len() as u64;
            prop_assert!(are_of(&bytes, files));
            prop_assert!(!are_of(&bytes, files + 1));
            prop_assert!(!are_of(&[&bytes[..], &[1, 0, 0]].concat(), files));
            prop_assert!(bytes.is_empty() || !are_of(&bytes[..bytes.len() - 1], files));
            prop_assert!(bytes.len() as u64 <= files * MAX_RUN_BYTES);
        }
    }
}
