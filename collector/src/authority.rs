//! The certificate authority: receives a public key and what it is for, and hands on a certificate.
//!
//! Whoever holds `ca.key` can be any instance and the collector itself; it never leaves the data directory. What a
//! certificate says is decided here: nothing is taken from a request but its key, and only once the request's signature
//! shows that the sender has the private half.

pub(crate) mod files;
mod request;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drift::Sha256;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::SecureRandom as _;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::ConfigError;

pub use request::{BadRequest, Presented, PublicKey, read_certificate, read_request};

/// The certificate authority of one collector.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: Sha256,
}

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its key cannot be used as it lies there.
    #[error("read the authority's key")]
    Key(#[from] ConfigError),
    /// A file cannot be made.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("understand {}", path.display())]
    Understand {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate has no key beside it, or another.
    #[error("{} does not belong to the key beside it: restore both from the same backup", path.display())]
    Mismatch {
        /// The certificate.
        path: PathBuf,
    },
    /// A certificate could not be signed.
    #[error("sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// The signed certificate could not be used for TLS.
    #[error("use a new certificate for TLS")]
    Tls(#[from] rustls::Error),
    /// The system has no randomness.
    #[error("draw random bytes")]
    Random,
}

/// How long the authority's own certificate lives: longer than any image that was baked while it did.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3650);
/// How long the server's certificate lives; it is made anew at every start and well before it ends.
pub const SERVER_LIFE: Duration = Duration::from_hours(24 * 30);
/// Certificates are good from an hour back, so that a clock that is slow by less does not refuse them.
const LEEWAY: Duration = Duration::from_hours(1);
/// Where an instance's id stands in its certificate.
pub const INSTANCE_URI: &str = "spiffe://driftmark/instance/";

impl Authority {
    /// The authority in the data directory; a new one where there is none.
    ///
    /// # Errors
    /// What is there cannot be used, or a new one cannot be made.
    pub fn open(data: &Path, now_ms: i64) -> Result<Self, AuthorityError> {
        let (key_path, path) = (data.join("ca.key"), data.join("ca.pem"));
        if path.exists() && !key_path.exists() {
            return Err(AuthorityError::Mismatch { path });
        }
        if !key_path.exists() {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            files::write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        }
        let key = crate::config::read_private(&key_path)?;
        let key = KeyPair::from_pem(&key).map_err(|source| AuthorityError::Understand {
            path: key_path.clone(),
            source,
        })?;
        if !path.exists() {
            let made = authority_params(now_ms)?.self_signed(&key)?;
            files::write(&path, made.pem().as_bytes(), 0o644)?;
        }
        let pem = files::read(&path)?;
        let certificate =
            read_certificate(&pem).map_err(|_| AuthorityError::Mismatch { path: path.clone() })?;
        if request::spki_of(&certificate).ok().as_deref() != Some(&key.subject_public_key_info()) {
            return Err(AuthorityError::Mismatch { path });
        }
        let pin = Sha256::of(&key.subject_public_key_info());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| AuthorityError::Understand { path, source })?;
        Ok(Authority {
            issuer,
            certificate,
            pem,
            pin,
        })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate as PEM: what agents and operators trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its SPKI: what a join token pins.
    pub fn pin(&self) -> Sha256 {
        self.pin
    }

    /// A new key and certificate for the collector itself, with the authority's certificate behind it.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn server(
        &self,
        names: &[String],
        now_ms: i64,
    ) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = leaf_params("driftmark-collector", now_ms, SERVER_LIFE)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_ecdsa_type(&private)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(Arc::new(CertifiedKey::new(chain, signing)))
    }

    /// A certificate that says that whoever has this key is this instance, with its chain, as PEM.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn instance(
        &self,
        id: &str,
        key: &PublicKey,
        now_ms: i64,
        life: Duration,
    ) -> Result<String, AuthorityError> {
        let mut params = leaf_params(id, now_ms, life)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(
            format!("{INSTANCE_URI}{id}").as_str().try_into()?,
        )];
        let certificate = params.signed_by(&key.to_rcgen()?, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.pem))
    }
}

fn authority_params(now_ms: i64) -> Result<CertificateParams, AuthorityError> {
    let serial = serial()?;
    let name = format!(
        "Driftmark collector CA {:02x}{:02x}{:02x}{:02x}",
        serial[1], serial[2], serial[3], serial[4]
    );
    let mut params = leaf_params(&name, now_ms, AUTHORITY_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(
    name: &str,
    now_ms: i64,
    life: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let now =
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms.max(0).unsigned_abs());
    params.not_before = now - LEEWAY;
    params.not_after = now + life;
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Sixteen random bytes, positive as a DER integer.
fn serial() -> Result<[u8; 16], AuthorityError> {
    let mut serial = random::<16>().map_err(|_| AuthorityError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// Random bytes from the system.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], ring::error::Unspecified> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: i64 = 1_795_000_000_000;

    #[test]
    fn an_authority_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(directory.path(), NOW).unwrap();
        let second = Authority::open(directory.path(), NOW + 1).unwrap();
        assert_eq!(first.pin(), second.pin());
        assert_eq!(first.pem(), second.pem());
        let mode = std::fs::metadata(directory.path().join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_and_a_certificate_of_another_key_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), NOW).unwrap();
        Authority::open(other.path(), NOW).unwrap();
        std::fs::copy(other.path().join("ca.pem"), directory.path().join("ca.pem")).unwrap();
        assert!(matches!(
            Authority::open(directory.path(), NOW),
            Err(AuthorityError::Mismatch { .. })
        ));
        let key = other.path().join("ca.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Authority::open(other.path(), NOW),
            Err(AuthorityError::Key(_))
        ));
    }

    #[test]
    fn a_request_gets_its_key_signed_and_none_of_the_names_it_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::new(vec!["collector.example".to_owned()]).unwrap();
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        asked
            .distinguished_name
            .push(DnType::CommonName, "i-victim");
        asked.subject_alt_names.push(SanType::URI(
            "spiffe://driftmark/instance/i-victim".try_into().unwrap(),
        ));
        let csr = asked.serialize_request(&key).unwrap().pem().unwrap();
        let public = read_request(&csr).unwrap();
        let id = format!("i-{}", "0".repeat(32));
        let pem = authority
            .instance(&id, &public, NOW, Duration::from_hours(1))
            .unwrap();
        let presented = Presented::read(&read_certificate(&pem).unwrap()).unwrap();
        assert_eq!(presented.instance.as_deref(), Some(id.as_str()));
        assert_eq!(presented.key, public);
        assert_eq!(presented.until_ms, NOW + 3_600_000);
        let text = String::from_utf8_lossy(&read_certificate(&pem).unwrap()).into_owned();
        assert!(!text.contains("victim") && !text.contains("collector.example"));
    }

    #[test]
    fn a_request_that_was_altered_or_has_a_weak_key_is_refused() {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let mut der = request.der().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(request::read_request_der(&der).is_err());
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&p384)
            .unwrap()
            .pem()
            .unwrap();
        assert_eq!(read_request(&csr), Err(BadRequest::Key));
        assert!(read_request("").is_err());
    }
}
