//! Receives manifests by upload, keeps each as a file by the name of its digest, and hands on what it expects of a path.
//!
//! A file is written under another name, synced, and renamed: what has a digest for a name is whole. It was verified by
//! signature when it came; when it is opened again its identity is compared with its name, and every block of it with
//! its identity when it is touched.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drift::entry::Entry;
use drift::key::TrustedKey;
use drift::manifest::{Manifest, ManifestError, Origin, Package, Source, UnverifiedManifest};
use drift::signature::Envelope;
use drift::{Blake3, TreePath};
use ring::rand::SystemRandom;

/// Manifests that are kept open: what one page of drifts asks for, of a few images at a time.
const OPEN: usize = 8;

/// How the names of files begin that are being uploaded.
const INCOMING: &str = ".incoming-";

/// Why a manifest cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The file system refuses.
    #[error("{} {}", attempt, path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No randomness to name a file with.
    #[error("the system gives no random numbers")]
    Random,
    /// It is no manifest, or not the one that was signed.
    #[error("read manifest {digest}")]
    Manifest {
        /// What it should be.
        digest: Blake3,
        /// Why not.
        source: ManifestError,
    },
    /// The file of that name has another content.
    #[error("manifest {wanted} on the collector's disk is {found} now")]
    Swapped {
        /// Its name.
        wanted: Blake3,
        /// Its identity.
        found: Blake3,
    },
}

/// A manifest in a file.
#[derive(Debug)]
pub struct ManifestFile(File);

impl Source for ManifestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn length(&self) -> std::io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }
}

/// A manifest on the shelf, known by its digest.
pub type Opened = Arc<UnverifiedManifest<ManifestFile>>;

/// What the image has at a path.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The entry.
    pub entry: Entry,
    /// SHA-256 of its content and the package that owns it.
    pub origin: Option<Origin>,
}

/// The collector's own copies of all manifests.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    /// The latest used last.
    open: Mutex<Vec<(Blake3, Opened)>>,
}

/// A manifest that is being uploaded; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    directory: PathBuf,
    path: PathBuf,
    file: File,
}

impl Shelf {
    /// The shelf in a data directory, made where there is none.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn of(data: &Path) -> Result<Self, ShelfError> {
        let directory = data.join("manifests");
        let made = std::fs::create_dir_all(&directory);
        made.map_err(|source| ShelfError::Io {
            attempt: "make",
            path: directory.clone(),
            source,
        })?;
        forget_broken_uploads(&directory);
        Ok(Shelf {
            directory,
            open: Mutex::default(),
        })
    }

    /// A place for a manifest that is about to come.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn incoming(&self) -> Result<Incoming, ShelfError> {
        let number = ring::rand::generate::<[u8; 16]>(&SystemRandom::new())
            .map_err(|_| ShelfError::Random)?;
        let path = self.directory.join(format!(
            "{INCOMING}{:032x}",
            u128::from_be_bytes(number.expose())
        ));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.map_err(|source| ShelfError::Io {
            attempt: "make",
            path: path.clone(),
            source,
        })?;
        Ok(Incoming {
            directory: self.directory.clone(),
            path,
            file,
        })
    }

    /// What an image has at a path, from the collector's own copy of its manifest.
    ///
    /// # Errors
    /// The copy is gone, altered or cannot be read.
    pub fn expected(
        &self,
        digest: Blake3,
        path: &TreePath,
    ) -> Result<Option<Expected>, ShelfError> {
        let manifest = self.opened(digest)?;
        let failed = |source| ShelfError::Manifest { digest, source };
        let Some(entry) = manifest.lookup(path).map_err(failed)? else {
            return Ok(None);
        };
        let origin = manifest.origin(path).map_err(failed)?;
        Ok(Some(Expected { entry, origin }))
    }

    /// All packages of an image.
    ///
    /// # Errors
    /// The copy is gone, altered or cannot be read.
    pub fn packages(&self, digest: Blake3) -> Result<Vec<Package>, ShelfError> {
        let failed = |source| ShelfError::Manifest { digest, source };
        let packages = self.opened(digest)?.packages().map_err(failed)?;
        Ok(packages.into_list())
    }

    /// The manifest of that digest.
    ///
    /// # Errors
    /// It is gone, altered or cannot be read.
    pub fn opened(&self, digest: Blake3) -> Result<Opened, ShelfError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match open.iter().position(|(known, _)| *known == digest) {
            Some(at) => open.remove(at).1,
            None => Arc::new(self.open_file(digest)?),
        };
        open.push((digest, Arc::clone(&found)));
        if open.len() > OPEN {
            open.remove(0);
        }
        Ok(found)
    }

    fn open_file(&self, digest: Blake3) -> Result<UnverifiedManifest<ManifestFile>, ShelfError> {
        let path = place(&self.directory, digest);
        let file = File::open(&path).map_err(|source| ShelfError::Io {
            attempt: "open",
            path,
            source,
        })?;
        let manifest = UnverifiedManifest::open(ManifestFile(file))
            .map_err(|source| ShelfError::Manifest { digest, source })?;
        let found = manifest.identity().blake3;
        if found == digest {
            Ok(manifest)
        } else {
            Err(ShelfError::Swapped {
                wanted: digest,
                found,
            })
        }
    }
}

impl Incoming {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ShelfError> {
        use std::io::Write as _;
        let written = self.file.write_all(bytes);
        written.map_err(|source| ShelfError::Io {
            attempt: "write",
            path: self.path.clone(),
            source,
        })
    }

    /// Checks signature, every block and every record.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn verify(
        &self,
        envelope: &Envelope,
        trusted: &[TrustedKey],
    ) -> Result<Manifest<impl Source + use<>>, ManifestError> {
        let file = self.file.try_clone().map_err(ManifestError::Read)?;
        let manifest = UnverifiedManifest::open(ManifestFile(file))?.verify(envelope, trusted)?;
        manifest.verify_all()?;
        Ok(manifest)
    }

    /// Makes it durable under the name of its digest. One that is there already is the same in all that is signed, and
    /// is left as it is.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn keep(self, digest: Blake3) -> Result<(), ShelfError> {
        let path = place(&self.directory, digest);
        let failed = |attempt| {
            let path = self.path.clone();
            move |source| ShelfError::Io {
                attempt,
                path,
                source,
            }
        };
        if path.exists() {
            return Ok(());
        }
        self.file.sync_all().map_err(failed("sync"))?;
        std::fs::rename(&self.path, &path).map_err(failed("rename"))?;
        let directory = File::open(&self.directory).map_err(failed("open the directory of"))?;
        directory
            .sync_all()
            .map_err(failed("sync the directory of"))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Once it is kept there is nothing of this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what was being uploaded when a collector was killed: it holds the lock of the data directory, so nobody else
/// is uploading. What cannot be removed costs room and nothing else.
fn forget_broken_uploads(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(INCOMING.as_bytes())
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn place(directory: &Path, digest: Blake3) -> PathBuf {
    directory.join(format!("{digest}.manifest"))
}
