//! A gate in; each execution that waits there answered, and the gate closed if that takes too long.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use drift::TreePath;
use driftmark_kernel::boot;
use driftmark_kernel::fanotify::{Actor, Answer, Buffer, Gate, NoPidfd, Question};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::judge::Judgement;
use super::{Counts, Ending, Guarding, Mode, PATIENCE, Told};
use crate::watch::Strangers;

/// A program that the image does not hold, of which is to be told.
pub(super) struct Foreign<'a> {
    pub(super) actor: Actor,
    pub(super) path: TreePath,
    /// It is refused once it is known who asked.
    pub(super) waits: Option<Question<'a>>,
}

/// As many wait to be told of; whoever comes then is answered at once, and not named.
const TOLD_AT_ONCE: usize = 8;

impl Guarding<'_> {
    /// Answers what waits at `gate` while `meanwhile` goes on, which has to end as soon as it is told to; `name` is told of
    /// what the image does not hold. The gate is closed in the end. None where it was closed because an answer took too
    /// long: that was told.
    ///
    /// # Errors
    /// Those of `meanwhile`; a sentence where nobody can answer any more.
    pub(super) fn answer<R>(
        &self,
        gate: &Gate,
        judge: impl FnMut(u32, BorrowedFd<'_>) -> Judgement + Send,
        name: impl Fn(Foreign<'_>) + Send,
        meanwhile: impl FnOnce(&Ending) -> Result<R, String>,
    ) -> Result<Option<R>, String> {
        let failed = |error: io::Error| format!("start to answer: {error}");
        let deadline = &Deadline::new().map_err(failed)?;
        let [ending, done] = &[
            Ending::new().map_err(failed)?,
            Ending::new().map_err(failed)?,
        ];
        std::thread::scope(|scope| {
            // Whichever way this ends, the others do.
            let _over = Ends(|| ending.end());
            let (foreign, to_tell) = sync_channel(TOLD_AT_ONCE);
            let spawn = |name: &str| std::thread::Builder::new().name(name.into());
            let telling = move || to_tell.into_iter().for_each(name);
            spawn("tell").spawn_scoped(scope, telling).map_err(failed)?;
            let answers = Answers {
                gate,
                deadline,
                ending,
                counts: self.counts,
                mode: self.order.mode,
                off_switch: &self.order.off_switch,
                strangers: Strangers::default(),
                foreign,
            };
            let answering = move || {
                let _closed = Ends(|| {
                    let _ = gate.close();
                    done.end();
                    ending.end();
                });
                answers.until_over(judge)
            };
            let answering = spawn("answer").spawn_scoped(scope, answering);
            let answering = answering.map_err(failed)?;
            let closing = move || self.close_if_late(gate, deadline, done, ending);
            let closing = spawn("late").spawn_scoped(scope, closing).map_err(failed)?;
            let outcome = meanwhile(ending);
            ending.end();
            if closing.join().unwrap_or(false) {
                return Ok(None);
            }
            // Why nobody answers is the reason for whatever else has ended.
            answering.join().unwrap_or(Ok(()))?;
            outcome.map(Some)
        })
    }

    /// Until there is no more answer to wait for. Whoever answers may be stuck for good: that it was too late is told here.
    fn close_if_late(
        &self,
        gate: &Gate,
        deadline: &Deadline,
        done: &Ending,
        ending: &Ending,
    ) -> bool {
        let mut polled = [
            PollFd::new(&done.wake, PollFlags::IN),
            PollFd::new(&deadline.0, PollFlags::IN),
        ];
        while poll(&mut polled, None) == Err(Errno::INTR) {}
        if done.is_over() {
            return false;
        }
        let _ = gate.close();
        ending.end();
        (self.tell)(Told::Ended(format!(
            "an answer took more than {} ms",
            PATIENCE.as_millis()
        )));
        true
    }
}

/// The thread that answers, and waits for nobody.
struct Answers<'a> {
    gate: &'a Gate,
    deadline: &'a Deadline,
    ending: &'a Ending,
    counts: &'a Counts,
    mode: Mode,
    off_switch: &'a Path,
    strangers: Strangers,
    foreign: SyncSender<Foreign<'a>>,
}

impl<'a> Answers<'a> {
    fn until_over(
        mut self,
        mut judge: impl FnMut(u32, BorrowedFd<'_>) -> Judgement,
    ) -> Result<(), String> {
        let mut buffer = Buffer::default();
        loop {
            let mut polled = [
                PollFd::new(&self.ending.wake, PollFlags::IN),
                PollFd::new(self.gate, PollFlags::IN),
            ];
            // Interrupted, it merely looks too early.
            let _ = poll(&mut polled, None);
            if self.ending.is_over() {
                return Ok(());
            }
            self.deadline.begins();
            self.answer_some(&mut buffer, &mut judge)?;
            self.deadline.is_kept();
        }
    }

    fn answer_some(
        &mut self,
        buffer: &mut Buffer,
        judge: &mut dyn FnMut(u32, BorrowedFd<'_>) -> Judgement,
    ) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("questions cannot be read: {error}");
        let questions = match self.gate.read(buffer) {
            Ok(questions) => questions,
            // No descriptor was left, and the kernel has refused one by itself.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => return Err(failed(&error)),
        };
        for question in questions.into_iter().flatten() {
            let question = question.map_err(|error| failed(&error))?;
            self.deadline.begins();
            let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
            // Nobody waits any more where it cannot be answered.
            let _ = match judge(question.actor.pid, question.file()) {
                Judgement::Image => question.allow_from_now_on(),
                Judgement::Allowed => question.answer(Answer::Allow),
                Judgement::Container => {
                    count(&self.counts.containers);
                    question.answer(Answer::Allow)
                }
                Judgement::Untold => {
                    count(&self.counts.untold);
                    question.answer(Answer::Allow)
                }
                Judgement::Foreign(path) => {
                    count(&self.counts.foreign);
                    self.foreign(question, path)
                }
            };
        }
        Ok(())
    }

    fn foreign(&mut self, mut question: Question<'a>, path: TreePath) -> io::Result<()> {
        let is_refused =
            self.mode == Mode::ImagePrograms && rustix::fs::stat(self.off_switch).is_err();
        let answer = match is_refused {
            true => Answer::Deny,
            false => Answer::Allow,
        };
        let now = Duration::from_nanos(boot::boottime_ns());
        if !self.strangers.is_news(&path, now) {
            return question.answer(answer);
        }
        let nobody = Actor {
            pid: 0,
            pidfd: Err(NoPidfd::NotAsked),
        };
        let actor = std::mem::replace(&mut question.actor, nobody);
        let mut told = Foreign {
            actor,
            path,
            waits: None,
        };
        if is_refused {
            told.waits = Some(question);
        } else {
            // It is never slower for being told of.
            question.answer(answer)?;
        }
        match self.foreign.try_send(told) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(told) | TrySendError::Disconnected(told)) => {
                self.counts.unnamed.fetch_add(1, Ordering::Relaxed);
                told.waits
                    .map_or(Ok(()), |question| question.answer(answer))
            }
        }
    }
}

/// When an answer has to be given.
struct Deadline(OwnedFd);

impl Deadline {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Deadline(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    fn begins(&self) {
        self.set(PATIENCE);
    }

    fn is_kept(&self) {
        self.set(Duration::ZERO);
    }

    fn set(&self, after: Duration) {
        let span = |span: Duration| Timespec {
            tv_sec: span.as_secs().cast_signed(),
            tv_nsec: span.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: span(Duration::ZERO),
            it_value: span(after),
        };
        // A time that can be is never refused.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once);
    }
}

/// Does something when it goes, however that is.
struct Ends<F: Fn()>(F);

impl<F: Fn()> Drop for Ends<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
