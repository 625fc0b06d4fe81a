//! Entries in path order in; a manifest out. What is full meanwhile is set aside, or held as it will be written.

use std::io;

use crate::entry::{AttributeSet, Entry, Node};
use crate::manifest::builder::{check_filesystems, fits};
use crate::manifest::encoder::{Directories, EntryBlocks};
use crate::manifest::layout::{
    self, Filesystem, Header, MAX_BODY_BYTES, MAX_HEADER_BYTES, Sections,
};
use crate::manifest::origin::PackageNumbers;
use crate::manifest::pieces::{Aside, Piece, Pieces, Table};
use crate::manifest::record::Said;
use crate::manifest::times::Times;
use crate::manifest::{BuildError, Identity, Package};
use crate::rules::Rules;
use crate::{Sha256, TreePath};

/// Writes the manifest of an image whose entries come in path order.
pub struct Writer<'a> {
    aside: &'a dyn Aside,
    rules: Rules,
    directories: Directories,
    before: Option<TreePath>,
    blocks: EntryBlocks,
    entries: Pieces,
    sha256: Pieces,
    numbers: PackageNumbers,
    times: Times,
    file_count: u64,
    content_bytes: u64,
}

/// A manifest in pieces, to be written one after the other.
pub struct Sheets<'a> {
    /// What a signature is about.
    pub identity: Identity,
    /// How many entries it has.
    pub entry_count: u64,
    aside: &'a dyn Aside,
    pieces: Vec<Piece>,
}

impl<'a> Writer<'a> {
    /// Begins the manifest of an image with these rules. What is complete of it is set aside until it is written.
    pub fn new(rules: Rules, aside: &'a dyn Aside) -> Self {
        Writer {
            aside,
            rules,
            directories: Directories::default(),
            before: None,
            blocks: EntryBlocks::default(),
            entries: Pieces::default(),
            sha256: Pieces::default(),
            numbers: PackageNumbers::default(),
            times: Times::default(),
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
        let written = self.blocks.push(entry, sha256)?;
        if let Some(full) = written.full {
            self.entries.extend(&full, self.aside);
        }
        self.numbers.push(package)?;
        if let (Node::File { size, .. }, Some(sha256)) = (&entry.node, sha256) {
            if written.content == Said::New {
                self.sha256.extend(sha256.as_bytes(), self.aside);
            }
            self.times.push(modified, self.aside);
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
    ) -> Result<Sheets<'a>, BuildError> {
        filesystems.sort();
        filesystems.dedup();
        check_filesystems(&filesystems)?;
        self.entries.extend(&self.blocks.last, self.aside);
        let xattrs = self.blocks.sets.bytes;
        let packages = self.numbers.section(self.aside)?;
        let header = Header {
            entry_count: self.blocks.index.counts().0,
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
            index: self.blocks.index,
        };
        let mut body = self.entries.into_vec();
        body.push(Piece::Here(xattrs));
        body.extend(self.sha256.into_vec());
        body.extend(packages.into_vec());
        assemble(&header, body, self.times.finish(self.aside), self.aside)
    }
}

impl Sheets<'_> {
    /// The length of the manifest in bytes.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length() as u64).sum()
    }

    /// Writes it.
    ///
    /// # Errors
    /// What writing gives, and reading what was set aside.
    pub fn write_to(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.pieces
            .iter()
            .try_for_each(|piece| out.write_all(&piece.bytes(self.aside)?))
    }

    /// All of it at once.
    ///
    /// # Errors
    /// What reading gives that was set aside.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }
}

fn assemble<'a>(
    header: &Header,
    body: Vec<Piece>,
    side: Vec<Piece>,
    aside: &'a dyn Aside,
) -> Result<Sheets<'a>, BuildError> {
    let encoded = header.encode();
    if encoded.len() as u64 > MAX_HEADER_BYTES {
        return Err(BuildError::TooLarge(
            "set of rules, with its longest paths,",
        ));
    }
    let body_bytes = body.iter().map(|piece| piece.length() as u64).sum();
    if body_bytes > MAX_BODY_BYTES {
        return Err(BuildError::TooLarge("tree"));
    }
    let mut table = Table::new();
    for piece in &body {
        table.update(&piece.bytes(aside).map_err(BuildError::Aside)?);
    }
    let table = table.finish();
    let preamble = layout::preamble(encoded.len() as u64, body_bytes);
    let identity = layout::identity(&preamble, &encoded, &table);
    let mut pieces = vec![Piece::Here(preamble.to_vec()), Piece::Here(encoded)];
    pieces.extend(body);
    pieces.push(Piece::Here(table));
    pieces.extend(side);
    Ok(Sheets {
        identity,
        entry_count: header.entry_count,
        aside,
        pieces,
    })
}
