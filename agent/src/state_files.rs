//! Receives bytes for a file of the agent's own state; hands back only when they are on disk, whole.
//!
//! [`durable`] with a limit on what is read, errors that name the file, and only the owner let in.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::durable;

/// A file of the agent's own state that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct StateError {
    /// What was attempted.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl StateError {
    /// Whether there was no room for it.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// For `map_err`.
    pub fn at<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StateError + 'a {
        move |source| StateError {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Makes `directory` and what leads to it; what is new is for its owner alone.
///
/// # Errors
/// It is not there and cannot be made.
pub fn make_directory(directory: &Path) -> Result<(), StateError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(StateError::at("make directory", directory))
}

/// Replaces `path` by a file of `bytes` that only its owner can read.
///
/// # Errors
/// It could not be written; the old file is still there then.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    durable::write(path, bytes, 0o600).map_err(StateError::at("write", path))
}

/// The bytes of a file of at most `limit` bytes; none where there is no file.
///
/// # Errors
/// It is there and cannot be read, or it is longer.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StateError> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "longer than it can be",
            ));
        }
        Ok(Some(bytes))
    };
    read().map_err(StateError::at("read", path))
}

/// Makes names in `directory` durable.
///
/// # Errors
/// As `fsync` says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some(&b"two"[..]));
        assert!(read(&path, 2).is_err());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(read(&home.path().join("y"), 1).unwrap().is_none());
    }
}
