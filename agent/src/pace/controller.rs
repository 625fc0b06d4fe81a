//! What others feel and how far a pass is in; how long to work and how long to rest out. Pure.
//!
//! The share of the time that is worked goes down fast while anybody waits or works beside us, and up slowly while nobody
//! does (as TCP does with a line that it shares). Under it lies what the pass needs to end in time, above it what the
//! budget in bytes leaves.

use std::time::Duration;

/// What a pass may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of content a second.
    pub bytes_per_second: u64,
    /// How long it may take: what would take longer rests less, whatever others feel.
    pub within: Duration,
    /// How much it matters when it ends.
    pub urgency: Urgency,
}

/// How much it matters when a pass ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It is one of many that find nothing new.
    Routine,
    /// Somebody waits for what it finds: nobody knows yet how this instance is, or it is what notices a change.
    Awaited,
}

impl Urgency {
    /// The share of the time that is worked whatever others feel.
    fn least_share(self) -> f64 {
        match self {
            Urgency::Routine => LEAST_SHARE,
            Urgency::Awaited => AWAITED_SHARE,
        }
    }
}

/// What others felt while we rested, each as a share of that time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Felt {
    /// Somebody waited for a processor, for a disk, or for memory: the longest of the three.
    pub(super) waited: f64,
    /// Somebody worked.
    pub(super) is_busy: bool,
}

/// How long was worked since the last rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Worked {
    /// By the clock.
    pub(super) wall: Duration,
    /// Without what was waited for a processor.
    pub(super) own: Duration,
}

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Done {
    /// From 0 to 1.
    pub(super) part: f64,
    /// Bytes read.
    pub(super) bytes: u64,
}

/// First rest, then work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) rest: Duration,
    pub(super) work: Duration,
}

/// Decides turn after turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Controller {
    budget: Budget,
    /// The share of the time that is worked, for what others feel.
    share: f64,
    /// How long was worked in all, and in how many turns.
    worked: Duration,
    turns: u32,
    /// Until when the last turn rests.
    rests_until: Duration,
    /// In which we were stopped, and neither worked nor rested.
    stopped: Duration,
    /// How often we were.
    stops: u32,
    bytes: u64,
    /// When the bytes that were read have been paid for.
    paid: Duration,
}

/// A pass works so long before it first rests: a small tree is done by then, and nobody notices so little.
pub(super) const HEAD_START: Duration = Duration::from_millis(20);
/// Where others work, as one who is hardly there. A slice of [`MIN_WORK`] each [`PERIOD`] meets one or two in a thousand of
/// what takes a millisecond: were it one in a hundred, their 99th percentile would be what the slowest of those that it
/// meets take (`benches/runs`). A full pass goes on beside quick ones: nothing but its own end waits for it.
const LEAST_SHARE: f64 = 0.001;
/// What is awaited is rare, or soon done.
const AWAITED_SHARE: f64 = MOST_SHARE;
/// Until it is known which of both it is.
const FIRST_SHARE: f64 = 0.1;
/// Where nobody does. The other half shows whether somebody comes.
const MOST_SHARE: f64 = 0.5;
/// As a rest and the work after it together take, at the least share.
const PERIOD: Duration = Duration::from_secs(2);
/// Less work than this is mostly waking up.
const MIN_WORK: Duration = Duration::from_millis(2);
/// More would be felt by who comes in the middle of it.
const MAX_WORK: Duration = Duration::from_millis(10);
/// A read that took long is rested from longer, up to this: a pass has to end at some time, and its watchdog wants news.
const MAX_REST: Duration = Duration::from_secs(10);
/// A wait shorter than this share of the time is nobody's trouble.
const UNFELT: f64 = 0.02;
const DOWN: f64 = 0.2;
const UP: f64 = 1.25;
/// Work that took longer than this, and so many times as long as it usually does, was interrupted: the process was stopped,
/// or frozen. A slow disk makes all of it slow.
const UNUSUAL_WORK: Duration = Duration::from_millis(100);
const UNUSUAL: u32 = 8;
/// So was a rest that ended so much too late.
const UNUSUALLY_LATE: Duration = Duration::from_secs(1);
/// A pass is not stopped more often than so: where all is so uneven, it is the machine, and the pass has to end all the same.
const MOST_STOPS: u32 = 8;
/// An estimate of what is left is this much too low.
const MARGIN: f64 = 1.25;

impl Controller {
    pub(super) fn new(budget: Budget) -> Self {
        Controller {
            budget,
            share: FIRST_SHARE.max(budget.urgency.least_share()),
            worked: Duration::ZERO,
            turns: 0,
            rests_until: Duration::ZERO,
            stopped: Duration::ZERO,
            stops: 0,
            bytes: 0,
            paid: Duration::ZERO,
        }
    }

    /// What comes next, at `now` since the pass began, after so much work; `felt` is of the rest before that.
    pub(super) fn next(&mut self, now: Duration, worked: Worked, felt: Felt, done: Done) -> Turn {
        let (now, worked) = self.without_stops(now, worked);
        self.worked += worked.wall;
        self.turns += 1;
        let is_felt = felt.is_busy || felt.waited > UNFELT;
        self.share = match is_felt {
            true => (self.share * DOWN).max(self.budget.urgency.least_share()),
            false => (self.share * UP).min(MOST_SHARE),
        };
        let read = done.bytes.saturating_sub(self.bytes);
        self.bytes = done.bytes;
        let limit = self.budget.bytes_per_second.max(1) as f64;
        self.paid = self.paid.max(now.saturating_sub(worked.wall)) + seconds(read as f64 / limit);
        let wanted = rest_after(worked.own, self.share).max(self.paid.saturating_sub(now));
        let needed = self.needed_share(now, done.part);
        let time_left = self.budget.within.saturating_sub(now);
        let rest = wanted.min(rest_after(worked.wall, needed));
        let rest = rest.min(MAX_REST).min(time_left);
        let share = self.share.max(needed);
        self.rests_until = now + rest;
        Turn {
            rest,
            work: PERIOD.mul_f64(share).clamp(MIN_WORK, MAX_WORK),
        }
    }

    /// The time as it would be, had nobody stopped us. A pass that counted that as its own would think that it is slow, or
    /// late, and hurry as soon as it goes on.
    fn without_stops(&mut self, now: Duration, worked: Worked) -> (Duration, Worked) {
        let usual = self.worked.checked_div(self.turns).unwrap_or_default();
        let wall = worked.wall.min(UNUSUAL_WORK.max(usual * UNUSUAL));
        let now = now.saturating_sub(self.stopped);
        let began = now.saturating_sub(worked.wall);
        let late = began.saturating_sub(self.rests_until + UNUSUALLY_LATE);
        let stopped = late + (worked.wall - wall);
        if stopped.is_zero() || self.stops == MOST_STOPS {
            return (now, worked);
        }
        self.stops += 1;
        self.stopped += stopped;
        let own = worked.own.min(wall);
        (now.saturating_sub(stopped), Worked { wall, own })
    }

    /// The share of the time that is left, at which what is left would just be done in it.
    fn needed_share(&self, now: Duration, part: f64) -> f64 {
        let time_left = self.budget.within.saturating_sub(now).as_secs_f64();
        if time_left <= 0.0 {
            return 1.0;
        }
        if part <= 0.0 {
            return 0.0;
        }
        let work_left = self.worked.as_secs_f64() * (1.0 - part.min(1.0)) / part;
        (MARGIN * work_left / time_left).min(1.0)
    }
}

/// How long one rests from so much work to have worked this share of the time.
fn rest_after(worked: Duration, share: f64) -> Duration {
    if share <= 0.0 {
        return Duration::MAX;
    }
    seconds(worked.as_secs_f64() * (1.0 - share.min(1.0)) / share)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIET: Felt = Felt {
        waited: 0.0,
        is_busy: false,
    };
    const BUSY: Felt = Felt {
        waited: 0.3,
        is_busy: true,
    };

    fn all(wall: Duration) -> Worked {
        Worked { wall, own: wall }
    }

    fn controller(bytes_per_second: u64, within: u64) -> Controller {
        Controller::new(Budget {
            bytes_per_second,
            within: Duration::from_secs(within),
            urgency: Urgency::Routine,
        })
    }

    /// Lives through a pass of so much work, of which each turn does what it may; says how long it took.
    fn live(controller: Controller, work: f64, bytes: f64, felt: impl Fn(f64) -> Felt) -> f64 {
        live_slowly(controller, work, bytes, 0.0, felt)
    }

    /// The same where no turn ends sooner than after so many seconds.
    fn live_slowly(
        mut controller: Controller,
        work: f64,
        bytes: f64,
        slowest: f64,
        felt: impl Fn(f64) -> Felt,
    ) -> f64 {
        let (mut now, mut done, mut turn_work) = (0.02, 0.0, 0.02_f64);
        while done < work {
            done += turn_work;
            let part = (done / work).min(1.0);
            let turn = controller.next(
                seconds(now),
                all(seconds(turn_work)),
                felt(now),
                Done {
                    part,
                    bytes: (part * bytes) as u64,
                },
            );
            turn_work = turn.work.as_secs_f64().max(slowest);
            now += turn.rest.as_secs_f64() + turn_work;
        }
        now
    }

    #[test]
    fn where_nobody_is_half_of_the_time_is_worked_and_where_somebody_is_hardly_any() {
        let alone = live(controller(u64::MAX, 36_000), 10.0, 0.0, |_| QUIET);
        assert!((20.0..25.0).contains(&alone), "{alone} s");
        let busy = live(controller(u64::MAX, 36_000), 10.0, 0.0, |_| BUSY);
        assert!((9500.0..10_500.0).contains(&busy), "{busy} s");
    }

    #[test]
    fn who_comes_is_made_room_for_within_a_second() {
        let mut controller = controller(u64::MAX, 36_000);
        let done = Done {
            part: 0.01,
            bytes: 0,
        };
        let work = Duration::from_millis(10);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            let turn = controller.next(now, all(work), QUIET, done);
            now += turn.rest + turn.work;
        }
        assert!((controller.share - MOST_SHARE).abs() < 1e-9);
        let came = now;
        while controller.share > 0.01 {
            let turn = controller.next(now, all(Duration::from_millis(2)), BUSY, done);
            now += turn.rest + turn.work;
        }
        assert!(now - came < Duration::from_secs(1), "{:?}", now - came);
    }

    #[test]
    fn a_pass_that_would_take_too_long_ends_in_time_whatever_others_feel() {
        for work in [1.0, 60.0, 600.0, 1700.0] {
            let took = live(controller(1 << 20, 1800), work, 1e10, |_| BUSY);
            assert!(
                took <= 1801.0 + 0.2 * work,
                "{work} s of work took {took} s"
            );
        }
    }

    /// The seconds that the next so many turns take, in which others work, and how many of them are worked.
    fn busy_turns(controller: &mut Controller, now: &mut Duration, turns: u32) -> (f64, f64) {
        let (mut took, mut worked) = (0.0, 0.0);
        for _ in 0..turns {
            // Of five minutes of work, as much as was done.
            let part = controller.worked.as_secs_f64().min(300.0) / 300.0;
            let work = Duration::from_millis(2);
            let turn = controller.next(*now, all(work), BUSY, Done { part, bytes: 0 });
            *now += turn.rest + work;
            took += (turn.rest + work).as_secs_f64();
            worked += work.as_secs_f64();
        }
        (took, worked)
    }

    #[test]
    fn who_was_stopped_does_not_hurry_afterwards() {
        for stopped in [1, 3, 60, 1000, 100_000].map(Duration::from_secs) {
            for is_at_work in [true, false] {
                let (mut twins, mut now) = ([controller(1 << 26, 1800); 2], Duration::ZERO);
                let mut other = now;
                busy_turns(&mut twins[0], &mut now, 100);
                busy_turns(&mut twins[1], &mut other, 100);
                now += stopped;
                if is_at_work {
                    let wall = stopped + Duration::from_millis(2);
                    let part = twins[0].worked.as_secs_f64() / 300.0;
                    let turn = twins[0].next(now, all(wall), BUSY, Done { part, bytes: 0 });
                    now += turn.rest + turn.work;
                }
                let (took, worked) = busy_turns(&mut twins[0], &mut now, 100);
                let (usual, as_much) = busy_turns(&mut twins[1], &mut other, 100);
                assert!(
                    worked / took < 1.5 * as_much / usual,
                    "{worked} s of {took} s after {stopped:?}, {as_much} s of {usual} s else"
                );
            }
        }
    }

    #[test]
    fn where_every_rest_ends_late_a_pass_ends_in_time_all_the_same() {
        let mut controller = controller(1 << 26, 600);
        let late = UNUSUALLY_LATE + Duration::from_secs(3);
        let (mut now, mut worked) = (0.0, 0.0);
        // Of a minute of work.
        while worked < 60.0 {
            let done = Done {
                part: worked / 60.0,
                bytes: 0,
            };
            let turn = controller.next(seconds(now), all(MIN_WORK), BUSY, done);
            worked += turn.work.as_secs_f64();
            now += (turn.rest + turn.work).as_secs_f64();
            if !turn.rest.is_zero() {
                now += late.as_secs_f64();
            }
        }
        let forgiven = f64::from(MOST_STOPS) * late.as_secs_f64();
        assert!(now < 600.0 + 60.0 + forgiven, "{now} s");
    }

    #[test]
    fn bytes_keep_to_their_budget() {
        let took = live(controller(1_000_000, 36_000), 1.0, 1e9, |_| QUIET);
        assert!((985.0..1010.0).contains(&took), "{took} s");
    }

    proptest! {
        #[test]
        fn a_rest_is_bounded_and_no_longer_for_who_is_late(
            turns in prop::collection::vec((0_u64..200, 0.0..1.0_f64, any::<bool>(), 0_u64..1 << 24), 1..200),
            limit in 1_u64..1 << 32,
            within in 1_u64..7200,
        ) {
            let mut controller = controller(limit, within);
            let (mut now, mut bytes) = (Duration::ZERO, 0);
            for (nth, (worked, waited, is_busy, more)) in turns.iter().enumerate() {
                let worked = Duration::from_millis(*worked);
                now += worked;
                bytes += more;
                let felt = Felt { waited: *waited, is_busy: *is_busy };
                let part = (nth + 1) as f64 / turns.len() as f64;
                let turn = controller.next(now, all(worked), felt, Done { part, bytes });
                prop_assert!(turn.rest <= MAX_REST);
                prop_assert!((MIN_WORK..=MAX_WORK).contains(&turn.work));
                prop_assert!((LEAST_SHARE..=MOST_SHARE).contains(&controller.share));
                if now - controller.stopped >= controller.budget.within {
                    prop_assert_eq!(turn.rest, Duration::ZERO);
                }
                now += turn.rest;
            }
        }

        #[test]
        fn whatever_others_feel_a_pass_ends_within_its_time_and_a_fifth_of_its_work(
            work in 0.1..300.0_f64,
            slowest in 0.0..3.0_f64,
            seed in any::<u64>(),
        ) {
            let felt = |now: f64| match (now as u64).wrapping_mul(seed | 1) >> 63 {
                0 => QUIET,
                _ => BUSY,
            };
            let took = live_slowly(controller(1 << 22, 600), work, 1e9, slowest, felt);
            let late = took - 600.0 - 0.2 * work;
            prop_assert!(late <= 1.0 + 2.0 * slowest, "{} s of work took {} s", work, took);
        }
    }
}
