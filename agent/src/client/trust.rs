//! Receives the chain that a server shows; hands on whether it is the collector.
//!
//! At enrolment the join token names the collector's CA by the digest of its key: the chain must contain the
//! certificate of exactly that key, and then verify with it as the only root, names and times included. Afterwards the
//! roots are what the collector handed out, which it does again with every renewal, so that its CA can rotate.

use std::sync::Arc;

use arc_swap::ArcSwap;
use drift::Sha256;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::cryptography::cryptography;
use crate::der;

/// Whom to take for the collector.
#[derive(Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    rule: ArcSwap<Rule>,
}

#[derive(Debug)]
enum Rule {
    /// Whoever verifies with the CA whose key has this digest.
    Pinned(Sha256),
    /// Whoever verifies with one of these roots.
    Roots(Arc<WebPkiServerVerifier>),
}

/// A chain has two or three certificates; a longer one is an attack on our time.
const MAX_CHAIN: usize = 8;

impl Trust {
    /// Trusts the CA whose public key has this digest.
    pub fn pinned(ca: Sha256) -> Self {
        Self::by(Rule::Pinned(ca))
    }

    /// Trusts these CA certificates.
    ///
    /// # Errors
    /// None of them is a CA certificate.
    pub fn roots(certificates: &[CertificateDer<'static>]) -> Result<Self, Error> {
        let provider = cryptography();
        let rule = Rule::Roots(verifier(&provider, certificates)?);
        Ok(Trust {
            provider,
            rule: ArcSwap::from_pointee(rule),
        })
    }

    /// Trusts these CA certificates from now on.
    ///
    /// # Errors
    /// None of them is a CA certificate: the old ones stay.
    pub fn replace(&self, certificates: &[CertificateDer<'static>]) -> Result<(), Error> {
        self.rule.store(Arc::new(Rule::Roots(verifier(
            &self.provider,
            certificates,
        )?)));
        Ok(())
    }

    fn by(rule: Rule) -> Self {
        let provider = cryptography();
        Trust {
            provider,
            rule: ArcSwap::from_pointee(rule),
        }
    }
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    certificates: &[CertificateDer<'static>],
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    let built =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    built.map_err(|error| Error::General(error.to_string()))
}

/// SHA-256 of the public key in a certificate, as a join token names a CA.
pub fn key_digest(certificate: &CertificateDer<'_>) -> Option<Sha256> {
    let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
    Some(Sha256::of(&der::sequence(&[
        &anchor.subject_public_key_info
    ])))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if intermediates.len() > MAX_CHAIN {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        let verifier = match &**self.rule.load() {
            Rule::Roots(verifier) => verifier.clone(),
            Rule::Pinned(ca) => {
                let root = intermediates
                    .iter()
                    .find(|certificate| key_digest(certificate) == Some(*ca));
                let root =
                    root.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                verifier(&self.provider, &[root.clone().into_owned()])?
            }
        };
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData as _};

    use super::*;

    #[test]
    fn a_ca_is_named_by_the_digest_of_its_whole_key() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let digest = key_digest(certificate.der());
        assert_eq!(digest, Some(Sha256::of(&key.subject_public_key_info())));
        assert_eq!(key_digest(&certificate.der()[1..].to_vec().into()), None);
    }
}
