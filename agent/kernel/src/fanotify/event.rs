//! Records in, events whose descriptors are owned out.

use std::os::fd::OwnedFd;

use super::record::{Fault, Handle, Info, Malformed, Place, Record, Records, records};
use super::{Buffer, Mask};
use crate::sys;

/// Something that happened in a watched file system or mount namespace, or to the watch itself ([`Event::is_overflow`]).
#[derive(Debug)]
pub struct Event<'a> {
    /// What.
    pub what: Mask,
    /// Who did it, as far as that can still be told.
    pub actor: Actor,
    /// The name that it happened to, or `.` for a directory itself.
    pub place: Option<Place<'a>>,
    /// With [`Mask::RENAME`]: the name before.
    pub from: Option<Place<'a>>,
    /// With [`Mask::RENAME`]: the name after.
    pub to: Option<Place<'a>>,
    /// What it happened to. May be gone: a name is the better key.
    pub object: Option<Handle<'a>>,
    /// With [`Mask::MOUNTED`] and [`Mask::UNMOUNTED`]: the mount's unique number.
    pub mount: Option<u64>,
    /// With [`Mask::FS_ERROR`]: what the file system says.
    pub fault: Option<Fault>,
    /// The file itself, in a [`crate::fanotify::Gate`].
    pub file: Option<OwnedFd>,
}

/// The process that an event comes from.
#[derive(Debug)]
pub struct Actor {
    /// Its number; 0 where it is not of this pid namespace, or where nobody did it.
    pub pid: u32,
    /// A descriptor of just that process, whatever its number is given to later.
    pub pidfd: Result<OwnedFd, NoPidfd>,
}

/// Why there is no descriptor of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPidfd {
    /// It ended before the event was read.
    Gone,
    /// The kernel could not make one: this process has too many files open, say.
    Refused,
    /// The watch could not ask for one, or nobody did it.
    NotAsked,
}

impl Event<'_> {
    /// Whether events were lost from here on, because the queue was full: what may have changed is to be looked at again.
    pub fn is_overflow(&self) -> bool {
        self.what.has(Mask::OVERFLOW)
    }
}

/// The events of one read. What is not taken is closed with it, but for what cannot be found ([`super::Malformed`]).
#[derive(Debug)]
pub struct Events<'a> {
    records: Records<'a>,
}

impl<'a> Events<'a> {
    /// Of the first `length` bytes of `buffer`.
    ///
    /// # Safety
    /// They are what the kernel has just written there when a fanotify group was read, and nobody has looked at them yet:
    /// so the descriptors in them are this process's and nobody's.
    pub(super) unsafe fn just_read(buffer: &'a Buffer, length: usize) -> Self {
        Events {
            records: records(buffer.bytes().get(..length).unwrap_or_default()),
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.next_with_its_file()?;
        Some(read.and_then(|(event, outcome)| outcome.map(|()| event)))
    }
}

impl<'a> Events<'a> {
    /// The next event, whatever is wrong with what came with it: somebody may wait for an answer about its file.
    pub(super) fn next_with_its_file(&mut self) -> Option<Result<Read<'a>, Malformed>> {
        // SAFETY: they are records of what the kernel has just written, and each comes once.
        let taken = |record: Record<'a>| unsafe { event(&record) };
        Some(self.records.next()?.map(taken))
    }
}

/// An event, and whether all that came with it could be read.
type Read<'a> = (Event<'a>, Result<(), Malformed>);

impl Drop for Events<'_> {
    fn drop(&mut self) {
        for event in self {
            drop(event);
        }
    }
}

/// Takes the descriptors that are numbers there.
///
/// # Safety
/// The record comes straight from the kernel, and is passed here once.
unsafe fn event<'a>(record: &Record<'a>) -> Read<'a> {
    // SAFETY: so is this descriptor.
    let file = unsafe { sys::adopt(record.file) };
    let mut event = Event {
        what: record.what,
        actor: Actor {
            pid: u32::try_from(record.pid).unwrap_or(0),
            pidfd: Err(NoPidfd::NotAsked),
        },
        place: None,
        from: None,
        to: None,
        object: None,
        mount: None,
        fault: None,
        file,
    };
    let mut outcome = Ok(());
    for info in record.infos() {
        // To the end, whatever is wrong on the way: a descriptor may come after it.
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                outcome = Err(error);
                continue;
            }
        };
        match info {
            Info::Pidfd(number) => {
                // SAFETY: so is this one.
                let pidfd = unsafe { sys::adopt(number) };
                event.actor.pidfd = pidfd.ok_or(if number == libc::FAN_NOPIDFD {
                    NoPidfd::Gone
                } else {
                    NoPidfd::Refused
                });
            }
            Info::Object(handle) => event.object = Some(handle),
            Info::Directory(directory) => {
                event.place = Some(Place {
                    directory,
                    name: b".",
                });
            }
            Info::Place(place) => event.place = Some(place),
            Info::From(place) => event.from = Some(place),
            Info::To(place) => event.to = Some(place),
            Info::Mount(number) => event.mount = Some(number),
            Info::Fault(fault) => event.fault = Some(fault),
            Info::Unknown(_) => {}
        }
    }
    (event, outcome)
}
