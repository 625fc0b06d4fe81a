//! Receives failures; hands on how long to wait before the next try.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

/// Waits that double up to a limit, each cut by a random half, so that a fleet does not come back as one.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Backoff {
            first,
            longest,
            failures: 0,
        }
    }

    /// How long to wait after one more failure.
    pub(super) fn fail(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        doubled
            .min(self.longest)
            .mul_f64(0.5 + random_share() / 2.0)
    }

    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }
}

/// Between 0 and 1. Only spreads load: no randomness is no reason to fail.
pub(super) fn random_share() -> f64 {
    let mut bytes = [0; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_the_limit_and_begin_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.fail();
            let longest = Duration::from_secs(longest);
            assert!(
                longest / 2 <= wait && wait <= longest,
                "{wait:?} of {longest:?}"
            );
        }
        backoff.succeed();
        assert!(backoff.fail() <= Duration::from_secs(1));
    }
}
