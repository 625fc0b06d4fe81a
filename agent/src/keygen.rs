//! Makes a key pair for an image pipeline: `driftmark.key` (0600) and `driftmark.pub`.

use std::io;
use std::path::{Path, PathBuf};

use drift::key::{KeyId, NoRandomness, SigningKey};

use crate::durable;

/// What was made.
#[derive(Debug)]
pub struct KeyPair {
    /// The name of the key in signatures: SHA-256 of its public half.
    pub id: KeyId,
    /// The private half, which stays with the pipeline.
    pub private: PathBuf,
    /// The public half, which goes into images and to the collector.
    pub public: PathBuf,
}

/// Why no key pair was made.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// There is one already: a lost key cannot be made again.
    #[error("{} exists already: move it away first, images may have been signed with it", crate::bake::shown(.0))]
    Exists(PathBuf),
    /// The key could not be generated.
    #[error("generate an Ed25519 key")]
    Generate(#[source] NoRandomness),
    /// A file could not be written.
    #[error("write {}", crate::bake::shown(path))]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes an Ed25519 key pair in `directory`.
///
/// # Errors
/// A key that is there already, or a directory that cannot be written.
pub fn keygen(directory: &Path) -> Result<KeyPair, KeygenError> {
    let private = directory.join("driftmark.key");
    let public = directory.join("driftmark.pub");
    if let Some(existing) = [&private, &public].into_iter().find(|path| path.exists()) {
        return Err(KeygenError::Exists(existing.clone()));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeygenError::Write { path, source }
    };
    let (key, pem) =
        SigningKey::generate(&ring::rand::SystemRandom::new()).map_err(KeygenError::Generate)?;
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    durable::write(&private, pem.as_bytes(), 0o600).map_err(failed(&private))?;
    durable::write(&public, key.public().to_pem().as_bytes(), 0o644).map_err(failed(&public))?;
    Ok(KeyPair {
        id: key.public().id(),
        private,
        public,
    })
}
