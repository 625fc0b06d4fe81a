//! Receives the instance's certificate whenever there is a new one; hands it to each handshake that asks.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::clock::TlsClock;
use crate::identity::{Certificates, InstanceKey};

/// Who we are to the collector. Nobody before enrolment, and nobody once the certificate has expired: the collector
/// refuses a handshake with an expired one, while a renewal without one can still be answered.
#[derive(Debug)]
pub struct Credentials {
    current: ArcSwapOption<Current>,
    clock: TlsClock,
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    not_after: i64,
}

impl Credentials {
    /// Nobody yet.
    pub fn none(clock: &TlsClock) -> Self {
        Credentials {
            current: ArcSwapOption::empty(),
            clock: clock.clone(),
        }
    }

    /// From now on this.
    ///
    /// # Errors
    /// The certificate does not belong to the key: what was there before stays.
    pub fn replace(
        &self,
        key: &InstanceKey,
        certificates: &Certificates,
    ) -> Result<(), rustls::Error> {
        let certified = CertifiedKey::new(certificates.chain.clone(), key.signing_key()?);
        certified.keys_match()?;
        let current = Current {
            certified: Arc::new(certified),
            not_after: certificates.not_after,
        };
        self.current.store(Some(Arc::new(current)));
        Ok(())
    }

    /// Whether the certificate has ended.
    pub fn has_expired(&self) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|current| current.not_after <= self.clock.seconds())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        if self.has_expired() {
            return None;
        }
        self.current
            .load()
            .as_ref()
            .map(|current| current.certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.current.load().is_some()
    }
}
