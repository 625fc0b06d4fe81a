//! `/proc/PID/mountinfo` in, mounts out; and a descriptor that wakes when they change.
//!
//! Bytes throughout: a mount point may have any name. A line that is not understood fails the whole reading, as a
//! mount that is left out would be a hidden one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// One mount, as one process sees it (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number while it is mounted; the `mount_id` of [`crate::Stat`].
    pub id: u64,
    /// The mount that it is mounted on; its own number at the top.
    pub parent: u64,
    /// Major and minor number of its file system's device.
    pub dev: (u32, u32),
    /// Which part of the file system it shows: `/`, or a path within it for a bind mount.
    pub root: Vec<u8>,
    /// Where it is mounted, from the process's root.
    pub point: Vec<u8>,
    /// The file system's type, with its subtype: `ext4`, `fuse.sshfs`.
    pub fs_type: Vec<u8>,
    /// What was mounted: a device, a server, or any word; may be empty.
    pub source: Vec<u8>,
    /// The options of this mount: `rw,nosuid,relatime`.
    pub options: Vec<u8>,
    /// The options of the file system itself: `rw,errors=remount-ro`.
    pub super_options: Vec<u8>,
}

impl Mount {
    /// Whether the kernel lets anybody run what lies there.
    pub fn runs_programs(&self) -> bool {
        let mut options = self.options.split(|byte| *byte == b',');
        !options.any(|option| option == b"noexec")
    }
}

/// A line of mountinfo that does not follow its manual page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse line {number} of mountinfo")]
pub struct MalformedLine {
    /// Counted from 1.
    pub number: usize,
}

/// The mounts that the process `pid` sees, in the kernel's order.
///
/// # Errors
/// The process is gone, or [`MalformedLine`] as `InvalidData`.
pub fn of(pid: u32) -> io::Result<Vec<Mount>> {
    let text = std::fs::read(format!("/proc/{pid}/mountinfo"))?;
    parse(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A descriptor that polls `POLLPRI | POLLERR` after each change to the machine's mounts; nothing needs to be read.
///
/// Those of process 1, or of this process where 1 is not to be seen.
///
/// # Errors
/// `/proc` is not mounted.
pub fn watch() -> io::Result<OwnedFd> {
    let file = File::open("/proc/1/mountinfo").or_else(|_| File::open("/proc/self/mountinfo"))?;
    Ok(file.into())
}

/// Parses the text of a mountinfo file.
///
/// # Errors
/// The first line that is malformed.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, MalformedLine> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| parse_line(line).ok_or(MalformedLine { number: index + 1 }))
        .collect()
}

/// The mounts strictly below `path` that can be seen from it: none beneath another one, and of several at one point
/// the one on top. In path-component order.
pub fn topmost_below<'a>(mounts: &'a [Mount], path: &[u8]) -> Vec<&'a Mount> {
    let covered = covered_at_their_own_point(mounts);
    let mut below: Vec<&Mount> = mounts
        .iter()
        .filter(|mount| is_below(&mount.point, path) && !covered.contains(&mount.id))
        .collect();
    // A stable sort: of those at one point, the kernel's last stays last.
    below.sort_by(|a, b| components(&a.point).cmp(components(&b.point)));
    let mut topmost: Vec<&Mount> = Vec::new();
    for mount in below {
        match topmost.last_mut() {
            Some(last) if last.point == mount.point => *last = mount,
            Some(last) if is_below(&mount.point, &last.point) => {}
            _ => topmost.push(mount),
        }
    }
    topmost
}

/// The mounts that have another one mounted right over them.
fn covered_at_their_own_point(mounts: &[Mount]) -> HashSet<u64> {
    let points: HashMap<u64, &[u8]> = mounts
        .iter()
        .map(|mount| (mount.id, mount.point.as_slice()))
        .collect();
    mounts
        .iter()
        .filter(|mount| mount.parent != mount.id)
        .filter(|mount| points.get(&mount.parent) == Some(&mount.point.as_slice()))
        .map(|mount| mount.parent)
        .collect()
}

fn is_below(point: &[u8], path: &[u8]) -> bool {
    let mut point = components(point);
    components(path).all(|component| point.next() == Some(component)) && point.next().is_some()
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty())
}

/// Fields are parted by exactly one space: a source may be empty, and then two follow each other.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let dev = device(fields.next()?)?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = unescape(fields.next()?);
    // Any number of optional fields (propagation), ended by a dash.
    fields.find(|field| *field == b"-")?;
    let fs_type = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    // To the end of the line: not every file system escapes the spaces in its own options.
    let super_options = unescape(fields.next()?);
    let super_options = fields.fold(super_options, |mut options, field| {
        options.push(b' ');
        options.extend(unescape(field));
        options
    });
    if !point.starts_with(b"/") {
        return None;
    }
    Some(Mount {
        id,
        parent,
        dev,
        root,
        point,
        fs_type,
        source,
        options,
        super_options,
    })
}

fn device(field: &[u8]) -> Option<(u32, u32)> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    let half = |bytes| u32::try_from(number(bytes)?).ok();
    Some((half(&field[..colon])?, half(&field[colon + 1..])?))
}

/// Decimal digits alone: `parse` would also take a sign.
fn number(field: &[u8]) -> Option<u64> {
    if !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's escapes, a backslash and three octal digits; any other backslash stands for itself.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match octal(rest) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &rest[ESCAPE_BYTES..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

fn octal(field: &[u8]) -> Option<u8> {
    let digits = field.get(..ESCAPE_BYTES)?.strip_prefix(b"\\")?;
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// `\040`.
const ESCAPE_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::lab;

    fn mount(id: u64, parent: u64, point: &str) -> Mount {
        let line = format!("{id} {parent} 0:1 / {point} rw - tmpfs none rw");
        parse_line(line.as_bytes()).expect("a well-formed line")
    }

    fn points(mounts: &[Mount], path: &str) -> Vec<(u64, String)> {
        topmost_below(mounts, path.as_bytes())
            .into_iter()
            .map(|mount| (mount.id, String::from_utf8_lossy(&mount.point).into_owned()))
            .collect()
    }

    #[test]
    fn a_line_of_the_manual_page_is_understood() {
        let line = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n";
        let expected = Mount {
            id: 36,
            parent: 35,
            dev: (98, 0),
            root: b"/mnt1".to_vec(),
            point: b"/mnt2".to_vec(),
            fs_type: b"ext3".to_vec(),
            source: b"/dev/root".to_vec(),
            options: b"rw,noatime".to_vec(),
            super_options: b"rw,errors=continue".to_vec(),
        };
        assert_eq!(parse(line), Ok(vec![expected]));
    }

    #[test]
    fn escapes_are_undone_and_nothing_else_is() {
        let table: [(&[u8], &[u8]); 9] = [
            (b"/a\\040b", b"/a b"),
            (b"/a\\011\\012b", b"/a\t\nb"),
            (b"/\\134040", b"/\\040"),
            (b"/\\043", b"/#"),
            (b"/\xff\xfe", b"/\xff\xfe"),
            (b"/end\\", b"/end\\"),
            (b"/short\\04", b"/short\\04"),
            (b"/not\\089", b"/not\\089"),
            (b"/big\\777", b"/big\\777"),
        ];
        for (escaped, plain) in table {
            assert_eq!(unescape(escaped), plain, "{}", escaped.escape_ascii());
        }
    }

    #[test]
    fn an_empty_source_and_unescaped_options_are_understood() {
        let mounts =
            parse(b"1 1 0:1 / / rw - tmpfs  rw,size=4k\n2 1 0:2 net:[7] /n rw - fuse.x a b=c d\n");
        let mounts = mounts.expect("two well-formed lines");
        assert_eq!(mounts[0].source, b"");
        assert_eq!(mounts[0].super_options, b"rw,size=4k");
        assert_eq!(mounts[1].super_options, b"b=c d");
    }

    #[test]
    fn a_malformed_line_fails_the_reading_with_its_number() {
        let table: [&[u8]; 13] = [
            b"",
            b"1",
            b"1 1 0:1 / / rw",
            b"1 1 0:1 / / rw tmpfs none rw",
            b"1 1 0:1 / / rw -",
            b"1 1 0:1 / / rw - tmpfs none",
            b"x 1 0:1 / / rw - tmpfs none rw",
            b"+1 1 0:1 / / rw - tmpfs none rw",
            b" 1 0:1 / / rw - tmpfs none rw",
            b"1 1 01 / / rw - tmpfs none rw",
            b"1 1 0:4294967296 / / rw - tmpfs none rw",
            b"99999999999999999999 1 0:1 / / rw - tmpfs none rw",
            b"1 1 0:1 / relative rw - tmpfs none rw",
        ];
        for bad in table {
            let text = [b"1 1 0:1 / / rw - tmpfs none rw\n", bad, b"\n"].concat();
            let expected = Err(MalformedLine { number: 2 });
            assert_eq!(parse(&text), expected, "{}", bad.escape_ascii());
        }
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn only_mounts_strictly_below_the_path_are_reported() {
        let mounts = [
            mount(1, 1, "/"),
            mount(2, 1, "/usr"),
            mount(3, 2, "/usr/local"),
            mount(4, 1, "/usrx"),
        ];
        assert_eq!(points(&mounts, "/usr"), [(3, "/usr/local".into())]);
        assert_eq!(points(&mounts, "/usr/"), points(&mounts, "/usr"));
        let below_root = [(2, "/usr".into()), (4, "/usrx".into())];
        assert_eq!(points(&mounts, "/"), below_root);
    }

    #[test]
    fn a_mount_beneath_another_is_not_reported_even_next_to_a_name_that_sorts_between() {
        let mounts = [
            mount(1, 1, "/"),
            mount(4, 2, "/a/b"),
            mount(3, 1, "/a-b"),
            mount(2, 1, "/a"),
        ];
        let expected = [(2, "/a".into()), (3, "/a-b".into())];
        assert_eq!(points(&mounts, "/"), expected);
    }

    #[test]
    fn of_several_mounts_at_one_point_the_one_on_top_is_reported() {
        let last = [mount(1, 1, "/"), mount(2, 1, "/a"), mount(3, 2, "/a")];
        assert_eq!(points(&last, "/"), [(3, "/a".into())]);
        let moved = [mount(1, 1, "/"), mount(2, 3, "/a"), mount(3, 1, "/a")];
        assert_eq!(points(&moved, "/"), [(2, "/a".into())]);
        let unrelated = [mount(1, 1, "/"), mount(2, 9, "/a"), mount(3, 8, "/a")];
        assert_eq!(points(&unrelated, "/"), [(3, "/a".into())]);
    }

    #[test]
    fn the_mounts_of_this_process_are_read() {
        let mounts = of(std::process::id()).expect("own mounts");
        assert!(mounts.iter().any(|mount| mount.point == b"/"));
    }

    #[test]
    fn a_mount_point_of_hostile_name_comes_back_byte_for_byte() {
        lab::with_own_mounts(|place| {
            use std::os::unix::ffi::OsStrExt;
            let point = place.join(std::ffi::OsStr::from_bytes(b"a b\n\\040#\xff - x"));
            std::fs::create_dir(&point).expect("hostile directory");
            lab::mount_tmpfs(&point);
            let text = std::fs::read("/proc/thread-self/mountinfo").expect("own mounts");
            let mounts = parse(&text).expect("the kernel's own text");
            let below = topmost_below(&mounts, place.as_os_str().as_bytes());
            assert_eq!(below.len(), 1);
            assert_eq!(below[0].point, point.as_os_str().as_bytes());
            assert_eq!(below[0].fs_type, b"tmpfs");
        });
    }

    #[test]
    fn the_watch_wakes_when_something_is_mounted() {
        assert!(watch().is_ok());
        lab::with_own_mounts(|place| {
            // This thread's mounts, which nothing else changes; the machine's would wake for other tests.
            let own = File::open("/proc/thread-self/mountinfo").expect("own mounts");
            assert!(!woken(&own));
            lab::mount_tmpfs(place);
            assert!(woken(&own));
            assert!(!woken(&own));
        });
    }

    fn woken(watch: &impl AsFd) -> bool {
        let mut polled = [PollFd::new(watch, PollFlags::PRI | PollFlags::ERR)];
        let at_once = Timespec::default();
        poll(&mut polled, Some(&at_once)).expect("poll mountinfo");
        polled[0].revents().contains(PollFlags::PRI)
    }
}
