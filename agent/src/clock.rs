//! Receives nothing; hands on what time it is, in the three ways that the agent needs it.
//!
//! Ages and waits are by `CLOCK_BOOTTIME`, which nobody sets and which counts sleep. The clock on the wall is data, and
//! for TLS it is never earlier than the image's build: a machine that boots in 1970 can still check a certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since boot, by `CLOCK_BOOTTIME`.
    pub uptime: Duration,
    /// The clock on the wall, in milliseconds since 1970.
    pub clock_milliseconds: i64,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        let boottime = clock_gettime(ClockId::Boottime);
        let realtime = clock_gettime(ClockId::Realtime);
        Now {
            uptime: Duration::new(
                u64::try_from(boottime.tv_sec).unwrap_or(0),
                subsecond(boottime.tv_nsec),
            ),
            clock_milliseconds: realtime.tv_sec.saturating_mul(1000)
                + i64::from(subsecond(realtime.tv_nsec) / 1_000_000),
        }
    }

    /// The clock on the wall, in seconds since 1970.
    pub fn clock_seconds(&self) -> i64 {
        self.clock_milliseconds.div_euclid(1000)
    }

    /// How far the wall clock is ahead of the time since boot, in milliseconds: constant until someone sets the clock.
    fn offset_milliseconds(&self) -> i64 {
        self.clock_milliseconds - i64::try_from(self.uptime.as_millis()).unwrap_or(i64::MAX)
    }
}

fn subsecond(nanoseconds: i64) -> u32 {
    u32::try_from(nanoseconds).unwrap_or(0)
}

/// Notices that the clock was set.
#[derive(Debug, Clone, Copy)]
pub struct StepDetector {
    offset_milliseconds: i64,
}

/// Slewing moves the clock by at most 500 ppm; between two looks that is far less than this.
const STEP_MILLISECONDS: u64 = 2_000;

impl StepDetector {
    /// Knows the clock as it is at `now`.
    pub fn new(now: Now) -> Self {
        StepDetector {
            offset_milliseconds: now.offset_milliseconds(),
        }
    }

    /// By how many milliseconds the clock was set since the last look, if it was.
    pub fn look(&mut self, now: Now) -> Option<i64> {
        let step = now.offset_milliseconds() - self.offset_milliseconds;
        self.offset_milliseconds = now.offset_milliseconds();
        (step.unsigned_abs() >= STEP_MILLISECONDS).then_some(step)
    }
}

/// The clock that TLS checks by: the later of the wall clock and the image's build time.
#[derive(Debug, Clone, Default)]
pub struct TlsClock {
    floor_seconds: Arc<AtomicI64>,
}

impl TlsClock {
    /// It is at least `seconds` since 1970.
    pub fn not_before(&self, seconds: i64) {
        self.floor_seconds.fetch_max(seconds, Ordering::Relaxed);
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        Now::read()
            .clock_seconds()
            .max(self.floor_seconds.load(Ordering::Relaxed))
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.seconds()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_is_noticed_once_and_a_slewed_one_never() {
        let at = |uptime_ms: u64, clock_ms: i64| Now {
            uptime: Duration::from_millis(uptime_ms),
            clock_milliseconds: clock_ms,
        };
        let mut steps = StepDetector::new(at(0, 1_000_000));
        assert_eq!(steps.look(at(1_000, 1_001_000)), None);
        assert_eq!(steps.look(at(2_000, 1_002_400)), None, "400 ms is slewing");
        assert_eq!(steps.look(at(3_000, 9_003_400)), Some(8_000_000));
        assert_eq!(steps.look(at(4_000, 9_004_400)), None);
        assert_eq!(steps.look(at(5_000, 1_005_400)), Some(-8_000_000));
    }

    #[test]
    fn tls_never_lives_before_the_image_was_built() {
        let clock = TlsClock::default();
        let far = Now::read().clock_seconds() + 1_000_000;
        clock.not_before(far);
        clock.not_before(5);
        assert_eq!(clock.seconds(), far);
    }
}
