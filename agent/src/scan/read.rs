//! Opens a regular file, and reads and hashes it as far as it holds still.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use drift::coverage::{Gap, GapReason};
use drift::entry::{FileFlags, Measurement, Node, Xattrs};
use drift::observation::Found;
use drift::report::HeldPrefix;
use drift::rules::Shape;
use drift::{Blake3, Sha256, TreePath};
use driftmark_kernel::direct::{self, Buffer};
use driftmark_kernel::page_cache::{self, Glance, Passing};
use driftmark_kernel::{Stat, flags, verity, xattrs};
use sha2::Digest as _;

use super::filesystems::Holding;
use super::inodes::Inodes;
use super::long::{LONG_BYTES, MAX_LONG_BYTES};
use super::walk::{Place, entry, gap, group, is_gone, unreadable};

/// Which digests to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digests {
    /// What hosts check.
    Blake3,
    /// And what the rest of the world speaks: at bake.
    Both,
}

/// What is wanted of a file beside its digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// The digest of its first so many bytes.
    pub(crate) prefix: Option<u64>,
    /// The digest of its beginning up to the length that was held.
    pub(crate) held: Option<u64>,
    /// Whether its content has this shape.
    pub(crate) shape: Option<Shape>,
    /// No reading, if the kernel measures what was measured of it at bake.
    pub(crate) known: Option<Known>,
    /// Nothing, of a huge file that cannot be what it should be.
    pub(crate) only_if: Option<HugeOnlyIf>,
    /// Nothing yet, of a file of [`LONG_BYTES`] and more: that is for later.
    pub(crate) leave_long: bool,
    /// Nothing yet, of a shorter file that is on the disk alone: it is asked for, and read when it has come.
    pub(crate) leave_cold: bool,
}

/// A content that is known by what fs-verity measures of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) measurement: Measurement,
    pub(crate) size: u64,
    pub(crate) content: Blake3,
}

/// When a huge file is read at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HugeOnlyIf {
    /// Huge is what has more bytes than this.
    pub(crate) longer_than: u64,
    /// Its length as it should be; none if it should not be there.
    pub(crate) it_has: Option<u64>,
}

impl Wants {
    /// Whether the digest is all that is wanted.
    pub(crate) fn is_plain(&self) -> bool {
        self.prefix.is_none() && self.held.is_none() && self.shape.is_none()
    }

    fn are_met_by(&self, size: u64) -> bool {
        self.only_if
            .is_some_and(|huge| size > huge.longer_than && huge.it_has != Some(size))
    }
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

/// Where content is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// What processes see.
    Cache,
    /// The disk beneath it, where that can be had.
    Disk,
}

/// Large enough that a system call costs little, small enough for the cache of a core; a multiple of what any disk asks
/// for.
const BUFFER_BYTES: usize = 256 * 1024;
/// Reading a long file says so each time that it got this much further.
const AT_WORK_EVERY: u64 = 64 * 1024 * 1024;
/// A file that changes under our hands is read again this often before it is a gap.
const ATTEMPTS: usize = 3;
/// The longest file whose shape is looked at: an `ld.so.cache` of a large image has a tenth of it.
const MAX_SHAPED_BYTES: u64 = 4 * 1024 * 1024;

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

/// A file that held still while it was read.
struct Sealed {
    stat: Stat,
    content: Content,
    xattrs: Xattrs,
    flags: FileFlags,
    verity: Option<Measurement>,
    by: By,
    shape: Option<Result<(), String>>,
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

    /// Has a part of a file read ahead of the reading. Whether that was of use: it was not there already.
    pub(super) fn ask_for(&mut self, file: &File, stat: &Stat, part: Range<u64>) -> bool {
        if self.from == From::Disk {
            return false;
        }
        self.passing.begin(stat.dev);
        let mut at = part.start;
        while at < part.end.min(stat.size) {
            let buffer = room(&mut self.buffer, part.end - at);
            let step = buffer.len() as u64;
            if self.passing.glance(file, buffer, at) != Glance::Coming {
                return false;
            }
            at += step;
        }
        true
    }

    /// As [`Reader::pass`], of any part of a file, which may be there because it was asked for.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn pass_part(
        &mut self,
        file: &File,
        stat: &Stat,
        part: Range<u64>,
        was_asked_for: bool,
        hash: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Option<u64>> {
        self.was_asked_for = was_asked_for;
        self.pass(file, stat, part, hash)
    }

    /// Tells the bytes of a part of the file that was begun, buffer by buffer, to whoever hashes them. Gives how many there
    /// were, which are fewer where the file ends before; none if the scan is to end.
    fn pass(
        &mut self,
        file: &File,
        stat: &Stat,
        part: Range<u64>,
        hash: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Option<u64>> {
        let is_direct = self.from == From::Disk && direct::is_on(file)?;
        self.passing.begin(stat.dev);
        if std::mem::take(&mut self.was_asked_for) {
            self.passing.has_come(part.start);
        }
        let mut at = part.start;
        while at < part.end {
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let room = room(&mut self.buffer, part.end - at).len();
            let buffer = &mut self.buffer[..];
            // Around the cache whole buffers are read alone.
            let outcome = match (std::mem::take(&mut self.glanced), is_direct) {
                (0, true) => file.read_at(buffer, at).map(|count| count.min(room)),
                (0, false) => self.passing.read_at(file, &mut buffer[..room], at),
                (glanced, _) => Ok(glanced),
            };
            let count = match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            hash(&buffer[..count]);
            (self.rest)(count as u64);
            at += count as u64;
            // A file is not asked for more than it has: whether it still has that length is seen afterwards.
            if count == 0 || (at == stat.size && count < BUFFER_BYTES) {
                break;
            }
        }
        self.passing.end(file);
        Ok(Some(at - part.start))
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
        if wants.leave_long && (LONG_BYTES..=MAX_LONG_BYTES).contains(&before.size) {
            self.turn_to_disk(&file)?;
            return Ok(Attempt::Long(file, before));
        }
        self.passing.begin(before.dev);
        let may_come = wants.leave_cold && (1..LONG_BYTES).contains(&before.size);
        if may_come && self.known(&before, wants).is_none() && self.comes(&file, &before) {
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
                self.ask_for(file, stat, asked..stat.size);
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
        self.was_asked_for = true;
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
        if self.from == From::Cache {
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

    /// Has a file read from the disk where it is to be; says whether it is.
    fn turn_to_disk(&mut self, file: &File) -> io::Result<bool> {
        if self.from == From::Cache {
            return Ok(false);
        }
        let is_on = direct::turn_on(file, BUFFER_BYTES as u64)?;
        self.cached += u64::from(!is_on);
        Ok(is_on)
    }

    /// Hashes a file, from the disk if that is where it is to be read; none if the scan is to end.
    fn content_from_there(
        &mut self,
        file: &File,
        before: &Stat,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Content>> {
        let is_direct = self.turn_to_disk(file)?;
        match self.content(file, before, digests, wants) {
            // It knows of such reads, and wants more of them than is told.
            Err(error) if is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                direct::turn_off(file)?;
                self.cached += 1;
                self.content(file, before, digests, wants)
            }
            outcome => outcome,
        }
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

    /// Hashes from the start to the end; none if the scan is to end.
    fn content(
        &mut self,
        file: &File,
        stat: &Stat,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Content>> {
        let mut hasher = blake3::Hasher::new();
        let mut sha256 = (digests == Digests::Both).then(sha2::Sha256::new);
        let mut prefix = wants.prefix.map(Prefix::of);
        let mut held = wants.held.map(Prefix::of);
        let (at_work, mut told, mut done) = (self.at_work, 0, 0);
        let length = self.pass(file, stat, whole(stat), &mut |bytes| {
            hasher.update(bytes);
            if let Some(sha256) = &mut sha256 {
                sha256.update(bytes);
            }
            for prefix in prefix.iter_mut().chain(&mut held) {
                prefix.update(bytes);
            }
            done += bytes.len() as u64;
            if done - told >= AT_WORK_EVERY {
                at_work(done - told);
                told = done;
            }
        })?;
        let Some(length) = length else {
            return Ok(None);
        };
        Ok(Some(Content {
            sha256: sha256.map(|hasher| Sha256::from_bytes(hasher.finalize().into())),
            prefix: prefix.and_then(Prefix::finish),
            held: held.and_then(Prefix::finish),
            ..Content::of(length, hasher.finalize().into())
        }))
    }

    fn shape(&mut self, file: &File, stat: &Stat, shape: Shape) -> io::Result<Result<(), String>> {
        if stat.size > MAX_SHAPED_BYTES {
            return Ok(Err(format!("it is longer than {MAX_SHAPED_BYTES} bytes")));
        }
        let mut content = Vec::with_capacity(stat.size as usize);
        let count = self.pass(file, stat, 0..stat.size, &mut |bytes| {
            content.extend_from_slice(bytes);
        })?;
        if count != Some(stat.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let checked = match shape {
            Shape::MachineId => drift::shape::machine_id(&content),
            Shape::HostKey => drift::shape::host_key(&content, stat.mode),
            Shape::LdSoCache => drift::shape::ld_so_cache(&content, self.names_of_image),
        };
        Ok(checked.map_err(|error| error.to_string()))
    }
}

/// A file with a byte too many, which is enough to see that it grew: it is not followed to wherever it ends.
fn whole(stat: &Stat) -> Range<u64> {
    0..stat.size.saturating_add(1)
}

/// As much of a buffer as is left to read.
fn room(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let room = usize::try_from(left).unwrap_or(usize::MAX);
    let room = room.min(buffer.len());
    &mut buffer[..room]
}

/// What was read of a file that was hashed elsewhere; none if it changed meanwhile.
///
/// # Errors
/// What the file system gives.
pub(super) fn seal(
    path: TreePath,
    file: &File,
    before: &Stat,
    holding: Holding,
    content: Content,
) -> io::Result<Option<Read>> {
    let sealed = Sealed::of(file, before, holding, content)?;
    Ok(sealed.map(|sealed| sealed.found(path, holding, &Wants::default())))
}

impl Sealed {
    /// What else is held of a file, once its content was read; none if it changed meanwhile.
    fn of(
        file: &File,
        before: &Stat,
        holding: Holding,
        content: Content,
    ) -> io::Result<Option<Self>> {
        let (xattrs, flags) = match holding {
            Holding::All => (
                Xattrs::held(xattrs::of(file)?),
                FileFlags::from_raw(flags::of(file)?.unwrap_or(0)),
            ),
            Holding::ContentOnly => (Xattrs::NONE, FileFlags::NONE),
        };
        let stat = Stat::of(file)?;
        let same = (before.size, before.mtime, before.ctime) == (stat.size, stat.mtime, stat.ctime)
            && content.length == stat.size;
        Ok(same.then_some(Sealed {
            stat,
            content,
            xattrs,
            flags,
            verity: None,
            by: By::Reading,
            shape: None,
        }))
    }

    fn found(self, path: TreePath, holding: Holding, wants: &Wants) -> Read {
        let Sealed {
            stat,
            content,
            xattrs,
            flags,
            verity,
            by,
            shape,
        } = self;
        let node = Node::File {
            size: content.length,
            content: content.blake3,
            verity: verity.map(Box::new),
        };
        let held_prefix = wants.held.map(|length| HeldPrefix {
            length,
            digest: content.held,
        });
        let found = Found {
            entry: entry(path, &stat, holding, node, xattrs, flags),
            group: group(&stat),
            prefix: content.prefix,
            held_prefix,
            shape,
        };
        Read::Found {
            found,
            sha256: content.sha256,
            stat,
            by,
        }
    }
}

impl Known {
    /// The content, if the kernel measures what it should of this file. What it does not measure, or measures otherwise,
    /// is read: another tree over the same content has another measurement.
    fn content_of(&self, file: &File, stat: &Stat) -> Option<Content> {
        let is_this = stat.size == self.size
            && matches!(measured(file), Ok(Some(found)) if found == self.measurement);
        is_this.then(|| Content::of(self.size, self.content))
    }
}

/// What the kernel measured of a file, by an algorithm that is known here.
fn measured(file: &File) -> io::Result<Option<Measurement>> {
    let measured = verity::of(file)?;
    Ok(measured.and_then(|measured| Measurement::new(measured.algorithm, measured.digest())))
}

/// What was hashed of a file.
pub(super) struct Content {
    length: u64,
    blake3: Blake3,
    sha256: Option<Sha256>,
    prefix: Option<Blake3>,
    held: Option<Blake3>,
}

impl Content {
    /// So many bytes with this digest.
    pub(super) fn of(length: u64, blake3: Blake3) -> Self {
        Content {
            length,
            blake3,
            sha256: None,
            prefix: None,
            held: None,
        }
    }
}

/// The beginning of a file, hashed beside the whole.
struct Prefix {
    hasher: blake3::Hasher,
    left: u64,
}

impl Prefix {
    fn of(length: u64) -> Self {
        Prefix {
            hasher: blake3::Hasher::new(),
            left: length,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        let take = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.hasher.update(&bytes[..take]);
        self.left -= take as u64;
    }

    /// None if the file was shorter.
    fn finish(self) -> Option<Blake3> {
        (self.left == 0).then(|| self.hasher.finalize().into())
    }
}
