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

/// By which clock a certificate was found to be over, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// One that agrees with the collector's, as far as can be seen.
    ByARightClock,
    /// One that takes a new certificate for an old one.
    ByAWrongClock,
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

    /// The current certificate came just now. If it has ended all the same, it is our clock that is wrong, and the
    /// collector's counts: it is shown until there is another.
    pub fn came_just_now(&self) -> Judged {
        if !self.has_expired() {
            return Judged::ByARightClock;
        }
        if let Some(current) = self.current.load_full() {
            let shown = Current {
                certified: current.certified.clone(),
                not_after: i64::MAX,
            };
            self.current.store(Some(Arc::new(shown)));
        }
        Judged::ByAWrongClock
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_came_just_now_is_shown_whatever_the_clock_says() {
        let ended = |clock_seconds: i64| {
            let clock = TlsClock::default();
            clock.not_before(clock_seconds);
            let certified = certified();
            let credentials = Credentials::none(&clock);
            credentials.current.store(Some(Arc::new(Current {
                certified,
                not_after: crate::clock::Now::read().clock_seconds() + 3_600,
            })));
            credentials
        };
        let right = ended(0);
        assert_eq!(right.came_just_now(), Judged::ByARightClock);
        assert!(!right.has_expired());
        let wrong = ended(i64::MAX - 1);
        assert!(wrong.has_expired());
        assert_eq!(wrong.came_just_now(), Judged::ByAWrongClock);
        assert!(!wrong.has_expired());
    }

    fn certified() -> Arc<CertifiedKey> {
        let home = tempfile::tempdir().unwrap();
        let key = InstanceKey::load_or_make(&home.path().join("key")).unwrap();
        Arc::new(CertifiedKey::new(Vec::new(), key.signing_key().unwrap()))
    }
}
