//! Receives a file name; hands on the private key in it, made on first use.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drift::key::to_pem;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::der;
use crate::state_files::{self, StateError};

/// The instance's private key: ECDSA on P-256.
pub struct InstanceKey {
    pkcs8: PrivatePkcs8KeyDer<'static>,
    pair: EcdsaKeyPair,
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
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
        let pkcs8 = made.map_err(|_| KeyError::NoRandomness)?.as_ref().to_vec();
        let pem = to_pem("PRIVATE KEY", &pkcs8);
        let key = Self::of(pkcs8.into(), path)?;
        state_files::replace(path, pem.as_bytes())?;
        Ok(key)
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
        let mut text = Vec::new();
        file.take(MAX_KEY_BYTES)
            .read_to_end(&mut text)
            .map_err(StateError::at("read key", path))?;
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| KeyError::Parse {
            path: path.to_owned(),
        })?;
        Self::of(pkcs8, path).map(Some)
    }

    fn of(pkcs8: PrivatePkcs8KeyDer<'static>, path: &Path) -> Result<Self, KeyError> {
        let der = pkcs8.secret_pkcs8_der();
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random);
        let pair = pair.map_err(|_| KeyError::Parse {
            path: path.to_owned(),
        })?;
        Ok(InstanceKey { pkcs8, pair })
    }

    /// A certificate request (RFC 2986) in PEM. It asks for no name: the collector issues its own.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn request(&self) -> Result<String, KeyError> {
        let request = der::request_of(self.pair.public_key().as_ref());
        let signature = self.pair.sign(&SystemRandom::new(), &request);
        let signature = signature.map_err(|_| KeyError::NoRandomness)?;
        let request = der::signed(&request, signature.as_ref());
        Ok(to_pem("CERTIFICATE REQUEST", &request))
    }

    /// The key as TLS uses it.
    ///
    /// # Errors
    /// The key is not one that TLS can sign with.
    pub fn signing_key(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        let der = PrivateKeyDer::Pkcs8(self.pkcs8.clone_key());
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
    /// It is not a private key, or one of another algorithm.
    #[error("understand key {} (expected PKCS#8 PEM of an ECDSA key on P-256)", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("make a key or a signature: the system gives no random numbers")]
    NoRandomness,
    /// Its file could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("instance.key");
        assert!(InstanceKey::load(&path).unwrap().is_none());
        let first = InstanceKey::load_or_make(&path).unwrap();
        let second = InstanceKey::load_or_make(&path).unwrap();
        assert_eq!(
            first.pair.public_key().as_ref(),
            second.pair.public_key().as_ref()
        );
        assert!(second.signing_key().is_ok());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_request_is_signed_by_its_own_key() {
        let home = tempfile::tempdir().unwrap();
        let key = InstanceKey::load_or_make(&home.path().join("instance.key")).unwrap();
        let pem = key.request().unwrap();
        let request = rcgen::CertificateSigningRequestParams::from_pem(&pem).unwrap();
        use rcgen::PublicKeyData as _;
        assert_eq!(
            request.public_key.der_bytes(),
            key.pair.public_key().as_ref()
        );
        // rcgen checks the signature; that there is no name and nothing else is asked for, it does not.
        let text = pem.lines().filter(|line| !line.starts_with("-----"));
        let der = BASE64.decode(text.collect::<String>()).unwrap();
        let no_name_and_a_key = [0x02, 0x01, 0x00, 0x30, 0x00, 0x30, 0x59];
        assert_eq!(der[5..12], no_name_and_a_key);
    }

    #[test]
    fn a_key_of_another_algorithm_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("instance.key");
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        state_files::replace(&path, other.serialize_pem().as_bytes()).unwrap();
        assert!(matches!(
            InstanceKey::load(&path),
            Err(KeyError::Parse { .. })
        ));
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
