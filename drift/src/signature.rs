//! Who says so: DSSE envelopes around in-toto statements, and the one place where a signature is checked.
//!
//! <https://github.com/secure-systems-lab/dsse>, protocol and envelope v1. What is signed is the pre-authentication
//! encoding ([`pae`]) of the payload's bytes as they came; they are only parsed once a signature holds.

mod ecdsa;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use crate::key::{Algorithm, KeyId, NoRandomness, SigningKey, TrustedKey};
use crate::statement::{Statement, StatementError};

/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A statement with its signatures, none of them checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// One signature, not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    /// Whose it says it is: a hint.
    key_id: String,
    bytes: Vec<u8>,
}

/// A statement that a trusted key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was signed.
    pub statement: Statement,
    /// The trusted keys that signed it, at least one, each once.
    pub keys: Vec<KeyId>,
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Longer than [`Envelope::MAX_BYTES`].
    #[error("envelope is longer than {} bytes", Envelope::MAX_BYTES)]
    TooLong,
    /// Not a DSSE envelope.
    #[error("read envelope")]
    Json(#[source] serde_json::Error),
    /// The payload or a signature is not base64.
    #[error("read base64 of envelope")]
    Base64(#[source] base64::DecodeError),
    /// Something else was signed, not a statement.
    #[error("envelope is not of payload type {PAYLOAD_TYPE}")]
    PayloadType,
    /// No signature at all.
    #[error("envelope has no signature")]
    Unsigned,
    /// More than [`Envelope::MAX_SIGNATURES`].
    #[error("envelope has more than {} signatures", Envelope::MAX_SIGNATURES)]
    TooMany,
    /// It is signed, but by none of the trusted keys.
    #[error("no trusted key signed it")]
    Untrusted,
    /// A signature that names a trusted key does not fit what was signed.
    #[error("signature of key {0} is wrong")]
    Wrong(KeyId),
    /// A signature that is neither of the forms of its key's algorithm.
    #[error("signature has the wrong length or form")]
    Malformed,
    /// It was signed by a trusted key, and is not a statement that this version knows.
    #[error("read signed statement")]
    Statement(#[source] StatementError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Standard or URL-safe alphabet, with or without padding: the specification allows either to be written.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The bytes that are signed: type and payload with their lengths, so that neither can pass for the other.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let header = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [header.as_bytes(), payload].concat()
}

impl Envelope {
    /// The longest envelope that is read.
    pub const MAX_BYTES: usize = 1024 * 1024;
    /// More signatures than any approval needs.
    pub const MAX_SIGNATURES: usize = 16;

    /// An envelope without a signature, to attach some.
    pub fn unsigned(statement: Vec<u8>) -> Self {
        Self {
            payload: statement,
            signatures: Vec::new(),
        }
    }

    /// Signs the bytes of a statement.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn sign(
        statement: Vec<u8>,
        key: &SigningKey,
        random: &dyn SecureRandom,
    ) -> Result<Self, NoRandomness> {
        let bytes = key.sign(&pae(PAYLOAD_TYPE, &statement), random)?;
        let signature = Signature {
            key_id: key.public().id().to_string(),
            bytes,
        };
        Ok(Self {
            payload: statement,
            signatures: vec![signature],
        })
    }

    /// Signs beside whoever signed already.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn add(&mut self, key: &SigningKey, random: &dyn SecureRandom) -> Result<(), NoRandomness> {
        let Self { signatures, .. } = Self::sign(self.payload.clone(), key, random)?;
        self.signatures
            .retain(|other| signatures.iter().all(|new| new.key_id != other.key_id));
        self.signatures.extend(signatures);
        Ok(())
    }

    /// The bytes to be signed elsewhere.
    pub fn pae(&self) -> Vec<u8> {
        pae(PAYLOAD_TYPE, &self.payload)
    }

    /// The bytes of the statement, which nobody has vouched for yet.
    pub fn unverified_statement(&self) -> &[u8] {
        &self.payload
    }

    /// Whose signatures it says it has: hints, as they came, for a sentence on why it is refused.
    pub fn named_keys(&self) -> impl Iterator<Item = &str> {
        self.signatures
            .iter()
            .map(|signature| signature.key_id.as_str())
    }

    /// Adds a signature that was made elsewhere over [`Envelope::pae`], checked with the key that made it. ECDSA: DER,
    /// or the raw 64 bytes of r and s that key vaults give.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`], [`SignatureError::Wrong`] and [`SignatureError::TooMany`].
    pub fn attach(&mut self, signature: &[u8], key: &TrustedKey) -> Result<(), SignatureError> {
        let bytes = match key.algorithm() {
            Algorithm::Ed25519 if signature.len() != 64 => return Err(SignatureError::Malformed),
            Algorithm::Ed25519 => signature.to_vec(),
            Algorithm::EcdsaP256 => ecdsa::to_der(signature).ok_or(SignatureError::Malformed)?,
        };
        if !key.verifies(&self.pae(), &bytes) {
            return Err(SignatureError::Wrong(key.id()));
        }
        self.attach_unchecked(&bytes, key.id())
    }

    /// Adds a signature as it is, where the key that made it is not at hand: verifying will tell.
    ///
    /// # Errors
    /// [`SignatureError::TooMany`].
    pub fn attach_unchecked(&mut self, signature: &[u8], key: KeyId) -> Result<(), SignatureError> {
        let key_id = key.to_string();
        self.signatures.retain(|other| other.key_id != key_id);
        if self.signatures.len() == Self::MAX_SIGNATURES {
            return Err(SignatureError::TooMany);
        }
        self.signatures.push(Signature {
            key_id,
            bytes: signature.to_vec(),
        });
        Ok(())
    }

    /// Reads an envelope; says nothing about who signed it.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(SignatureError::TooLong);
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(SignatureError::Json)?;
        if wire.payload_type != PAYLOAD_TYPE {
            return Err(SignatureError::PayloadType);
        }
        if wire.signatures.len() > Self::MAX_SIGNATURES {
            return Err(SignatureError::TooMany);
        }
        let payload = from_base64(&wire.payload)?;
        let read = |wire: WireSignature| {
            Ok(Signature {
                key_id: wire.keyid,
                bytes: from_base64(&wire.sig)?,
            })
        };
        let signatures = wire
            .signatures
            .into_iter()
            .map(read)
            .collect::<Result<_, SignatureError>>()?;
        Ok(Self {
            payload,
            signatures,
        })
    }

    /// The envelope as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let write = |signature: &Signature| WireSignature {
            keyid: signature.key_id.clone(),
            sig: crate::base64(&signature.bytes),
        };
        let wire = Wire {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: crate::base64(&self.payload),
            signatures: self.signatures.iter().map(write).collect(),
        };
        serde_json::to_vec(&wire).expect("plain structs")
    }

    /// Checks the signatures: at least one must be by a trusted key, whatever the others are.
    ///
    /// # Errors
    /// [`SignatureError::Unsigned`], [`SignatureError::Untrusted`], [`SignatureError::Wrong`], and
    /// [`SignatureError::Statement`] if what was signed is not a statement.
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Verified, SignatureError> {
        if self.signatures.is_empty() {
            return Err(SignatureError::Unsigned);
        }
        let message = self.pae();
        let signed = |key: &&TrustedKey| {
            self.signatures
                .iter()
                .any(|signature| key.verifies(&message, &signature.bytes))
        };
        let mut keys: Vec<KeyId> = trusted.iter().filter(signed).map(TrustedKey::id).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Err(self.refusal(trusted));
        }
        let statement = Statement::from_json(&self.payload).map_err(SignatureError::Statement)?;
        Ok(Verified { statement, keys })
    }

    fn refusal(&self, trusted: &[TrustedKey]) -> SignatureError {
        let names = |key: &&TrustedKey| {
            let id = key.id().to_string();
            self.signatures
                .iter()
                .any(|signature| signature.key_id == id)
        };
        match trusted.iter().find(names) {
            Some(key) => SignatureError::Wrong(key.id()),
            None => SignatureError::Untrusted,
        }
    }
}

fn from_base64(text: &str) -> Result<Vec<u8>, SignatureError> {
    let engine = if text.contains(['-', '_']) {
        URL_SAFE
    } else {
        STANDARD
    };
    engine.decode(text).map_err(SignatureError::Base64)
}

#[cfg(test)]
mod tests;
