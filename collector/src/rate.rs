//! Receives wishes, hands on as many as fit a rate: what a peer can make us repeat has a limit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug)]
pub struct Rate {
    burst: u32,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: u32,
    refilled: Instant,
    suppressed: u64,
}

impl Rate {
    /// `burst` at once, and one more every `every`.
    pub fn new(burst: u32, every: Duration) -> Self {
        Rate {
            burst,
            every,
            state: Mutex::new(State {
                left: burst,
                refilled: Instant::now(),
                suppressed: 0,
            }),
        }
    }

    /// Whether one more fits.
    pub fn take(&self) -> bool {
        self.take_at(Instant::now(), 0)
    }

    /// Whether one more fits while half of the burst is left to others: for what anybody can cause, so that a flood of
    /// it does not hide an attack on somebody in particular.
    pub fn take_sparingly(&self) -> bool {
        self.take_at(Instant::now(), self.burst / 2)
    }

    fn take_at(&self, now: Instant, leave: u32) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let periods =
            now.saturating_duration_since(state.refilled).as_nanos() / self.every.as_nanos().max(1);
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            state.left = state.left.saturating_add(periods).min(self.burst);
            state.refilled = if state.left == self.burst {
                now
            } else {
                state.refilled + self.every * periods
            };
        }
        if state.left <= leave {
            state.suppressed += 1;
            return false;
        }
        state.left -= 1;
        if state.suppressed > 0 {
            tracing::warn!(
                count = state.suppressed,
                "refusals were not recorded: there were too many"
            );
            state.suppressed = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let rate = Rate::new(3, Duration::from_secs(1));
        let start = Instant::now();
        let at = |milliseconds| rate.take_at(start + Duration::from_millis(milliseconds), 0);
        assert_eq!([0, 0, 0, 0, 900].map(at), [true, true, true, false, false]);
        assert_eq!(
            [1_100, 1_200, 2_100, 2_200].map(at),
            [true, false, true, false]
        );
        assert_eq!(
            [60_000, 60_000, 60_000, 60_000].map(at),
            [true, true, true, false]
        );
    }

    #[test]
    fn a_flood_leaves_room_for_what_matters() {
        let rate = Rate::new(4, Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!(
            [2; 4].map(|leave| rate.take_at(now, leave)),
            [true, true, false, false]
        );
        assert_eq!(
            [0; 3].map(|leave| rate.take_at(now, leave)),
            [true, true, false]
        );
    }
}
