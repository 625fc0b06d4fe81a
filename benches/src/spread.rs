//! What was measured in windows, two kinds of them in turns, in; how a quantile of the one kind is to that of the other, and
//! how sure that is, out. Pure.
//!
//! A disk has slow minutes and slow seconds. Against the first, times are counted in the median of their own pair's first
//! window before they are put together. Against the second, what is drawn anew to see how much the ratio varies is not
//! times but whole pairs of neighbouring windows (a block bootstrap).

/// Two neighbouring windows: of what is held against, and of what is held.
pub type Pair<'a> = (&'a [u64], &'a [u64]);

/// A ratio, and between what it lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Of everything together.
    pub at: f64,
    /// One in forty draws is less.
    pub low: f64,
    /// One in forty draws is more.
    pub high: f64,
}

/// Drawn so often.
const DRAWS: usize = 1000;

impl Ratio {
    /// Of the quantile, in thousandths, of the second windows to that of the first; none where there is nothing.
    pub fn of(pairs: &[Pair<'_>], per_mille: usize) -> Option<Self> {
        let pairs: Vec<_> = pairs.iter().map(in_medians).collect::<Option<Vec<_>>>()?;
        let at = one(pairs.iter(), per_mille)?;
        let mut random = fastrand::Rng::with_seed(1);
        let mut drawn: Vec<f64> = (0..DRAWS)
            .filter_map(|_| {
                let draw = pairs.iter().map(|_| &pairs[random.usize(..pairs.len())]);
                one(draw, per_mille)
            })
            .collect();
        drawn.sort_unstable_by(f64::total_cmp);
        let (low, high) = (drawn.len() / 40, drawn.len() - 1 - drawn.len() / 40);
        Some(Ratio {
            at,
            low: drawn[low],
            high: drawn[high],
        })
    }

    /// Whether it is not above a limit, and whether that is sure.
    pub fn verdict(&self, limit: f64) -> &'static str {
        match (self.at <= limit, self.low > limit || self.high <= limit) {
            (true, true) => "held",
            (true, false) => "held, not for sure",
            (false, true) => "missed",
            (false, false) => "missed, not for sure",
        }
    }
}

/// What so many of a thousand are not longer than.
pub fn quantile(mut times: Vec<u64>, per_mille: usize) -> Option<u64> {
    let at = (times.len() * per_mille / 1000).min(times.len().checked_sub(1)?);
    Some(*times.select_nth_unstable(at).1)
}

/// Millionths of the median of the first.
fn in_medians((first, second): &Pair<'_>) -> Option<(Vec<u64>, Vec<u64>)> {
    let median = quantile(first.to_vec(), 500)?.max(1);
    let counted = |times: &[u64]| -> Vec<u64> {
        let one = |time: &u64| time.saturating_mul(1_000_000) / median;
        times.iter().map(one).collect()
    };
    Some((counted(first), counted(second)))
}

fn one<'a>(pairs: impl Iterator<Item = &'a (Vec<u64>, Vec<u64>)>, per_mille: usize) -> Option<f64> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for pair in pairs {
        first.extend_from_slice(&pair.0);
        second.extend_from_slice(&pair.1);
    }
    let (first, second) = (quantile(first, per_mille)?, quantile(second, per_mille)?);
    Some(second as f64 / first as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times that vary by a tenth, every fiftieth five times as long.
    fn times(random: &mut fastrand::Rng, usual: u64) -> Vec<u64> {
        let one = |random: &mut fastrand::Rng| {
            let slow = if random.u32(..50) == 0 { 5 } else { 1 };
            slow * (usual + random.u64(..usual / 10))
        };
        (0..1000).map(|_| one(random)).collect()
    }

    fn ratio(slower: u64) -> Ratio {
        let mut random = fastrand::Rng::with_seed(7);
        // The disk is three times slower in the end than in the beginning.
        let windows: Vec<_> = (0..20)
            .map(|nth| {
                let usual = 100_000 + 10_000 * nth;
                let first = times(&mut random, usual);
                (first, times(&mut random, usual * slower / 100))
            })
            .collect();
        let pairs: Vec<Pair<'_>> = windows.iter().map(|(a, b)| (&**a, &**b)).collect();
        Ratio::of(&pairs, 990).unwrap()
    }

    #[test]
    fn what_is_the_same_is_the_same_however_the_disk_drifts() {
        let same = ratio(100);
        assert!(same.low < 1.0 && same.high > 1.0, "{same:?}");
        assert_eq!(same.verdict(1.05), "held", "{same:?}");
    }

    #[test]
    fn a_tenth_more_is_seen_for_sure() {
        let more = ratio(110);
        assert!((1.07..1.13).contains(&more.at), "{more:?}");
        assert_eq!(more.verdict(1.05), "missed", "{more:?}");
    }

    #[test]
    fn of_nothing_there_is_no_quantile() {
        assert_eq!(Ratio::of(&[], 990), None);
        assert_eq!(Ratio::of(&[(&[], &[1])], 990), None);
        assert_eq!(quantile(vec![3, 1, 2], 0), Some(1));
        assert_eq!(quantile(vec![3, 1, 2], 1000), Some(3));
    }
}
