//! Receives files, hands on what they say, laid over each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, Span};

drift::documented! {
    /// The configuration as written: every key may be missing, and no others are known.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    pub struct Written {
        /// `data`: certificates, database and first operator token. Default `/var/lib/driftmark-collector` for root, else
        /// `driftmark-collector` below the user's own state directory.
        pub data: Option<PathBuf> = "/var/lib/driftmark-collector",
        /// `agents`: `ADDRESS:PORT` where agents connect. Default `127.0.0.1:8443`.
        pub agents: Option<SocketAddr> = "0.0.0.0:8443",
        /// `operators`: `ADDRESS:PORT` where operators connect. Default `127.0.0.1:8444`.
        pub operators: Option<SocketAddr> = "127.0.0.1:8444",
        /// `advertise`: names and addresses that agents and operators use for this machine, at most 64; the first is in
        /// join tokens, and all are in the collector's certificate. Default: where it listens.
        pub advertise: Option<Vec<String>> = ["collector.example"],
        /// `fleets`: the fleets and their policy, see driftmark-fleets.toml(5), below `data` unless it is absolute.
        /// Default `fleets.toml`.
        pub fleets: Option<PathBuf> = "fleets.toml",
        /// `heartbeat`: how often agents report, from 1s to 1h. Default `60s`.
        pub heartbeat: Option<Span> = "60s",
        /// `certificate-life`: how long an instance's certificate lives, from 1s to 7d. Default `24h`.
        pub certificate_life: Option<Span> = "24h",
    }
}

/// A configuration is a page or two; more is a mistake or an attack on memory.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// More drop-ins than anyone keeps apart.
const MAX_FILES: usize = 256;

impl Written {
    fn overlaid(self, stronger: Written) -> Written {
        Written {
            data: stronger.data.or(self.data),
            agents: stronger.agents.or(self.agents),
            operators: stronger.operators.or(self.operators),
            advertise: stronger.advertise.or(self.advertise),
            fleets: stronger.fleets.or(self.fleets),
            heartbeat: stronger.heartbeat.or(self.heartbeat),
            certificate_life: stronger.certificate_life.or(self.certificate_life),
        }
    }
}

/// Merges every `*.toml` of `directories`, the weakest first: a file of a later directory masks one of the same name,
/// and what remains is laid over each other in the order of the names.
pub(super) fn merge_directories(directories: &[&Path]) -> Result<Written, ConfigError> {
    let mut files = BTreeMap::new();
    for directory in directories {
        for path in drop_ins(directory)? {
            files.insert(path.file_name().map(ToOwned::to_owned), path);
        }
    }
    let mut merged = Written::default();
    for file in files.values() {
        merged = merged.overlaid(read_file(file)?);
    }
    Ok(merged)
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

/// Reads one file.
pub(super) fn read_file(path: &Path) -> Result<Written, ConfigError> {
    let text = read_guarded(path, 0o002)?;
    toml::from_str(&text).map_err(|source| ConfigError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Reads a secret: a file that nobody but its owner may read or write.
///
/// # Errors
/// It cannot be read, or others can.
pub fn read_private(path: &Path) -> Result<String, ConfigError> {
    read_guarded(path, 0o077)
}

fn read_guarded(path: &Path, forbidden: u32) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let mode = file.metadata().map_err(read)?.mode();
    if mode & 0o002 != 0 {
        return Err(ConfigError::WorldWritable {
            path: path.to_owned(),
        });
    }
    if mode & forbidden != 0 {
        return Err(ConfigError::NotPrivate {
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
    Ok(text)
}
