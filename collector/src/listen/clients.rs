//! Receives client certificates, hands on whether our authority issued them.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::Presented;

/// The check of client certificates: of TLS, and of expired ones that come in a body.
#[derive(Debug, Clone)]
pub struct Clients {
    optional: Arc<dyn ClientCertVerifier>,
}

impl Clients {
    /// Trusts `authority` and no other.
    ///
    /// # Errors
    /// The authority's certificate cannot be an authority's.
    pub fn of(authority: &CertificateDer<'static>) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        // A root that cannot be added leaves none, which the builder refuses.
        let _ = roots.add(authority.clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let optional = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()?;
        Ok(Clients { optional })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.optional)
    }

    /// Whether our authority issued this certificate for a client, whenever that was: it is judged as of its last
    /// second. How long ago that may be is for the caller to say.
    pub fn vouches_for(&self, certificate: &CertificateDer<'_>, presented: &Presented) -> bool {
        let last = Duration::from_millis(presented.until_ms.max(0).unsigned_abs())
            .saturating_sub(Duration::from_secs(1));
        self.optional
            .verify_client_cert(certificate, &[], UnixTime::since_unix_epoch(last))
            .is_ok()
    }
}
