//! What the thread that reads events does in; until when all was seen, for whoever asks, out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Until when all that happened was seen, by time since boot.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Nanoseconds; 0 where it never was.
    until: AtomicU64,
    /// Nothing is queued, and whatever comes wakes who reads it.
    waits: AtomicBool,
}

impl Seen {
    /// All queues were empty when they were read, which began then.
    pub(super) fn all(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.until.fetch_max(until, Ordering::Relaxed);
    }

    /// Waits, with nothing queued, or does not any more.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// Until when, as far as is known; zero where it never was.
    pub(super) fn until(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Relaxed))
    }

    /// The same, asked by somebody else `now`: whoever waits has seen all.
    pub(super) fn asked(&self, now: Duration) -> Duration {
        if self.waits.load(Ordering::Relaxed) {
            self.all(now);
        }
        self.until()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_has_seen_all_and_whoever_reads_has_what_came_before() {
        let (seen, second) = (Seen::default(), Duration::from_secs);
        assert_eq!(seen.asked(second(1)), Duration::ZERO);
        seen.all(second(2));
        assert_eq!(seen.asked(second(3)), second(2));
        seen.waits(true);
        assert_eq!(seen.asked(second(4)), second(4));
        seen.waits(false);
        assert_eq!(
            (seen.asked(second(5)), seen.until()),
            (second(4), second(4))
        );
    }
}
