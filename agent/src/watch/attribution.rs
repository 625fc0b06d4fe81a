//! The actor of an event in, who that was out.
//!
//! Invariant: a number of a process is given to another one as soon as it is free, so nothing that was read by a number
//! is told of an actor unless its descriptor says afterwards that it was still there. What was read of a directory of
//! `/proc` that was opened before is then of that process and of no other. In place of a descriptor it will do that the
//! process that has the number now is one that had it before the event: when it started was kept, and is the same.
//!
//! All that is read is bounded, and is another process's to write: its arguments, its name, its paths.

mod cgroup;
mod process;
mod programs;
mod redaction;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use drift::attribution::{
    Ancestor, Attribution, Confidence, Container, Executable, Origin, Process,
};
use driftmark_kernel::fanotify::{Actor, NoPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use process::Running;
pub(crate) use process::{DELETED, Directory};
use programs::Programs;
pub(crate) use programs::is_loader;
pub use redaction::{CommandLine, redacted};

/// When an event is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promptness {
    /// As soon as it was queued.
    AtOnce,
    /// It was queued while nobody read: its process may have become another program since.
    Late,
}

/// Tells who did it. Remembers which programs were started last, for processes that end before they are looked at.
#[derive(Debug)]
pub struct Witness {
    root: (u64, u64),
    programs: Programs,
    command_line: CommandLine,
}

impl Witness {
    /// One for this machine, or container: what has another root than this process is in a container. Of command lines it
    /// tells as much as `command_line` says.
    ///
    /// # Errors
    /// The root cannot be looked at.
    pub fn new(command_line: CommandLine) -> io::Result<Self> {
        let root = rustix::fs::stat("/")?;
        Ok(Witness {
            root: (root.st_dev, root.st_ino),
            programs: Programs::default(),
            command_line,
        })
    }

    /// A process has opened `program` to run it ([`driftmark_kernel::fanotify::Mask::OPEN_EXEC`]): its absolute path, and
    /// whether the image contains it.
    pub fn ran(&mut self, actor: &Actor, program: &[u8], origin: Origin) {
        let started = || {
            let stat = Directory::open(actor.pid).ok()?.stat();
            let is_it = actor
                .pidfd
                .as_ref()
                .is_ok_and(|pidfd| matches!(state(pidfd), State::Alive | State::Ended));
            stat.filter(|_| is_it).map(|stat| stat.started_milliseconds)
        };
        self.programs.ran(actor.pid, started, program, origin);
    }

    /// Who did it. `in_image` says of a program whether the image contains just this file.
    pub fn attribute(
        &self,
        actor: &Actor,
        promptness: Promptness,
        in_image: impl Fn(&Running) -> bool,
    ) -> Attribution {
        if actor.pid == 0 {
            return Attribution::none();
        }
        let looked = Directory::open(actor.pid).ok();
        let read = looked.map(|directory| self.describe(&directory, in_image));
        let started = read.as_ref().and_then(|read| read.started_milliseconds);
        // Of just this process: one that is known only by its number is none.
        let known = started.and_then(|started| self.programs.of(actor.pid, Some(started)));
        let state = match &actor.pidfd {
            Ok(pidfd) => state(pidfd),
            Err(NoPidfd::Refused | NoPidfd::NotAsked) if known.is_some() => State::Known,
            Err(NoPidfd::Refused | NoPidfd::NotAsked | NoPidfd::Gone) => State::Gone,
        };
        let (confidence, read) = match (state, read) {
            // What a process runs goes first when it ends.
            (State::Alive, Some(read)) if read.executable.is_none() && known.is_some() => {
                (Confidence::Exited, read)
            }
            (State::Alive, Some(read)) if has_become_another(&read, known) => {
                (Confidence::Late, read)
            }
            (State::Alive, Some(read)) => (Confidence::Certain, read),
            (State::Ended, Some(read)) => (Confidence::Exited, read),
            (State::Known, Some(read)) => (Confidence::Late, read),
            // Whatever was read may be of another process.
            _ => (Confidence::Exited, Process::default()),
        };
        let mut process = Process {
            pid: actor.pid,
            ..read
        };
        if process.executable.is_none() {
            let last = self.programs.of(actor.pid, process.started_milliseconds);
            process.executable = last.cloned();
        }
        let confidence = match (confidence, promptness) {
            (Confidence::Certain, Promptness::Late) => Confidence::Late,
            (confidence, _) => confidence,
        };
        Attribution {
            confidence,
            process: Some(process),
        }
    }

    /// Whether a process sees another root than this one; none where that is not told.
    pub(crate) fn is_elsewhere(&self, directory: &Directory) -> Option<bool> {
        directory.root().map(|root| root != self.root)
    }

    /// Who a process is that is not asked after for what it did, but was found. By its directory alone, which was opened
    /// before: all of this is of one process.
    pub(crate) fn found(
        &self,
        pid: u32,
        directory: &Directory,
        in_image: impl Fn(&Running) -> bool,
    ) -> Attribution {
        let read = self.describe(directory, in_image);
        let confidence = match read.started_milliseconds {
            Some(_) => Confidence::Certain,
            None => Confidence::Exited,
        };
        Attribution {
            confidence,
            process: Some(Process { pid, ..read }),
        }
    }

    fn describe(&self, of: &Directory, in_image: impl Fn(&Running) -> bool) -> Process {
        let stat = of.stat();
        let cgroup = of.cgroup();
        let root = of.root();
        let is_elsewhere = root.is_some_and(|root| root != self.root);
        let executable = of.running().map(|running| Executable {
            path: shown(running.path(), Attribution::MAX_TEXT_BYTES),
            origin: match running.origin() {
                // A path in another root is not the image's, whatever it is called.
                Origin::Unknown if is_elsewhere => Origin::Foreign,
                Origin::Unknown if root.is_none() => Origin::Unknown,
                Origin::Unknown if in_image(&running) => Origin::Image,
                Origin::Unknown => Origin::Foreign,
                origin => origin,
            },
        });
        let container = match cgroup.as_deref().and_then(cgroup::container_of) {
            Some((runtime, id)) => Some(Container {
                runtime: Some(runtime.to_owned()),
                id: Some(shown(id, Attribution::MAX_TEXT_BYTES)),
            }),
            None if is_elsewhere => Some(Container {
                runtime: None,
                id: None,
            }),
            None => None,
        };
        let unit = cgroup.as_deref().and_then(cgroup::unit_of);
        let text = |bytes: &[u8]| shown(bytes, Attribution::MAX_TEXT_BYTES);
        Process {
            pid: 0,
            started_milliseconds: stat.as_ref().map(|stat| stat.started_milliseconds),
            executable,
            command_line: (of.arguments()).and_then(|arguments| self.command_line.of(&arguments)),
            directory: of.working_directory().as_deref().map(text),
            uid: of.uid(),
            login_uid: of.number("loginuid"),
            session: of.number("sessionid"),
            unit: unit.map(text),
            cgroup: cgroup.as_deref().map(text),
            container,
            ancestors: stat.map_or_else(Vec::new, |stat| ancestors(&stat)),
        }
    }
}

/// Whether a control group is one that a container runtime made.
pub(crate) fn is_known_container(cgroup: &[u8]) -> bool {
    cgroup::container_of(cgroup).is_some()
}

/// The unit of the system's service manager that a control group is in.
pub(crate) fn unit_of(cgroup: &[u8]) -> Option<&[u8]> {
    cgroup::unit_of(cgroup)
}

/// Whether it runs another program than the last one that it was seen to start before its event.
fn has_become_another(read: &Process, known: Option<&Executable>) -> bool {
    let runs = read.executable.as_ref().map(|program| &program.path);
    known.is_some_and(|known| runs != Some(&known.path))
}

/// A parent that started after its child is another process, which has the number now: the chain ends there.
fn ancestors(child: &process::Stat) -> Vec<Ancestor> {
    let mut chain = Vec::new();
    let (mut next, mut started) = (child.parent, child.started_milliseconds);
    while next != 0 && chain.len() < Attribution::MAX_ANCESTORS {
        let Ok(directory) = Directory::open(next) else {
            break;
        };
        let Some(stat) = directory.stat() else { break };
        if stat.started_milliseconds > started {
            break;
        }
        let running = directory.running();
        chain.push(Ancestor {
            pid: next,
            name: shown(&stat.name, Attribution::MAX_TEXT_BYTES),
            executable: running.map(|running| shown(running.path(), Attribution::MAX_TEXT_BYTES)),
            uid: directory.uid(),
        });
        (next, started) = (stat.parent, stat.started_milliseconds);
    }
    chain
}

/// What the descriptor of a process says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// Ended, and not yet collected by its parent: its number is still its own.
    Ended,
    /// Its number may be another's by now.
    Gone,
    /// There is no descriptor to ask, but it is the process that had the number before.
    Known,
}

fn state(pidfd: &impl AsFd) -> State {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    match poll(&mut polled, Some(&Timespec::default())) {
        Ok(0) => State::Alive,
        // The order matters: collected in between, it has no number any more.
        Ok(_) if number_of(pidfd).is_some_and(|number| number > 0) => State::Ended,
        _ => State::Gone,
    }
}

/// The process's number as its descriptor knows it; -1 once it was collected.
fn number_of(pidfd: &impl AsFd) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let about = process::read_at_most(std::fs::File::open(path).ok()?, 4096)?;
    let line = about
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Pid:"))?;
    str::from_utf8(line).ok()?.trim().parse().ok()
}

/// Bytes as text for people, at most `most` bytes of it.
fn shown(bytes: &[u8], most: usize) -> String {
    // One more than is shown tells that there is more.
    let text = drift::escape(&bytes[..bytes.len().min(most + 1)]);
    cut(text, most)
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = text.floor_char_boundary(most.saturating_sub(MORE.len()));
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

const MORE: &str = "…";
