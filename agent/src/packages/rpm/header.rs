//! Receives one header of an rpm database; hands on the package's name, version and files.
//!
//! Two counts, an index of 16 bytes an entry (tag, type, offset, count), then the data; all numbers big-endian
//! (<https://rpm-software-management.github.io/rpm/manual/format_header.html>; in a database without the lead-in).

/// A header whose counts fit its length.
pub(super) struct Header<'h> {
    index: &'h [u8],
    data: &'h [u8],
}

/// One path that is on the disk.
pub(super) struct OwnedFile<'h> {
    /// With a `/` at its end.
    pub(super) directory: &'h [u8],
    /// In it.
    pub(super) name: &'h [u8],
    /// Hexadecimal digits; none for what is no regular file.
    pub(super) digest: &'h [u8],
}

/// What digests are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Md5,
    Sha256,
    Other,
}

const ENTRY_BYTES: usize = 16;
/// rpm's own limit on entries of an index.
const MAX_ENTRIES: usize = 0xffff;
/// Many times what any package has.
const MAX_DIRECTORIES: usize = 1 << 17;
/// Names and versions are shorter, and longer ones are nobody's.
const MAX_TEXT_BYTES: usize = 256;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const FILE_STATES: u32 = 1029;
const FILE_DIGESTS: u32 = 1035;
const DIRECTORY_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIRECTORY_NAMES: u32 = 1118;
const DIGEST_ALGORITHM: u32 = 5011;

/// `RPMFILE_STATE_NORMAL` and `_NETSHARED`; any other file was replaced by another package's, or left out.
const ON_THE_DISK: [u8; 2] = [0, 3];

impl<'h> Header<'h> {
    /// Takes a header as a database has it.
    pub(super) fn read(blob: &'h [u8]) -> Option<Self> {
        let entries = number(blob, 0)? as usize;
        let data_bytes = number(blob, 4)? as usize;
        if entries > MAX_ENTRIES {
            return None;
        }
        let (index, rest) = blob.get(8..)?.split_at_checked(entries * ENTRY_BYTES)?;
        let data = rest.get(..data_bytes)?;
        Some(Header { index, data })
    }

    /// `NAME.ARCHITECTURE`: one name may be installed for several. Empty without a name.
    pub(super) fn name(&self) -> String {
        match (self.text(NAME), self.text(ARCHITECTURE)) {
            (name @ "", _) | (name, "") => name.to_owned(),
            (name, architecture) => format!("{name}.{architecture}"),
        }
    }

    /// `EPOCH:VERSION-RELEASE`, without an epoch that is not there. Empty without one of the others.
    pub(super) fn version(&self) -> String {
        let (version, release) = (self.text(VERSION), self.text(RELEASE));
        match self.numbers(EPOCH).next() {
            _ if version.is_empty() || release.is_empty() => String::new(),
            Some(epoch) => format!("{epoch}:{version}-{release}"),
            None => format!("{version}-{release}"),
        }
    }

    /// What the digests are made by; a header that does not say so is an old one.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.numbers(DIGEST_ALGORITHM).next() {
            None | Some(1) => Algorithm::Md5,
            Some(8) => Algorithm::Sha256,
            Some(_) => Algorithm::Other,
        }
    }

    /// What of the package is on the disk.
    pub(super) fn files(&self) -> impl Iterator<Item = OwnedFile<'h>> + use<'h> {
        let directories: Vec<&[u8]> = self
            .strings(DIRECTORY_NAMES)
            .take(MAX_DIRECTORIES)
            .collect();
        let (states, _) = self.entry(FILE_STATES).unwrap_or_default();
        let mut digests = self.strings(FILE_DIGESTS);
        let names = self
            .strings(BASE_NAMES)
            .zip(self.numbers(DIRECTORY_INDEXES));
        names.enumerate().filter_map(move |(nth, (name, index))| {
            let digest = digests.next().unwrap_or_default();
            let state = states.get(nth).unwrap_or(&0);
            let directory = *directories.get(index as usize)?;
            ON_THE_DISK.contains(state).then_some(OwnedFile {
                directory,
                name,
                digest,
            })
        })
    }

    fn text(&self, tag: u32) -> &'h str {
        let text = self.strings(tag).next().unwrap_or_default();
        let text = text.get(..MAX_TEXT_BYTES + 1).map_or(text, |_| b"");
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// The strings of a tag, each ended by a zero.
    fn strings(&self, tag: u32) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        let (bytes, count) = self.entry(tag).unwrap_or_default();
        bytes.split(|&byte| byte == 0).take(count)
    }

    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'h> {
        let (bytes, count) = self.entry(tag).unwrap_or_default();
        let numbers = bytes.as_chunks().0.iter().take(count);
        numbers.map(|number| u32::from_be_bytes(*number))
    }

    /// What begins where a tag's data does, and how many values are the tag's. What was set on installing, as the
    /// directories of a relocated package, comes behind what the package brought, and counts.
    fn entry(&self, tag: u32) -> Option<(&'h [u8], usize)> {
        let mut entries = self.index.chunks_exact(ENTRY_BYTES);
        let entry = entries.rfind(|entry| number(entry, 0) == Some(tag))?;
        let data = self.data.get(number(entry, 8)? as usize..)?;
        Some((data, number(entry, 12)? as usize))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}
