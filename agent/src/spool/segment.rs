//! Receives records; keeps them in a file that only ever grows and then goes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{self, Kind};
use crate::state_files::{StateError, sync_directory};

/// Twice what a segment grows to: anything longer was not written here.
pub(super) const MAX_BYTES: u64 = 2 * super::SEGMENT_BYTES;
/// More files than a spool of any size has.
const MAX_SEGMENTS: usize = 100_000;

/// A file of records that wait.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// How many of its records wait.
    pub(super) records: usize,
    path: PathBuf,
}

impl Segment {
    pub(super) fn new(kind: Kind, path: PathBuf) -> Self {
        Segment {
            kind,
            bytes: 0,
            records: 0,
            path,
        }
    }

    /// The body of a record, if the disk still gives back what was written.
    pub(super) fn read(&self, ordinal: u64, offset: u64, length: u32) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        File::open(&self.path)
            .ok()?
            .read_exact_at(&mut bytes, offset)
            .ok()?;
        let (header, body) = record::decode(&bytes)?;
        (header.ordinal == ordinal).then(|| body.to_vec())
    }

    /// Removes the file. One that stays is sent again after a restart, which is idempotent.
    pub(super) fn delete(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The segment of a kind that grows at the moment.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    file: File,
}

impl SegmentWriter {
    pub(super) fn create(directory: &Path, kind: Kind, number: u64) -> Result<Self, StateError> {
        let path = directory.join(format!("{number:020}-{}.log", word(kind)));
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = created.map_err(StateError::at("make spool segment", &path))?;
        sync_directory(directory).map_err(StateError::at("sync", directory))?;
        Ok(SegmentWriter {
            number,
            path,
            length: 0,
            file,
        })
    }

    /// Adds a record and returns when it is on disk. After an error the file ends where it did before, or has a torn
    /// tail that the next start passes over.
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), StateError> {
        let written = self
            .file
            .write_all(record)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            let _ = self.file.set_len(self.length);
            return Err(StateError {
                action: "write spool segment",
                path: self.path.clone(),
                source,
            });
        }
        self.length += record.len() as u64;
        Ok(())
    }

    pub(super) fn delete(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the disk takes a block, which it is given back at once.
pub(super) fn try_disk(directory: &Path) -> Result<(), StateError> {
    let path = directory.join("trial");
    let tried = crate::durable::write(&path, &[0; 4096], 0o600);
    let _ = std::fs::remove_file(&path);
    tried.map_err(StateError::at("write to", directory))
}

/// A segment that an earlier run left.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
}

/// The segments in `directory`, oldest first; whatever else lies there is left alone.
pub(super) fn list(directory: &Path) -> Result<Vec<Found>, StateError> {
    let read = StateError::at("read directory", directory);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)
        .map_err(&read)?
        .take(MAX_SEGMENTS)
    {
        let path = entry.map_err(&read)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let parsed = name
            .strip_suffix(".log")
            .and_then(|stem| stem.split_once('-'));
        let Some((number, kind)) =
            parsed.and_then(|(number, kind)| Some((number.parse().ok()?, kind_of(kind)?)))
        else {
            continue;
        };
        found.push(Found { number, kind, path });
    }
    found.sort_by_key(|segment| segment.number);
    Ok(found)
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::States => "states",
        Kind::Moments => "moments",
    }
}

fn kind_of(word: &str) -> Option<Kind> {
    [Kind::States, Kind::Moments]
        .into_iter()
        .find(|kind| self::word(*kind) == word)
}
