//! The image's manifest, verified: what an instance is held against.

mod in_image;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use drift::escape;
use drift::key::{KeyError, TrustedKey};
use drift::manifest::{Manifest, ManifestError, Source, UnverifiedManifest};
use drift::report::ImageRef;
use drift::signature::{Envelope, SignatureError};
use drift::statement::Timestamp;
use rustix::fs::{Mode, OFlags};

pub(crate) use in_image::InImage;

/// Where the baseline lies. The defaults are where an image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselinePaths {
    /// The manifest.
    pub manifest: PathBuf,
    /// Its signature.
    pub signature: PathBuf,
    /// Trusted public keys: files, or directories whose `*.pub` files count.
    pub trust: Vec<PathBuf>,
}

impl Default for BaselinePaths {
    fn default() -> Self {
        BaselinePaths {
            manifest: "/usr/lib/driftmark/image.manifest".into(),
            signature: "/usr/lib/driftmark/image.manifest.sig".into(),
            trust: vec!["/usr/lib/driftmark/trust.d".into()],
        }
    }
}

/// A manifest file; blocks are read by `pread` when they are touched, never mapped.
#[derive(Debug)]
pub struct ManifestFile(File);

impl Source for ManifestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }
}

/// The image's manifest, signed by a trusted key.
#[derive(Debug)]
pub struct Baseline {
    /// The manifest.
    pub manifest: Manifest<ManifestFile>,
}

/// Why there is no baseline: the agent runs on and reports `unverifiable`.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// A file that cannot be opened or read.
    #[error("read {}", shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that anyone may write: whoever does decides what is trusted.
    #[error("{} is writable by everyone: run `chmod o-w` on it", shown(.0))]
    WorldWritable(PathBuf),
    /// Something other than a file in its place.
    #[error("{} is not a regular file", shown(.0))]
    NotRegular(PathBuf),
    /// A public key that cannot be understood.
    #[error("read the public key {}", shown(path))]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// No public key at all.
    #[error("no trusted key in {}: put the public key of the image pipeline there, or name one with --trust", .0.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", "))]
    NoKeys(Vec<PathBuf>),
    /// A signature file that is none.
    #[error("read the signature {}", shown(path))]
    Signature {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SignatureError,
    },
    /// A manifest that is none, or that no trusted key signed.
    #[error("verify {}", shown(path))]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

/// A signature file is far smaller; a hostile one must not fill the memory.
const MAX_SMALL_FILE_BYTES: u64 = 1024 * 1024;

impl Baseline {
    /// Reads the keys, the signature and the manifest, and verifies.
    ///
    /// # Errors
    /// Anything that leaves the manifest unverified.
    pub fn open(paths: &BaselinePaths) -> Result<Self, BaselineError> {
        let trusted = trusted_keys(&paths.trust)?;
        let envelope = read_envelope(&paths.signature)?;
        let manifest = open_unverified(&paths.manifest)?
            .verify(&envelope, &trusted)
            .map_err(|source| BaselineError::Manifest {
                path: paths.manifest.clone(),
                source,
            })?;
        Ok(Baseline { manifest })
    }

    /// Which image this is.
    pub fn image(&self) -> ImageRef {
        let provenance = self.manifest.provenance();
        ImageRef {
            name: provenance.name.to_string(),
            version: provenance.version.to_string(),
            build: provenance.build_name().to_owned(),
            manifest: self.manifest.identity().blake3,
        }
    }

    /// When it was built, seconds since 1970: no certificate is checked by a clock that is before this.
    pub fn build_time(&self) -> Option<i64> {
        let built = self.manifest.provenance().build_time.as_ref();
        built.map(Timestamp::unix_seconds)
    }
}

/// Opens a manifest whose signature is not checked.
///
/// # Errors
/// A file that cannot be read, or that is no manifest.
pub fn open_unverified(path: &Path) -> Result<UnverifiedManifest<ManifestFile>, BaselineError> {
    let file = open_regular(path)?;
    UnverifiedManifest::open(ManifestFile(file)).map_err(|source| BaselineError::Manifest {
        path: path.to_owned(),
        source,
    })
}

/// Reads a signature file.
///
/// # Errors
/// A file that cannot be read, or that is no DSSE envelope.
pub fn read_envelope(path: &Path) -> Result<Envelope, BaselineError> {
    let bytes = read_small(path)?;
    Envelope::from_json(&bytes).map_err(|source| BaselineError::Signature {
        path: path.to_owned(),
        source,
    })
}

/// Reads the public keys of files and directories.
///
/// # Errors
/// No key at all, a file that is none, or one that everyone may write.
pub fn trusted_keys(paths: &[PathBuf]) -> Result<Vec<TrustedKey>, BaselineError> {
    let mut keys = Vec::new();
    for path in paths {
        for file in key_files(path)? {
            refuse_world_writable(&file)?;
            let text = read_small(&file)?;
            let found = TrustedKey::all_from_pem(&text)
                .map_err(|source| BaselineError::Key { path: file, source })?;
            keys.extend(found);
        }
    }
    if keys.is_empty() {
        Err(BaselineError::NoKeys(paths.to_vec()))
    } else {
        Ok(keys)
    }
}

fn key_files(path: &Path) -> Result<Vec<PathBuf>, BaselineError> {
    let failed = |source| BaselineError::Read {
        path: path.to_owned(),
        source,
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            refuse_world_writable(path)?;
            let mut files = Vec::new();
            for listed in std::fs::read_dir(path).map_err(failed)? {
                let file = listed.map_err(failed)?.path();
                if file.extension().is_some_and(|extension| extension == "pub") {
                    files.push(file);
                }
            }
            files.sort();
            Ok(files)
        }
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn refuse_world_writable(path: &Path) -> Result<(), BaselineError> {
    let metadata = std::fs::metadata(path).map_err(|source| BaselineError::Read {
        path: path.to_owned(),
        source,
    })?;
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(BaselineError::WorldWritable(path.to_owned()));
    }
    Ok(())
}

/// Opens a file that is one: a FIFO in its place must not hold us up, a device must not be touched.
fn open_regular(path: &Path) -> Result<File, BaselineError> {
    let failed = |source| BaselineError::Read {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(
        path,
        flags | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let file = File::from(opened.map_err(|error| failed(error.into()))?);
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(BaselineError::NotRegular(path.to_owned()))
    }
}

fn read_small(path: &Path) -> Result<Vec<u8>, BaselineError> {
    use std::io::Read as _;
    let failed = |source| BaselineError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    file.take(MAX_SMALL_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SMALL_FILE_BYTES {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}
