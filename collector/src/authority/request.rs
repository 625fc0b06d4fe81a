//! Receives certificate requests and certificates from outside, and hands on the little that is used of them.

use drift::Sha256;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::INSTANCE_URI;

/// A public key that an instance may have: ECDSA P-256 or Ed25519, as the DER of its SPKI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

/// What a certificate that somebody presents says. Whether it is true is for TLS, or
/// [`crate::listen::Clients::vouches_for`], to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The instance that it names.
    pub instance: Option<String>,
    /// Its key.
    pub key: PublicKey,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: i64,
}

/// Why a request or certificate is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It is not one.
    #[error("it is not PEM of the expected kind")]
    Form,
    /// Its sender does not have the private key.
    #[error("its signature does not belong to its key")]
    Signature,
    /// A key of a kind that instances do not have.
    #[error("its key is neither ECDSA P-256 nor Ed25519")]
    Key,
}

/// Reads a PKCS#10 request in PEM: checks that its sender has the key, and takes nothing else from it.
///
/// # Errors
/// It is not one, its signature is wrong, or its key is of another kind.
pub fn read_request(pem: &str) -> Result<PublicKey, BadRequest> {
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
    read_request_der(&der.map_err(|_| BadRequest::Form)?)
}

pub(super) fn read_request_der(der: &[u8]) -> Result<PublicKey, BadRequest> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| BadRequest::Form)?;
    if !rest.is_empty() {
        return Err(BadRequest::Form);
    }
    let key = PublicKey::of(request.certification_request_info.subject_pki.raw)?;
    request
        .verify_signature()
        .map_err(|_| BadRequest::Signature)?;
    Ok(key)
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// There is none.
pub fn read_certificate(pem: &str) -> Result<CertificateDer<'static>, BadRequest> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadRequest::Form)
}

pub(super) fn spki_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, BadRequest> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| BadRequest::Form)?;
    Ok(parsed.public_key().raw.to_vec())
}

impl PublicKey {
    fn of(spki: &[u8]) -> Result<Self, BadRequest> {
        const ECDSA: &str = "1.2.840.10045.2.1";
        const P256: &str = "1.2.840.10045.3.1.7";
        const ED25519: &str = "1.3.101.112";
        let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| BadRequest::Form)?;
        let curve = parsed
            .algorithm
            .parameters
            .as_ref()
            .and_then(|curve| curve.as_oid().ok());
        let curve = curve.map(|oid| oid.to_id_string());
        match (
            parsed.algorithm.algorithm.to_id_string().as_str(),
            curve.as_deref(),
        ) {
            (ECDSA, Some(P256)) | (ED25519, None) => Ok(PublicKey(spki.to_vec())),
            _ => Err(BadRequest::Key),
        }
    }

    /// What the store keeps of it.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.0)
    }

    pub(super) fn to_rcgen(&self) -> Result<rcgen::SubjectPublicKeyInfo, rcgen::Error> {
        rcgen::SubjectPublicKeyInfo::from_der(&self.0)
    }
}

impl Presented {
    /// What `certificate` says.
    ///
    /// # Errors
    /// It cannot be read, or its key is of a kind that instances do not have.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, BadRequest> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| BadRequest::Form)?;
        let key = PublicKey::of(parsed.public_key().raw)?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        let instance = match names {
            [GeneralName::URI(uri)] => uri
                .strip_prefix(INSTANCE_URI)
                .filter(|id| crate::instance::is_id(id)),
            _ => None,
        };
        let until_ms = parsed.validity().not_after.timestamp().saturating_mul(1000);
        Ok(Presented {
            instance: instance.map(ToOwned::to_owned),
            key,
            until_ms,
        })
    }
}
