//! Entries in path order in; a manifest out. What is held meanwhile is what is written, once.

use std::collections::HashMap;
use std::io;

use crate::entry::{AttributeSet, Entry, Node};
use crate::manifest::builder::{check_filesystems, fits};
use crate::manifest::encoder::{Directories, EntryBlocks};
use crate::manifest::layout::{
    self, Filesystem, Header, MAX_BODY_BYTES, MAX_HEADER_BYTES, SIDE_MAGIC, Sections,
};
use crate::manifest::pieces::{Pieces, Table};
use crate::manifest::record::put_bytes;
use crate::manifest::{BuildError, Identity, Package};
use crate::rules::Rules;
use crate::{Sha256, TreePath, varint};

/// Writes the manifest of an image whose entries come in path order.
pub struct Writer {
    rules: Rules,
    directories: Directories,
    before: Option<TreePath>,
    blocks: EntryBlocks,
    entries: Pieces,
    sha256: Pieces,
    numbers: PackageNumbers,
    times: Pieces,
    entry_count: u64,
    file_count: u64,
    content_bytes: u64,
}

/// A manifest in pieces, to be written one after the other.
#[derive(Debug)]
pub struct Sheets {
    /// What a signature is about.
    pub identity: Identity,
    /// How many entries it has.
    pub entry_count: u64,
    pieces: Vec<Vec<u8>>,
}

impl Writer {
    /// Begins the manifest of an image with these rules.
    pub fn new(rules: Rules) -> Self {
        Writer {
            rules,
            directories: Directories::default(),
            before: None,
            blocks: EntryBlocks::default(),
            entries: Pieces::default(),
            sha256: Pieces::default(),
            numbers: PackageNumbers::default(),
            times: Pieces::default(),
            entry_count: 0,
            file_count: 0,
            content_bytes: 0,
        }
    }

    /// Adds the next entry in path order; a regular file whose content is held needs its SHA-256.
    ///
    /// # Errors
    /// An entry that does not come after the one before, is in no directory, or exceeds a limit of the format.
    pub fn push(
        &mut self,
        entry: &Entry,
        sha256: Option<Sha256>,
        package: Option<&Package>,
        modified: (i64, u32),
    ) -> Result<(), BuildError> {
        let path = &entry.path;
        match &self.before {
            Some(before) if before == path => return Err(BuildError::Duplicate(path.clone())),
            Some(before) if before > path => return Err(BuildError::OutOfOrder(path.clone())),
            _ => {}
        }
        if !self.directories.admit(entry, &self.rules) {
            return Err(BuildError::Orphan(path.clone()));
        }
        fits(entry, sha256.is_some())?;
        if let Some(full) = self.blocks.push(entry)? {
            self.entries.push(full);
        }
        self.numbers.push(package)?;
        self.entry_count += 1;
        if let (Node::File { size, .. }, Some(sha256)) = (&entry.node, sha256) {
            self.sha256.extend(sha256.as_bytes());
            self.times.extend(&modified.0.to_le_bytes());
            self.times.extend(&modified.1.to_le_bytes());
            self.file_count += 1;
            self.content_bytes = self.content_bytes.saturating_add(*size);
        }
        self.before = Some(path.clone());
        Ok(())
    }

    /// Ends the manifest.
    ///
    /// # Errors
    /// File systems that are not those of one image, or more than the format can hold.
    pub fn finish(
        mut self,
        mut filesystems: Vec<Filesystem>,
        not_held: AttributeSet,
    ) -> Result<Sheets, BuildError> {
        filesystems.sort();
        filesystems.dedup();
        check_filesystems(&filesystems)?;
        self.entries.push(self.blocks.last);
        let xattrs = self.blocks.sets.bytes;
        let packages = self.numbers.section()?;
        let header = Header {
            entry_count: self.entry_count,
            file_count: self.file_count,
            content_bytes: self.content_bytes,
            not_held,
            filesystems,
            rules: self.rules,
            sections: Sections {
                entries: self.entries.length(),
                xattrs: xattrs.len() as u64,
                sha256: self.sha256.length(),
                packages: packages.length(),
            },
        };
        let mut body = self.entries.into_vec();
        body.push(xattrs);
        body.extend(self.sha256.into_vec());
        body.extend(packages.into_vec());
        assemble(&header, body, self.times.into_vec())
    }
}

impl Sheets {
    /// The length of the manifest in bytes.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Writes it.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.pieces
            .iter()
            .try_for_each(|piece| out.write_all(piece))
    }

    /// All of it at once.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Which package each entry is of, by numbers in the order of their first use.
#[derive(Default)]
struct PackageNumbers {
    packages: HashMap<Package, u16>,
    last: Option<(Package, u16)>,
    numbers: Vec<u16>,
}

impl PackageNumbers {
    fn push(&mut self, package: Option<&Package>) -> Result<(), BuildError> {
        let number = match (package, &self.last) {
            (None, _) => 0,
            (Some(package), Some((last, number))) if package == last => *number,
            (Some(package), _) => self.number(package)?,
        };
        self.numbers.push(number);
        Ok(())
    }

    fn number(&mut self, package: &Package) -> Result<u16, BuildError> {
        let next = u16::try_from(self.packages.len() + 1);
        let number = match (self.packages.get(package), next) {
            (Some(number), _) => *number,
            (None, Err(_)) => return Err(BuildError::TooManyPackages),
            (None, Ok(next)) => {
                let long = |text: &&String| text.len() > Package::MAX_BYTES;
                if let Some(bad) = [&package.name, &package.version].into_iter().find(long) {
                    return Err(BuildError::BadName(bad.clone()));
                }
                self.packages.insert(package.clone(), next);
                next
            }
        };
        self.last = Some((package.clone(), number));
        Ok(number)
    }

    /// The sorted list of packages, then two bytes an entry: its package's number from 1, or 0.
    fn section(self) -> Result<Pieces, BuildError> {
        let mut sorted: Vec<(Package, u16)> = self.packages.into_iter().collect();
        sorted.sort();
        let mut list = Vec::new();
        varint::put(&mut list, sorted.len() as u64);
        let mut final_numbers = vec![0_u16; sorted.len() + 1];
        for ((package, number), place) in sorted.iter().zip(1..) {
            final_numbers[usize::from(*number)] = place;
            put_bytes(&mut list, package.name.as_bytes());
            put_bytes(&mut list, package.version.as_bytes());
        }
        let mut section = Pieces::default();
        section.push(list);
        for number in self.numbers {
            section.extend(&final_numbers[usize::from(number)].to_le_bytes());
        }
        Ok(section)
    }
}

fn assemble(
    header: &Header,
    body: Vec<Vec<u8>>,
    times: Vec<Vec<u8>>,
) -> Result<Sheets, BuildError> {
    let encoded = header.encode();
    if encoded.len() as u64 > MAX_HEADER_BYTES {
        return Err(BuildError::TooLarge("set of rules"));
    }
    let body_bytes = body.iter().map(|piece| piece.len() as u64).sum();
    if body_bytes > MAX_BODY_BYTES {
        return Err(BuildError::TooLarge("tree"));
    }
    let mut table = Table::new();
    body.iter().for_each(|piece| table.update(piece));
    let table = table.finish();
    let preamble = layout::preamble(encoded.len() as u64, body_bytes);
    let identity = layout::identity(&preamble, &encoded, &table);
    let mut pieces = vec![preamble.to_vec(), encoded];
    pieces.extend(body);
    pieces.push(table);
    pieces.push(SIDE_MAGIC.to_vec());
    pieces.extend(times);
    Ok(Sheets {
        identity,
        entry_count: header.entry_count,
        pieces,
    })
}
