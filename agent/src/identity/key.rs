//! Receives a file name; hands on the private key in it, made on first use.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::state_files::{self, StateError};

/// The instance's private key: ECDSA on P-256.
pub struct InstanceKey {
    pair: KeyPair,
}

/// A PKCS#8 PEM of a P-256 key has about 240 bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;

impl InstanceKey {
    /// Reads the key at `path`, or makes one there.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_make(path: &Path) -> Result<Self, KeyError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Make)?;
        state_files::replace(path, pair.serialize_pem().as_bytes())?;
        Ok(InstanceKey { pair })
    }

    /// Reads the key at `path`; none where there is no file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StateError {
                    action: "open key",
                    path: path.to_owned(),
                    source,
                }
                .into());
            }
        };
        let metadata = file
            .metadata()
            .map_err(StateError::at("look at key", path))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode: metadata.mode() & 0o7777,
            });
        }
        let mut text = String::new();
        file.take(MAX_KEY_BYTES)
            .read_to_string(&mut text)
            .map_err(StateError::at("read key", path))?;
        let pair = KeyPair::from_pem(&text).map_err(|source| KeyError::Parse {
            path: path.to_owned(),
            source,
        })?;
        if !pair.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            return Err(KeyError::Algorithm {
                path: path.to_owned(),
            });
        }
        Ok(Some(InstanceKey { pair }))
    }

    /// A certificate request in PEM. It asks for a name only because a request must; the collector issues its own.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "driftmark instance");
        let request = params
            .serialize_request(&self.pair)
            .map_err(KeyError::Make)?;
        request.pem().map_err(KeyError::Make)
    }

    /// The key as TLS uses it.
    ///
    /// # Errors
    /// The key is not one that TLS can sign with.
    pub fn signing_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()));
        rustls::crypto::ring::sign::any_ecdsa_type(&der)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others than its owner may have read or written it.
    #[error("key {} has mode {mode:04o}, open to others: run `chmod 600 {}`, and enrol anew if others were there", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not a private key.
    #[error("understand key {} (expected PKCS#8 PEM)", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A key of another algorithm.
    #[error("key {} is not ECDSA on P-256", path.display())]
    Algorithm {
        /// The file.
        path: PathBuf,
    },
    /// It could not be made, or could not sign.
    #[error("make a key or a certificate request")]
    Make(#[source] rcgen::Error),
    /// Its file could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("instance.key");
        assert!(InstanceKey::load(&path).unwrap().is_none());
        let first = InstanceKey::load_or_make(&path).unwrap();
        let second = InstanceKey::load_or_make(&path).unwrap();
        assert_eq!(first.pair.public_key_raw(), second.pair.public_key_raw());
        assert!(second.signing_key().is_ok());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("instance.key");
        InstanceKey::load_or_make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            InstanceKey::load(&path),
            Err(KeyError::Exposed { mode: 0o640, .. })
        ));
    }
}
