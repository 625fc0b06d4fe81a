//! Receives files; hands on one [`Merged`]: what all of them say together, and which of them says what.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::written::{Overlay as _, Written};

/// Where drop-ins lie, the weakest first.
pub const DIRECTORIES: [&str; 3] = [
    "/usr/lib/driftmark/agent.d",
    "/run/driftmark/agent.d",
    "/etc/driftmark/agent.d",
];

/// The credential that is laid over all drop-ins, in `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "driftmark.config";

/// What several sources say together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// What holds.
    pub written: Written,
    /// Who says so: the source of every key that is written, by `section.key`.
    pub origins: BTreeMap<String, String>,
}

impl Merged {
    /// With `later` laid over it, which comes from `source`.
    #[must_use]
    pub fn overlaid(mut self, later: Written, source: &str) -> Self {
        later.name_keys("", &mut |key| {
            self.origins.insert(key, source.to_owned());
        });
        self.written = self.written.overlaid(later);
        self
    }

    /// With the file at `path` laid over it.
    ///
    /// # Errors
    /// The file is refused.
    pub fn overlaid_by_file(self, path: &Path) -> Result<Self, ConfigError> {
        let source = drift::escape(path.as_os_str().as_encoded_bytes());
        Ok(self.overlaid(read_file(path)?, &source))
    }
}

/// A configuration is a page or two; more is a mistake or an attack on memory.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// More drop-ins than anyone keeps apart.
const MAX_FILES: usize = 256;

/// Merges every `*.toml` of `directories`: a file of a later directory masks one of the same name, and what remains
/// is laid over each other in the order of the names. A missing directory is an empty one.
///
/// # Errors
/// The first file that is refused.
pub fn merge_directories<'a>(
    directories: impl Iterator<Item = &'a Path>,
) -> Result<Merged, ConfigError> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        for path in drop_ins(directory)? {
            if let Some(name) = path.file_name() {
                files.insert(name.to_owned(), path);
            }
        }
    }
    files.values().try_fold(Merged::default(), |merged, file| {
        merged.overlaid_by_file(file)
    })
}

/// Reads one file.
///
/// # Errors
/// It cannot be read, anyone could have written it, or it does not say what a configuration says.
pub fn read_file(path: &Path) -> Result<Written, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if metadata.mode() & 0o002 != 0 {
        return Err(ConfigError::WorldWritable {
            path: path.to_owned(),
        });
    }
    let mut text = String::new();
    file.by_ref()
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
            limit: MAX_FILE_BYTES,
        });
    }
    drift::written::read(&text).map_err(|source| ConfigError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| ConfigError::Read {
        path: directory.to_owned(),
        source,
    };
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
    };
    let mut files = Vec::new();
    for entry in listing {
        let path = entry.map_err(read)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(read(io::Error::other("too many drop-ins")));
        }
    }
    Ok(files)
}
