//! File systems in, executions that wait for an answer out.
//!
//! Invariant: each that is read gets an answer. One that is dropped unanswered, whyever, is allowed, also where what came
//! with it is malformed; and the kernel allows what waits when the gate is closed, so that an agent that dies locks nobody
//! out. But where this process has no descriptor left for the file, the kernel denies by itself: whoever has a gate keeps
//! descriptors free ([`Gate::read`]). So that nobody is locked out, a gate is never kept while the process is away, and a
//! process that has one starts no other: until its program runs a child holds the gate too, and if that program has to
//! ask, it waits for itself. Nor does it dump core ([`crate::process::dump_no_core`]): the kernel would run a program that
//! takes the dump, and wait for that with the gate still open.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::fanotify::{Fanotify, MarkFlags, MaskFlags};
use rustix::fs::{Mode, OFlags};

use super::Mask;
use super::event::{Actor, Events};
use super::record::{METADATA_BYTES, Malformed};
use super::watch::{Buffer, group, known, read_some_of_group};
use crate::sys;

/// A queue of executions that wait: a permission group.
#[derive(Debug)]
pub struct Gate {
    group: Fanotify,
    /// What is in its place once it is closed: there has to be a descriptor for that.
    nothing: OwnedFd,
}

/// What becomes of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It runs.
    Allow,
    /// `EPERM`.
    Deny,
}

impl Gate {
    /// As many are read at once: each takes up to two descriptors.
    pub const AT_ONCE: usize = 32;
    /// What comes with a question: its metadata, and the descriptor of its process.
    const READ_BYTES: usize = Gate::AT_ONCE * (METADATA_BYTES + PIDFD_BYTES);

    /// A queue for executions in the file systems that are marked.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` before Linux 5.15; there is no `/dev/null`.
    pub fn open() -> io::Result<Gate> {
        let flags = libc::FAN_CLASS_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_REPORT_PIDFD;
        // What is opened for the answer is read and nothing else, and reading leaves no trace.
        let events =
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME | OFlags::from_bits_retain(LARGE);
        let nothing = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Gate {
            group: group(flags, events)?,
            nothing: rustix::fs::open(c"/dev/null", nothing, Mode::empty())?,
        })
    }

    /// From now on whatever is run from the file system that `top` lies in waits for an answer.
    ///
    /// # Errors
    /// `EINVAL` where the kernel has no such questions (`CONFIG_FANOTIFY_ACCESS_PERMISSIONS`).
    pub fn guard(&self, top: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(MarkFlags::FAN_MARK_FILESYSTEM, top)
    }

    /// Closes it for good, also while another thread is in the middle of an answer: whatever waits is allowed, and nothing
    /// waits any more. Only what another thread is just reading, or polling for, waits until that is done.
    ///
    /// # Errors
    /// None that is known: a filter of system calls has no room for it.
    pub fn close(&self) -> io::Result<()> {
        Ok(sys::replace(&self.group, self.nothing.as_fd())?)
    }

    fn mark(&self, how: MarkFlags, file: BorrowedFd<'_>) -> io::Result<()> {
        let mask = MaskFlags::from_bits_retain(Mask::OPEN_EXEC_PERM.0);
        let nothing_below = None::<&std::ffi::CStr>;
        let flags = MarkFlags::FAN_MARK_ADD | how;
        let marked = self.group.mark(flags, mask, file, nothing_below);
        Ok(marked.map_err(known)?)
    }

    /// Takes the executions that wait, at most [`Gate::AT_ONCE`] of them; none where none waits.
    ///
    /// # Errors
    /// `EMFILE`: this process has no descriptor left for the file. The kernel has then **denied** the execution, without
    /// anybody being asked. It tells only where that was the first of a read: of one that comes after others in the same
    /// read nothing is said. An execution takes up to two descriptors until it is dropped (its file and its process).
    pub fn read<'g, 'b>(&'g self, buffer: &'b mut Buffer) -> io::Result<Option<Questions<'g, 'b>>> {
        let length = read_some_of_group(&self.group, buffer, Gate::READ_BYTES)?;
        let buffer: &'b Buffer = buffer;
        Ok(length.map(|length| Questions {
            // SAFETY: that is what the group was just read into.
            events: unsafe { Events::just_read(buffer, length) },
            gate: self,
        }))
    }

    /// As [`Gate::read`], of a kernel that spoils what it writes.
    #[cfg(test)]
    pub(super) fn read_spoilt<'g, 'b>(
        &'g self,
        buffer: &'b mut Buffer,
        spoil: impl FnOnce(&mut [u8]),
    ) -> io::Result<Option<Questions<'g, 'b>>> {
        let length = read_some_of_group(&self.group, buffer, Gate::READ_BYTES)?;
        if let Some(length) = length {
            spoil(buffer.bytes_mut().get_mut(..length).unwrap_or_default());
        }
        let buffer: &'b Buffer = buffer;
        Ok(length.map(|length| Questions {
            // SAFETY: that is what the group was just read into, and no test makes a descriptor another.
            events: unsafe { Events::just_read(buffer, length) },
            gate: self,
        }))
    }

    fn respond(&self, file: BorrowedFd<'_>, answer: Answer) -> io::Result<()> {
        let answer = match answer {
            Answer::Allow => libc::FAN_ALLOW,
            Answer::Deny => libc::FAN_DENY,
        };
        // `struct fanotify_response`.
        let mut response = [0; 8];
        response[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        response[4..].copy_from_slice(&answer.to_ne_bytes());
        rustix::io::retry_on_intr(|| rustix::io::write(&self.group, &response))?;
        Ok(())
    }
}

impl AsFd for Gate {
    /// To poll; never to be kept elsewhere.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The questions of one read. What is not taken is allowed.
#[derive(Debug)]
pub struct Questions<'g, 'b> {
    events: Events<'b>,
    gate: &'g Gate,
}

impl<'g> Iterator for Questions<'g, '_> {
    type Item = Result<Question<'g>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (event, outcome) = match self.events.next_with_its_file()? {
                Ok(read) => read,
                // Where it would be cannot be told, so nobody can answer.
                Err(error) => return Some(Err(error)),
            };
            // Only a lost question has no file, and nobody waits for that one.
            let question = event.file.map(|file| Question {
                actor: event.actor,
                file,
                gate: self.gate,
                is_answered: false,
            });
            match (outcome, question) {
                (Err(error), question) => {
                    // Allowed by that, before the error is told.
                    drop(question);
                    return Some(Err(error));
                }
                (Ok(()), Some(question)) => return Some(Ok(question)),
                (Ok(()), None) => {}
            }
        }
    }
}

impl Drop for Questions<'_, '_> {
    fn drop(&mut self) {
        for question in self {
            drop(question);
        }
    }
}

/// An execution that waits.
#[derive(Debug)]
#[must_use = "dropped, it is allowed"]
pub struct Question<'a> {
    /// The process that is to become the program.
    pub actor: Actor,
    file: OwnedFd,
    gate: &'a Gate,
    is_answered: bool,
}

impl Question<'_> {
    /// The file that is to be run, for reading.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Allows it, and has the kernel ask about this file no more, until somebody writes to it or the kernel forgets it: not
    /// even who is stopped keeps it waiting.
    ///
    /// # Errors
    /// Those of [`Question::answer`]. A kernel that knows no such marks (before 5.19) asks again.
    pub fn allow_from_now_on(self) -> io::Result<()> {
        let ignored = MarkFlags::FAN_MARK_IGNORED_MASK | MarkFlags::FAN_MARK_EVICTABLE;
        let _ = self.gate.mark(ignored, self.file.as_fd());
        self.answer(Answer::Allow)
    }

    /// Answers it.
    ///
    /// # Errors
    /// Nobody waits any more: the process was killed. Whatever the error, nothing is left waiting that another answer
    /// could be given to.
    pub fn answer(mut self, answer: Answer) -> io::Result<()> {
        self.is_answered = true;
        self.gate.respond(self.file.as_fd(), answer)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let _ = self.gate.respond(self.file.as_fd(), Answer::Allow);
        }
    }
}

/// `struct fanotify_event_info_pidfd`.
const PIDFD_BYTES: usize = 8;
/// Without it a file of more than 2 GiB would answer for itself. Zero where it goes without saying.
const LARGE: u32 = libc::O_LARGEFILE as u32;
