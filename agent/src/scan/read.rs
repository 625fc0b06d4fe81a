//! Opens a regular file, and reads and hashes it as far as it holds still.

mod content;
mod pass;
mod sealed;
mod wants;

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicBool;

use drift::coverage::{Gap, GapReason};
use drift::observation::Found;
use drift::{Sha256, TreePath};
use driftmark_kernel::direct::Buffer;
use driftmark_kernel::page_cache::{self, Glance, Passing};
use driftmark_kernel::{Stat, boot};

use super::filesystems::Holding;
use super::inodes::Inodes;
use super::long::{LONG_BYTES, MAX_LONG_BYTES};
use super::verified::is_settled;
use super::walk::{Place, gap, is_gone, unreadable};

pub(super) use content::Content;
pub(super) use pass::From;
use pass::{room, whole};
use sealed::Sealed;
pub(super) use sealed::seal;
use wants::measured;
pub(crate) use wants::{HugeOnlyIf, Known, Wants};

/// Which digests to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digests {
    /// What hosts check.
    Blake3,
    /// And what the rest of the world speaks: at bake.
    Both,
}

/// What reading a file gave.
#[allow(
    clippy::large_enum_variant,
    reason = "taken apart at once; nearly all are found"
)]
pub(crate) enum Read {
    /// All that is held of it.
    Found {
        found: Found,
        sha256: Option<Sha256>,
        stat: Stat,
        by: By,
    },
    /// It was not read: what is known of it is enough.
    Enough(Stat),
    /// It is long, and open.
    Long { file: File, stat: Stat },
    /// It is open, and on its way from the disk: [`Reader::read_coming`].
    Coming { file: File, stat: Stat },
    /// It went before it could be opened.
    Gone,
    /// It could not be verified.
    Gap(Gap),
    /// The scan is to end.
    Interrupted,
}

impl Read {
    /// What the file is, of one that was read or will be.
    pub(crate) fn stat(&self) -> Option<&Stat> {
        match self {
            Read::Found { stat, .. } | Read::Long { stat, .. } | Read::Coming { stat, .. } => {
                Some(stat)
            }
            Read::Enough(_) | Read::Gone | Read::Gap(_) | Read::Interrupted => None,
        }
    }
}

/// How the content of a file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// It was read.
    Reading,
    /// The kernel measured it.
    Measuring,
}

/// A thread's buffer, used for file after file.
pub(crate) struct Reader<'a> {
    buffer: Buffer,
    passing: Passing,
    from: From,
    /// Files that were to be read from the disk and could only be read through the page cache.
    pub(super) cached: u64,
    /// Files that were on the disk alone.
    pub(super) cold: u64,
    /// So many bytes of the file that is read next are in the buffer already.
    glanced: usize,
    /// What is read next was asked for before.
    was_asked_for: bool,
    interrupt: &'a AtomicBool,
    names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
    at_work: &'a (dyn Fn(u64) + Sync),
    rest: &'a (dyn Fn(u64) + Sync),
    inodes: &'a Inodes,
}

/// Large enough that a system call costs little, small enough for the cache of a core; a multiple of what any disk asks
/// for.
const BUFFER_BYTES: usize = 256 * 1024;
/// A shorter file costs more to be read around the page cache than it spares.
const AROUND_BYTES: u64 = 1024 * 1024;
/// So much of a file is on its way at most.
const COMING_BYTES: u64 = 1024 * 1024;
/// A file that changes under our hands is read again this often before it is a gap.
const ATTEMPTS: usize = 3;

/// What one attempt at a file comes to.
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
enum Attempt {
    Sealed(Sealed),
    Enough(Stat),
    Long(File, Stat),
    Coming(File, Stat),
    Interrupted,
    Changed,
}

impl<'a> Reader<'a> {
    /// `names_of_image` says whether the image has a file at a path; `at_work` is told now and then how many more bytes
    /// of a long file were read; `inodes` are those that any thread has read.
    pub(crate) fn new(
        interrupt: &'a AtomicBool,
        names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
        at_work: &'a (dyn Fn(u64) + Sync),
        inodes: &'a Inodes,
    ) -> Self {
        Reader {
            buffer: Buffer::new(BUFFER_BYTES),
            passing: Passing::default(),
            from: From::Cache,
            cached: 0,
            cold: 0,
            glanced: 0,
            was_asked_for: false,
            interrupt,
            names_of_image,
            at_work,
            rest: &|_| {},
            inodes,
        }
    }

    /// Asks, after so many more bytes each time, whether it is to rest.
    pub(super) fn resting(mut self, rest: &'a (dyn Fn(u64) + Sync)) -> Self {
        self.rest = rest;
        self
    }

    /// Reads from there, from now on.
    pub(super) fn read_from(&mut self, from: From) {
        self.from = from;
    }

    /// Reads one file. It is read again if it changed meanwhile: a digest is of one state of a file or of none.
    pub(crate) fn read(
        &mut self,
        path: &TreePath,
        place: Place<'_>,
        digests: Digests,
        wants: &Wants,
    ) -> Read {
        for _ in 0..ATTEMPTS {
            match self.attempt(place, digests, wants) {
                Ok(Attempt::Sealed(sealed)) => {
                    return sealed.found(path.clone(), place.holding, wants);
                }
                Ok(Attempt::Enough(stat)) => return Read::Enough(stat),
                Ok(Attempt::Long(file, stat)) => return Read::Long { file, stat },
                Ok(Attempt::Coming(file, stat)) => return Read::Coming { file, stat },
                Ok(Attempt::Interrupted) => return Read::Interrupted,
                Ok(Attempt::Changed) => {}
                Err(error) if is_gone(&error) => return Read::Gone,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Read::Gap(unreadable(path, &error)),
            }
        }
        Read::Gap(gap(path, GapReason::Changing, ""))
    }

    fn attempt(
        &mut self,
        place: Place<'_>,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Attempt> {
        (self.glanced, self.was_asked_for) = (0, false);
        let (file, before) = place.open()?;
        if wants.are_met_by(before.size) {
            return Ok(Attempt::Enough(before));
        }
        if self.from == From::Cache
            && let Some(known) = &wants.known
            && let Some(content) = known.content_of(&file, &before)
        {
            let sealed = Sealed::of(&file, &before, place.holding, content)?;
            return Ok(sealed.map_or(Attempt::Changed, |sealed| {
                Attempt::Sealed(Sealed {
                    by: By::Measuring,
                    ..sealed
                })
            }));
        }
        let is_unread = (wants.around || wants.leave_cold) && self.known(&before, wants).is_none();
        let may_pass = is_unread && wants.around && wants.is_plain();
        let is_around = may_pass && self.turn_around(&file, &before);
        if wants.leave_long && (LONG_BYTES..=MAX_LONG_BYTES).contains(&before.size) {
            self.turn_to_disk(&file)?;
            return Ok(Attempt::Long(file, before));
        }
        self.passing.begin(before.dev);
        let waits = is_unread && wants.leave_cold && !is_around;
        let may_come = waits && (1..LONG_BYTES).contains(&before.size);
        if may_come && self.comes(&file, &before) {
            return Ok(Attempt::Coming(file, before));
        }
        self.seal(&file, &before, place.holding, digests, wants)
    }

    /// Whether a file is on the disk and comes now. Else its beginning is in the buffer, if it could be had at once.
    fn comes(&mut self, file: &File, stat: &Stat) -> bool {
        let beginning = room(&mut self.buffer, whole(stat).end);
        let asked = beginning.len() as u64;
        if stat.size > asked {
            page_cache::as_asked(file);
        }
        match self.passing.glance(file, beginning, 0) {
            Glance::Read(count) => {
                self.glanced = count;
                false
            }
            Glance::Coming => {
                self.cold += 1;
                self.ask_for(file, stat, asked..stat.size.min(COMING_BYTES));
                true
            }
            Glance::Unknown => false,
        }
    }

    /// Reads a file that was asked for earlier. It is opened and read again if it changed meanwhile.
    pub(super) fn read_coming(
        &mut self,
        path: &TreePath,
        place: Place<'_>,
        (file, before): (&File, &Stat),
        wants: &Wants,
    ) -> Read {
        (self.glanced, self.was_asked_for) = (0, true);
        match self.seal(file, before, place.holding, Digests::Blake3, wants) {
            Ok(Attempt::Sealed(sealed)) => sealed.found(path.clone(), place.holding, wants),
            Ok(Attempt::Interrupted) => Read::Interrupted,
            _ => self.read(path, place, Digests::Blake3, wants),
        }
    }

    /// Reads an open file to its end, and looks whether it is still what it was.
    fn seal(
        &mut self,
        file: &File,
        before: &Stat,
        holding: Holding,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Attempt> {
        let began = boot::realtime_ns();
        let content = match self.known(before, wants) {
            Some(content) => content,
            None => match self.content_from_there(file, before, digests, wants)? {
                Some(content) => content,
                None => return Ok(Attempt::Interrupted),
            },
        };
        let Some(mut sealed) = Sealed::of(file, before, holding, content)? else {
            return Ok(Attempt::Changed);
        };
        // One that changed this moment may change again without a trace.
        if self.from == From::Cache && is_settled(&sealed.stat, began) {
            let digests = (sealed.content.blake3, sealed.content.sha256);
            self.inodes.keep(&sealed.stat, digests);
        }
        if digests == Digests::Both && sealed.flags.has_verity() {
            sealed.verity = measured(file)?;
        }
        if let Some(shape) = wants.shape {
            sealed.shape = Some(self.shape(file, &sealed.stat, shape)?);
        }
        Ok(Attempt::Sealed(sealed))
    }

    /// What was read of the file under another name, if its digests are all that is wanted. The disk is always read: what
    /// it holds may be another than what processes see.
    fn known(&self, stat: &Stat, wants: &Wants) -> Option<Content> {
        let is_enough = wants.is_plain() && self.from == From::Cache;
        let (blake3, sha256) = self.inodes.digests(stat).filter(|_| is_enough)?;
        Some(Content {
            sha256,
            ..Content::of(stat.size, blake3)
        })
    }
}
