//! Keys as openssl writes them: PEM in, checked keys out. Ed25519, and ECDSA P-256 for vaults that have no Ed25519.

use std::fmt;

use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ED25519,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::pem::{self, PemObject, SectionKind};
use serde::{Deserialize, Serialize};

use crate::Sha256;

/// The name of a key: SHA-256 of its SPKI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Sha256);

/// A public key whose signatures count.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedKey {
    spki: Box<[u8]>,
    algorithm: Algorithm,
    id: KeyId,
}

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
}

/// A private key.
pub struct SigningKey {
    pair: Pair,
    public: TrustedKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

/// Why text is not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Longer than [`TrustedKey::MAX_PEM_BYTES`].
    #[error("key file is longer than {} bytes", TrustedKey::MAX_PEM_BYTES)]
    TooLong,
    /// Not PEM.
    #[error("read PEM")]
    Pem(#[source] pem::Error),
    /// PEM without a key in it.
    #[error("there is no {0} in it")]
    Missing(&'static str),
    /// Something else stands where a key should.
    #[error("there is something other than a {0} in it")]
    Unexpected(&'static str),
    /// More than [`TrustedKey::MAX_KEYS`].
    #[error("more than {} keys in one file", TrustedKey::MAX_KEYS)]
    TooMany,
    /// A kind of key that is not supported.
    #[error("not an Ed25519 or ECDSA P-256 public key")]
    Algorithm,
    /// A P-256 key without its public half, which is not worked out here.
    #[error(
        "P-256 private key lacks its public half: `openssl ec -in OLD | openssl pkcs8 -topk8 -nocrypt` puts it there"
    )]
    NoPublicHalf,
    /// A private key that does not fit together.
    #[error("not an Ed25519 or ECDSA P-256 private key (PKCS#8, not encrypted)")]
    Private,
}

/// No randomness, or the key could not be used with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sign: no randomness")]
pub struct NoRandomness;

const PUBLIC: &str = "public key (`BEGIN PUBLIC KEY`)";
const PRIVATE: &str = "private key (`BEGIN PRIVATE KEY`)";

/// SPKI of Ed25519 up to the 32 bytes of the key (RFC 8410).
const ED25519_SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// SPKI of P-256 up to the 65 bytes of the uncompressed point (RFC 5480).
const P256_SPKI: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// PKCS#8 v1 of Ed25519 up to the 32 bytes of the seed (RFC 8410): the form that every openssl reads.
const ED25519_PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// PKCS#8 of P-256 up to the 32 bytes of the private half, where nothing follows them (RFC 5915).
const P256_PKCS8_WITHOUT_PUBLIC: &[u8] =
    b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20";
const UNCOMPRESSED_POINT: u8 = 4;

/// The SPKI of a public key on P-256 (RFC 5480): `point` is uncompressed, 65 bytes.
pub fn p256_spki(point: &[u8]) -> Vec<u8> {
    [P256_SPKI, point].concat()
}

impl TrustedKey {
    /// The longest key file: some hundred times one key.
    pub const MAX_PEM_BYTES: usize = 64 * 1024;
    /// More keys than any rotation needs at once.
    pub const MAX_KEYS: usize = 64;

    /// Takes a key from its SPKI.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] for all but Ed25519 and P-256 with an uncompressed point.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let ed25519 = spki
            .strip_prefix(ED25519_SPKI)
            .filter(|key| key.len() == 32);
        let p256 = spki
            .strip_prefix(P256_SPKI)
            .filter(|key| key.len() == 65 && key[0] == UNCOMPRESSED_POINT);
        let algorithm = match (ed25519, p256) {
            (Some(_), _) => Algorithm::Ed25519,
            (_, Some(_)) => Algorithm::EcdsaP256,
            (None, None) => return Err(KeyError::Algorithm),
        };
        Ok(Self {
            spki: spki.into(),
            algorithm,
            id: KeyId(Sha256::of(spki)),
        })
    }

    /// Takes all keys of a PEM file: at least one, and nothing but public keys.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        if text.len() > Self::MAX_PEM_BYTES {
            return Err(KeyError::TooLong);
        }
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, spki) = section.map_err(KeyError::Pem)?;
            if kind != SectionKind::PublicKey {
                return Err(KeyError::Unexpected(PUBLIC));
            }
            if keys.len() == Self::MAX_KEYS {
                return Err(KeyError::TooMany);
            }
            keys.push(Self::from_spki(&spki)?);
        }
        if keys.is_empty() {
            Err(KeyError::Missing(PUBLIC))
        } else {
            Ok(keys)
        }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its SPKI, as DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its SPKI, as openssl writes it.
    pub fn to_pem(&self) -> String {
        to_pem("PUBLIC KEY", &self.spki)
    }

    /// Whether this key signed `message`. ECDSA signatures may be DER or the raw 64 bytes of r and s.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Ed25519 => {
                UnparsedPublicKey::new(&ED25519, &self.spki[ED25519_SPKI.len()..])
                    .verify(message, signature)
                    .is_ok()
            }
            Algorithm::EcdsaP256 => {
                let point = &self.spki[P256_SPKI.len()..];
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                    .verify(message, signature)
                    .is_ok()
                    || UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(message, signature)
                        .is_ok()
            }
        }
    }
}

impl SigningKey {
    /// Makes an Ed25519 key and its PKCS#8 PEM, to be kept where only the pipeline can read it.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate(random: &dyn SecureRandom) -> Result<(Self, String), NoRandomness> {
        let mut seed = [0; 32];
        random.fill(&mut seed).map_err(|_| NoRandomness)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed is 32 bytes");
        let pem = to_pem("PRIVATE KEY", &[ED25519_PKCS8, &seed].concat());
        Ok((Self::of(Pair::Ed25519(pair)), pem))
    }

    /// Takes the one private key of a PEM file, as openssl makes them: PKCS#8, not encrypted. A P-256 key must have
    /// its public half in it, as `openssl genpkey` puts it there.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &[u8], random: &dyn SecureRandom) -> Result<Self, KeyError> {
        if text.len() > TrustedKey::MAX_PEM_BYTES {
            return Err(KeyError::TooLong);
        }
        let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text);
        let (kind, pkcs8) = sections
            .next()
            .ok_or(KeyError::Missing(PRIVATE))?
            .map_err(KeyError::Pem)?;
        if kind != SectionKind::PrivateKey || sections.next().is_some() {
            return Err(KeyError::Unexpected(PRIVATE));
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8) {
            return Ok(Self::of(Pair::Ed25519(pair)));
        }
        if pkcs8.starts_with(P256_PKCS8_WITHOUT_PUBLIC) {
            return Err(KeyError::NoPublicHalf);
        }
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, random)
            .map(|pair| Self::of(Pair::EcdsaP256(pair)))
            .map_err(|_| KeyError::Private)
    }

    fn of(pair: Pair) -> Self {
        let spki = match &pair {
            Pair::Ed25519(pair) => [ED25519_SPKI, pair.public_key().as_ref()].concat(),
            Pair::EcdsaP256(pair) => p256_spki(pair.public_key().as_ref()),
        };
        let public = TrustedKey::from_spki(&spki).expect("made of a key pair");
        Self { pair, public }
    }

    /// Its public half.
    pub fn public(&self) -> &TrustedKey {
        &self.public
    }

    /// Signs; ECDSA signatures are DER.
    pub(crate) fn sign(
        &self,
        message: &[u8],
        random: &dyn SecureRandom,
    ) -> Result<Vec<u8>, NoRandomness> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => pair
                .sign(random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| NoRandomness),
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for KeyId {
    type Err = crate::digest::BadDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({:?} {})", self.algorithm, self.id)
    }
}

/// Never shows the private half.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigningKey({:?} {})",
            self.public.algorithm, self.public.id
        )
    }
}

/// PEM (RFC 7468) of `der`, named `label`: lines of 64.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let body = crate::base64(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "tests need keys")]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_generated_key_is_read_back() {
        let (key, pem) = SigningKey::generate(&SystemRandom::new()).unwrap();
        let again = SigningKey::from_pem(pem.as_bytes(), &SystemRandom::new()).unwrap();
        assert_eq!(again.public(), key.public());
        let public = TrustedKey::all_from_pem(key.public().to_pem().as_bytes()).unwrap();
        assert_eq!(public, [key.public().clone()]);
    }

    #[test]
    fn a_trust_file_holds_public_keys_and_nothing_else() {
        let (key, private) = SigningKey::generate(&SystemRandom::new()).unwrap();
        let public = key.public().to_pem();
        assert_eq!(
            TrustedKey::all_from_pem(public.repeat(2).as_bytes())
                .unwrap()
                .len(),
            2
        );
        assert!(matches!(
            TrustedKey::all_from_pem(b""),
            Err(KeyError::Missing(_))
        ));
        assert!(matches!(
            TrustedKey::all_from_pem((public.clone() + &private).as_bytes()),
            Err(KeyError::Unexpected(_))
        ));
        assert!(matches!(
            TrustedKey::all_from_pem(public.repeat(65).as_bytes()),
            Err(KeyError::TooMany)
        ));
        assert!(matches!(
            TrustedKey::all_from_pem(&[b'x'; TrustedKey::MAX_PEM_BYTES + 1]),
            Err(KeyError::TooLong)
        ));
        assert!(SigningKey::from_pem(public.as_bytes(), &SystemRandom::new()).is_err());
        assert!(
            SigningKey::from_pem(
                (private.clone() + &private).as_bytes(),
                &SystemRandom::new()
            )
            .is_err()
        );
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let (key, _) = SigningKey::generate(&SystemRandom::new()).unwrap();
        let spki = key.public().spki();
        for bad in [
            &spki[1..],
            &spki[..43],
            &[spki, b"x"].concat(),
            &[P256_SPKI, &[2; 65]].concat(),
            b"",
        ] {
            assert!(matches!(
                TrustedKey::from_spki(bad),
                Err(KeyError::Algorithm)
            ));
        }
    }
}
