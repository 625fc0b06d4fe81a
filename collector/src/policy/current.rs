//! Receives the path of the fleets file, and hands on the policies that hold now: those of the last file that made
//! sense.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Fleets, Unacceptable, merged, written};

/// The longest fleets file: [`super::checked::MAX_FLEETS`] fleets at some hundred bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Write permission for everyone.
const WORLD_WRITABLE: u32 = 0o002;

/// Why a fleets file was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It could not be read.
    #[error("read the fleets file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everyone may write it.
    #[error("the fleets file {0} can be written by everyone: `chmod o-w` it")]
    WorldWritable(PathBuf),
    /// It is longer than a fleets file can be.
    #[error("the fleets file {0} is longer than {MAX_FILE_BYTES} bytes")]
    TooLong(PathBuf),
    /// It is no fleets file.
    #[error("understand the fleets file {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// What it says cannot be.
    #[error("accept the fleets file {path}")]
    Check {
        /// The file.
        path: PathBuf,
        /// What.
        source: Unacceptable,
    },
}

/// What became of a file that was looked at again.
#[derive(Debug)]
pub enum Reloaded {
    /// It says what it said.
    Same,
    /// Other policies hold from now on.
    Changed(drift::Blake3),
    /// It was refused, and what held before holds on. Told once for each content.
    Refused(PolicyError),
}

/// The policies that hold now.
#[derive(Debug)]
pub struct Current {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    fleets: Arc<Fleets>,
    /// What was last looked at, good or bad; none while it could not be read.
    seen: Option<drift::Blake3>,
    /// Whether the last look was refused.
    refused: bool,
}

impl Fleets {
    /// Reads and checks a fleets file; one that is not there has no fleets.
    ///
    /// # Errors
    /// A file that cannot be read, that everyone may write, or that says what cannot be.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let bytes = read(path)?;
        understand(path, &bytes)
    }
}

impl Current {
    /// Reads the file for the first time, where a bad one is fatal.
    ///
    /// # Errors
    /// See [`Fleets::load`].
    pub fn open(path: PathBuf) -> Result<Self, PolicyError> {
        let bytes = read(&path)?;
        let fleets = Arc::new(understand(&path, &bytes)?);
        let held = Held {
            fleets,
            seen: Some(drift::Blake3::of(&bytes)),
            refused: false,
        };
        Ok(Current {
            path,
            held: Mutex::new(held),
        })
    }

    /// The policies that hold now.
    pub fn fleets(&self) -> Arc<Fleets> {
        Arc::clone(
            &self
                .held
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .fleets,
        )
    }

    /// Looks at the file again. A bad one is refused and what held before holds on: neither a slip of the pen nor a
    /// file that is gone can make the collector replace anything.
    pub fn reload(&self) -> Reloaded {
        let read = read_present(&self.path);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = read.as_ref().ok().map(|bytes| drift::Blake3::of(bytes));
        if held.seen == digest && (digest.is_some() || held.refused) {
            return Reloaded::Same;
        }
        held.seen = digest;
        match read.and_then(|bytes| understand(&self.path, &bytes)) {
            Ok(fleets) => {
                held.refused = false;
                held.fleets = Arc::new(fleets);
                Reloaded::Changed(digest.expect("what was understood was read"))
            }
            Err(_)
                if digest.is_none() && self.never_was() && held.fleets.iter().next().is_none() =>
            {
                held.refused = true;
                Reloaded::Same
            }
            Err(error) => {
                held.refused = true;
                Reloaded::Refused(error)
            }
        }
    }

    fn never_was(&self) -> bool {
        !self.path.exists()
    }
}

/// The file's bytes; none of them for a file that is not there.
fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    match read_present(path) {
        Err(PolicyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => other,
    }
}

fn read_present(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & WORLD_WRITABLE != 0 {
        return Err(PolicyError::WorldWritable(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(PolicyError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

fn understand(path: &Path, bytes: &[u8]) -> Result<Fleets, PolicyError> {
    let not_text = |_| PolicyError::Parse {
        path: path.to_owned(),
        source: Box::new(serde::de::Error::custom("the file is not UTF-8")),
    };
    let text = std::str::from_utf8(bytes).map_err(not_text)?;
    let file = written::File::parse(text).map_err(|source| PolicyError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Fleets::check(merged::merge(file)).map_err(|source| PolicyError::Check {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mode;
    use std::os::unix::fs::PermissionsExt as _;

    const GOOD: &str = "[[fleet]]\nname = \"web\"\nchannel = \"c\"\nmode = \"replace\"";

    #[test]
    fn a_bad_file_is_refused_once_and_the_old_one_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        std::fs::write(&path, GOOD).unwrap();
        let current = Current::open(path.clone()).unwrap();
        std::fs::write(&path, "[[fleet]]\nname = \"web\"\nmode = \"kill\"").unwrap();
        assert!(matches!(
            current.reload(),
            Reloaded::Refused(PolicyError::Check { .. })
        ));
        assert!(matches!(current.reload(), Reloaded::Same));
        assert_eq!(current.fleets().of("web").mode, Mode::Replace);
        std::fs::write(&path, GOOD.replace("replace", "approve")).unwrap();
        assert!(matches!(current.reload(), Reloaded::Changed(_)));
        assert_eq!(current.fleets().of("web").mode, Mode::Approve);
    }

    #[test]
    fn a_file_that_is_gone_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        std::fs::write(&path, GOOD).unwrap();
        let current = Current::open(path.clone()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            current.reload(),
            Reloaded::Refused(PolicyError::Read { .. })
        ));
        assert!(matches!(current.reload(), Reloaded::Same));
        assert_eq!(current.fleets().of("web").mode, Mode::Replace);
    }

    #[test]
    fn a_file_that_was_never_there_has_no_fleets_and_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let current = Current::open(dir.path().join("fleets.toml")).unwrap();
        assert!(matches!(current.reload(), Reloaded::Same));
        assert_eq!(current.fleets().of("web").mode, Mode::Observe);
    }

    #[test]
    fn a_file_that_everyone_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleets.toml");
        std::fs::write(&path, GOOD).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
        assert!(matches!(
            Current::open(path),
            Err(PolicyError::WorldWritable(_))
        ));
    }
}
