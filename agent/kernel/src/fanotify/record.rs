//! The bytes of one read in, records out; descriptors are still numbers here.
//!
//! Safe code that believes nothing: every length is checked against what is there, a kind of information that is not
//! known is stepped over by its length, and what does not hold together ends the record (or, where the record's own length
//! is wrong, the read) with an error. Fuzzed as `fanotify_records_stay_in_their_read`.

use super::Mask;

/// One event as the kernel wrote it: `struct fanotify_event_metadata` and the information that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What happened.
    pub what: Mask,
    /// The descriptor of the file that it happened to; negative where there is none, as in watches with names.
    pub file: i32,
    /// The process that did it; 0 where it is of another pid namespace, or not known.
    pub pid: i32,
    infos: &'a [u8],
}

/// One piece of information on an event: `struct fanotify_event_info_header` and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info<'a> {
    /// What it happened to.
    Object(Handle<'a>),
    /// The directory that it happened in, or to, without a name.
    Directory(Handle<'a>),
    /// Where it happened.
    Place(Place<'a>),
    /// Where what was renamed was before.
    From(Place<'a>),
    /// Where what was renamed is after.
    To(Place<'a>),
    /// A descriptor of the process; negative where there is none.
    Pidfd(i32),
    /// The mount: its unique number ([`STATX_MNT_ID_UNIQUE`](libc::STATX_MNT_ID_UNIQUE)).
    Mount(u64),
    /// What went wrong in the file system.
    Fault(Fault),
    /// A kind of a later kernel, by its number.
    Unknown(u8),
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// The directory.
    pub directory: Handle<'a>,
    /// The name in it, without NUL; `.` for the directory itself. Never empty, never with a `/`.
    pub name: &'a [u8],
}

/// A file or directory by what its file system calls it, for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle<'a> {
    /// Which file system, as `statfs` calls the one that was marked.
    pub filesystem: u64,
    /// The file system's own word for the form of [`Handle::bytes`].
    pub form: i32,
    /// At most [`Handle::MAX_BYTES`].
    pub bytes: &'a [u8],
}

impl Handle<'_> {
    /// `MAX_HANDLE_SZ` of linux/exportfs.h.
    pub const MAX_BYTES: usize = 128;
}

/// An error of a file system: ext4's own words are in the kernel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The error number.
    pub errno: i32,
    /// How many there were since the last event of the kind.
    pub count: u32,
}

/// What does not follow fanotify(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The structure of another kernel: nothing after it can be read.
    #[error("read an event of version {0} of fanotify's metadata")]
    Version(u8),
    /// A record's length is not within the read: nothing after it can be found.
    #[error("read an event of a wrong length")]
    Event,
    /// A piece of information does not fit in its record: the other records are whole.
    #[error("read wrong information on an event")]
    Info,
}

/// Takes the bytes of one read apart.
pub fn records(read: &[u8]) -> Records<'_> {
    Records { rest: read }
}

/// The records of one read, in the kernel's order; after an error of [`Malformed::Event`] or [`Malformed::Version`] there
/// are no more.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let split = split_record(rest);
        if let Ok((_, after)) = split {
            self.rest = after;
        }
        Some(split.map(|(record, _)| record))
    }
}

fn split_record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), Malformed> {
    let version = *bytes.get(4).ok_or(Malformed::Event)?;
    if version != libc::FANOTIFY_METADATA_VERSION {
        return Err(Malformed::Version(version));
    }
    let metadata = bytes
        .first_chunk::<METADATA_BYTES>()
        .ok_or(Malformed::Event)?;
    let length = u32_at(metadata, 0) as usize;
    let head = usize::from(u16::from_ne_bytes([metadata[6], metadata[7]]));
    if head < METADATA_BYTES {
        return Err(Malformed::Event);
    }
    let (event, after) = bytes.split_at_checked(length).ok_or(Malformed::Event)?;
    let infos = event.get(head..).ok_or(Malformed::Event)?;
    let record = Record {
        what: Mask(u64::from(u32_at(metadata, 8)) | u64::from(u32_at(metadata, 12)) << 32),
        file: u32_at(metadata, 16).cast_signed(),
        pid: u32_at(metadata, 20).cast_signed(),
        infos,
    };
    Ok((record, after))
}

impl<'a> Record<'a> {
    /// The information that came with it.
    pub fn infos(&self) -> Infos<'a> {
        Infos { rest: self.infos }
    }
}

/// The pieces of information of one record, the whole ones among those that are not.
#[derive(Debug, Clone)]
pub struct Infos<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Infos<'a> {
    type Item = Result<Info<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some((kind, body, after)) = split_info(rest) else {
            return Some(Err(Malformed::Info));
        };
        self.rest = after;
        Some(info(kind, body).ok_or(Malformed::Info))
    }
}

/// The kind of the first piece, what is in it, and what comes after it.
fn split_info(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let &[kind, _, low, high] = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = usize::from(u16::from_ne_bytes([low, high]));
    let (whole, after) = bytes.split_at_checked(length)?;
    Some((kind, whole.get(HEADER_BYTES..)?, after))
}

fn info(kind: u8, body: &[u8]) -> Option<Info<'_>> {
    Some(match kind {
        libc::FAN_EVENT_INFO_TYPE_FID => Info::Object(handle(body)?.0),
        libc::FAN_EVENT_INFO_TYPE_DFID => Info::Directory(handle(body)?.0),
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME => Info::Place(place(body)?),
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => Info::From(place(body)?),
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => Info::To(place(body)?),
        libc::FAN_EVENT_INFO_TYPE_PIDFD => {
            Info::Pidfd(i32::from_ne_bytes(*body.first_chunk::<4>()?))
        }
        libc::FAN_EVENT_INFO_TYPE_ERROR => {
            let body = body.first_chunk::<8>()?;
            Info::Fault(Fault {
                errno: u32_at(body, 0).cast_signed(),
                count: u32_at(body, 4),
            })
        }
        // After the header the kernel leaves what the number's alignment asks for.
        MOUNT => Info::Mount(u64::from_ne_bytes(*body.last_chunk::<8>()?)),
        other => Info::Unknown(other),
    })
}

/// `struct fanotify_event_info_fid` after its header, and what comes after the handle in it.
fn handle(body: &[u8]) -> Option<(Handle<'_>, &[u8])> {
    let head = body.first_chunk::<16>()?;
    let length = u32_at(head, 8) as usize;
    let (bytes, after) = body[16..].split_at_checked(length)?;
    let filesystem = u64::from(u32_at(head, 0)) | u64::from(u32_at(head, 4)) << 32;
    let handle = Handle {
        filesystem,
        form: u32_at(head, 12).cast_signed(),
        bytes,
    };
    (length <= Handle::MAX_BYTES).then_some((handle, after))
}

fn place(body: &[u8]) -> Option<Place<'_>> {
    let (directory, after) = handle(body)?;
    let end = after.iter().position(|byte| *byte == 0)?;
    let name = &after[..end];
    let is_name = !name.is_empty() && !name.contains(&b'/') && name != b"..";
    is_name.then_some(Place { directory, name })
}

/// The caller has shown that there are four bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes[at..].first_chunk::<4>();
    u32::from_ne_bytes(*four.expect("four bytes of a fixed head"))
}

#[cfg(target_endian = "big")]
compile_error!("the two halves of a 64-bit number are in the other order");

/// `struct fanotify_event_metadata`.
pub(super) const METADATA_BYTES: usize = 24;
/// `struct fanotify_event_info_header`.
const HEADER_BYTES: usize = 4;
/// `FAN_EVENT_INFO_TYPE_MNT` of Linux 6.14. No crate has it.
pub(super) const MOUNT: u8 = 7;
