//! An open directory in, its names out, in buffers that are used again for the next one.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{RawDir, SeekFrom};

use crate::stat::FileKind;

/// The names that a directory lists. Fill it with [`crate::Dir::names`], any number of times.
///
/// Holds all names of one directory: about 32 bytes a name, and no cap, as a skipped name would be an unseen file.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    listed: Vec<Listed>,
}

/// Which names of a directory are kept: all but those before the one, and those after the other, in byte order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Between<'a> {
    /// The first that is kept, if it is there.
    pub first: Option<&'a [u8]>,
    /// The last that is kept, if it is there.
    pub last: Option<&'a [u8]>,
}

impl Between<'_> {
    fn has(&self, name: &[u8]) -> bool {
        self.first.is_none_or(|first| first <= name) && self.last.is_none_or(|last| name <= last)
    }
}

/// What the kernel fills while a directory is listed: one serves a whole walk, whatever many directories it is in.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

/// One name of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The name as the file system spells it; never `.` or `..`.
    pub name: &'a CStr,
    /// What the directory says it is: a hint for ordering work, `None` if it does not say. `statx` decides.
    pub kind: Option<FileKind>,
}

impl Names {
    /// No names and no buffers yet.
    pub fn new() -> Names {
        Names::default()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether the directory was empty.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The names, in the file system's order or, after [`Names::sort`], in byte order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Name<'_>> {
        self.listed.iter().map(|listed| self.name(listed))
    }

    /// The name at a place, counted from 0 in the same order.
    pub fn get(&self, place: usize) -> Option<Name<'_>> {
        self.listed.get(place).map(|listed| self.name(listed))
    }

    /// The place of the first name that does not come before this one, if they are in byte order.
    pub fn position_of(&self, name: &[u8]) -> usize {
        let without_end = |listed: &Listed| &self.bytes[listed.start..listed.end() - 1];
        self.listed
            .partition_point(|listed| without_end(listed) < name)
    }

    fn name(&self, listed: &Listed) -> Name<'_> {
        Name {
            name: CStr::from_bytes_with_nul(&self.bytes[listed.start..listed.end()])
                .expect("every name was stored with the one zero byte that ends it"),
            kind: listed.kind,
        }
    }

    /// Puts the names in byte order, which within one directory is path-component order.
    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        let whole = |listed: &Listed| &bytes[listed.start..listed.end()];
        self.listed.sort_unstable_by(|a, b| {
            let by_beginning = a.beginning.cmp(&b.beginning);
            by_beginning.then_with(|| whole(a).cmp(whole(b)))
        });
    }

    /// Lists `dir` from its start, if `again` whatever was read of it before; keeps what is `between`.
    pub(crate) fn read(
        &mut self,
        dir: BorrowedFd<'_>,
        again: bool,
        between: Between<'_>,
        Scratch(scratch): &mut Scratch,
    ) -> io::Result<()> {
        self.bytes.clear();
        self.listed.clear();
        scratch.reserve(SCRATCH_BYTES);
        if again {
            rustix::fs::seek(dir, SeekFrom::Start(0))?;
        }
        let mut entries = RawDir::new(dir, scratch.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            let is_itself = name == b".\0" || name == b"..\0";
            if is_itself || !between.has(entry.file_name().to_bytes()) {
                continue;
            }
            let start = self.bytes.len();
            self.bytes.extend_from_slice(name);
            self.listed.push(Listed {
                start,
                beginning: beginning(name),
                length: name.len() as u16,
                kind: FileKind::from_rustix(entry.file_type()),
            });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Listed {
    start: usize,
    /// Its first bytes as a number: most names differ there, and are put in order by it alone.
    beginning: u64,
    /// With the zero byte that ends it; no entry of a directory is longer than 64 KiB.
    length: u16,
    kind: Option<FileKind>,
}

impl Listed {
    fn end(&self) -> usize {
        self.start + usize::from(self.length)
    }
}

/// Of a shorter name zeros follow, which no name has.
fn beginning(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = name.len().min(first.len());
    first[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(first)
}

/// One `getdents64` for nearly every directory of a real root; far above the longest entry a file system may return.
const SCRATCH_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::lab;
    use crate::tree::Tree;

    #[test]
    fn every_name_comes_back_byte_for_byte() {
        let place = lab::place();
        let hostile: [&[u8]; 8] = [
            b"\xff\xfe not text",
            b"new\nline",
            b"\x1b[31mred",
            b" ",
            b"...",
            b"-rf",
            b"back\\slash",
            &[b'x'; 255],
        ];
        for name in hostile {
            File::create_new(place.path().join(OsStr::from_bytes(name))).expect("create file");
        }
        let mut dir = Tree::plain(place.path())
            .and_then(|tree| tree.root())
            .expect("open");
        let mut names = Names::new();
        dir.names(&mut names, &mut Scratch::default())
            .expect("list");
        names.sort();
        let listed: Vec<&[u8]> = names.iter().map(|name| name.name.to_bytes()).collect();
        let expected: Vec<&[u8]> = hostile
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(listed, expected);
        for name in names.iter() {
            assert!(dir.stat_at(name.name).is_ok());
            assert!(dir.open_file(name.name).is_ok());
        }
    }

    #[test]
    fn a_directory_larger_than_the_buffer_is_listed_whole_and_again() {
        let place = lab::place();
        for number in 0..5000 {
            let name = format!("{number:0200}");
            File::create_new(place.path().join(name)).expect("create file");
        }
        let mut dir = Tree::plain(place.path())
            .and_then(|tree| tree.root())
            .expect("open");
        let mut names = Names::new();
        for _ in 0..2 {
            dir.names(&mut names, &mut Scratch::default())
                .expect("list");
            let unique: BTreeSet<&CStr> = names.iter().map(|name| name.name).collect();
            assert_eq!((names.len(), unique.len()), (5000, 5000));
        }
    }

    #[test]
    fn of_a_directory_that_is_gone_through_in_part_only_that_part_is_kept() {
        let place = lab::place();
        for name in ["a", "b", "b.c", "c", "cc", "d"] {
            File::create_new(place.path().join(name)).expect("create file");
        }
        let mut dir = Tree::plain(place.path())
            .and_then(|tree| tree.root())
            .expect("open");
        let mut kept = |first: Option<&str>, last: Option<&str>| {
            let between = Between {
                first: first.map(str::as_bytes),
                last: last.map(str::as_bytes),
            };
            let mut names = Names::new();
            dir.names_between(between, &mut names, &mut Scratch::default())
                .expect("list");
            names.sort();
            let kept = names.iter().map(|name| name.name.to_str().expect("text"));
            kept.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept(None, None), "a b b.c c cc d");
        assert_eq!(kept(Some("b"), Some("c")), "b b.c c");
        assert_eq!(kept(Some("b."), None), "b.c c cc d");
        assert_eq!(kept(None, Some("bb")), "a b b.c");
        assert_eq!(kept(Some("e"), None), "");
    }

    #[test]
    fn an_empty_directory_lists_nothing_and_forgets_the_one_before() {
        let place = lab::place();
        std::fs::create_dir(place.path().join("empty")).expect("create directory");
        let mut dir = Tree::plain(place.path())
            .and_then(|tree| tree.root())
            .expect("open");
        let mut names = Names::new();
        dir.names(&mut names, &mut Scratch::default())
            .expect("list");
        assert_eq!(names.len(), 1);
        let mut empty = dir.open_dir(c"empty").expect("open");
        empty
            .names(&mut names, &mut Scratch::default())
            .expect("list");
        assert!(names.is_empty());
    }
}
