//! Receives how far a pass is and what the machine's other work feels; has the threads of the pass rest as long as that
//! asks for.
//!
//! All threads work and rest together. So whatever is waited for while they rest is waited for by others, and the
//! kernel's pressure files (PSI), which know no threads, tell it exactly.

mod controller;
mod pressure;
mod waited;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use controller::{Budget, Urgency};
use controller::{Controller, Done, Felt, Worked};
pub use pressure::Pressure;

/// What keeps the threads of one pass back.
#[derive(Debug)]
pub struct Pacer {
    urgency: Urgency,
    started: Instant,
    /// Nobody need ask for a rest before this, nanoseconds since the start; 0 while all rest.
    work_until: AtomicU64,
    bytes: AtomicU64,
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    controller: Controller,
    pressure: Pressure,
    felt: Felt,
    work_began: Duration,
    /// How long they work after the rest.
    work: Duration,
    rest_until: Option<Duration>,
}

/// A rest is looked up from as often as this, to see whether the pass is to end.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Pacer {
    /// For a pass that begins now.
    pub fn new(budget: Budget, pressure: Pressure) -> Self {
        Pacer {
            urgency: budget.urgency,
            started: Instant::now(),
            work_until: AtomicU64::new(nanoseconds(controller::HEAD_START)),
            bytes: AtomicU64::new(0),
            turns: Mutex::new(Turns {
                controller: Controller::new(budget),
                pressure,
                felt: Felt::default(),
                work_began: Duration::ZERO,
                work: Duration::ZERO,
                rest_until: None,
            }),
        }
    }

    /// How much it matters when the pass ends.
    pub fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// A thread did a little, and read so many bytes: rests, if it is time to. `part` says how much of the pass is done;
    /// `is_over` ends a rest early. Says whether it rested.
    pub fn step(&self, bytes: u64, part: &dyn Fn() -> f64, is_over: &dyn Fn() -> bool) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = self.started.elapsed();
        if nanoseconds(now) < self.work_until.load(Ordering::Relaxed) {
            return false;
        }
        let Some(until) = self.rest_until(now, part) else {
            return false;
        };
        while let Some(left) = until.checked_sub(self.started.elapsed())
            && !left.is_zero()
            && !is_over()
        {
            std::thread::park_timeout(left.min(LOOK_UP));
        }
        self.rested(until);
        waited::forget();
        true
    }

    /// Until when there is rest; none if there is none. The first thread that asks decides for all.
    fn rest_until(&self, now: Duration, part: &dyn Fn() -> f64) -> Option<Duration> {
        let mut turns = self.turns();
        if turns.rest_until.is_some() {
            return turns.rest_until;
        }
        if nanoseconds(now) < self.work_until.load(Ordering::Relaxed) {
            return None;
        }
        let done = Done {
            part: part(),
            bytes: self.bytes.load(Ordering::Relaxed),
        };
        let wall = now.saturating_sub(turns.work_began);
        let worked = Worked {
            wall,
            // Whoever was kept from working took nothing from anybody.
            own: wall.saturating_sub(waited::since()),
        };
        let felt = turns.felt;
        let turn = turns.controller.next(now, worked, felt, done);
        turns.work = turn.work;
        if turn.rest.is_zero() {
            waited::forget();
            self.begin_work(&mut turns, now);
            return None;
        }
        turns.pressure.rest_begins();
        turns.rest_until = Some(now + turn.rest);
        self.work_until.store(0, Ordering::Relaxed);
        turns.rest_until
    }

    /// The first thread that is back begins the next work for all.
    fn rested(&self, until: Duration) {
        let now = self.started.elapsed();
        let mut turns = self.turns();
        if turns.rest_until == Some(until) {
            turns.felt = turns.pressure.rest_ends();
            turns.rest_until = None;
            self.begin_work(&mut turns, now);
        }
    }

    fn begin_work(&self, turns: &mut Turns, now: Duration) {
        turns.work_began = now;
        let until = nanoseconds(now + turns.work);
        self.work_until.store(until, Ordering::Relaxed);
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn pacer(bytes_per_second: u64, within: Duration) -> Pacer {
        let budget = Budget {
            bytes_per_second,
            within,
            urgency: Urgency::Routine,
        };
        Pacer::new(budget, Pressure::open())
    }

    #[test]
    fn two_threads_together_keep_to_the_bytes_of_the_budget() {
        let pacer = pacer(10_000_000, Duration::from_secs(3600));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while pacer.started.elapsed() < Duration::from_secs(1) {
                        std::thread::park_timeout(Duration::from_millis(1));
                        pacer.step(100_000, &|| 0.5, &|| false);
                    }
                });
            }
        });
        let elapsed = pacer.started.elapsed().as_secs_f64();
        let bytes = pacer.bytes.load(Ordering::Relaxed) as f64;
        // What the head start reads is paid for afterwards. Without a budget it would be nearly 200 MB in a second.
        assert!(bytes / elapsed < 20_000_000.0, "{bytes} in {elapsed} s");
    }

    #[test]
    fn a_rest_ends_when_the_pass_is_to_end() {
        let pacer = pacer(1, Duration::from_secs(3600));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let resting = scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(300) {
                    pacer.step(1000, &|| 0.0, &|| over.load(Ordering::Relaxed));
                }
                begun.elapsed()
            });
            std::thread::park_timeout(Duration::from_millis(400));
            over.store(true, Ordering::Relaxed);
            let took = resting.join().unwrap();
            assert!(took < Duration::from_secs(2), "{took:?}");
        });
    }

    #[test]
    fn a_pass_that_is_late_rests_no_more() {
        let pacer = pacer(1, Duration::ZERO);
        for _ in 0..1000 {
            std::thread::yield_now();
            let rested = pacer.step(1_000_000, &|| 0.1, &|| false);
            assert!(!rested);
        }
    }
}
