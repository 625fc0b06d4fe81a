//! Receives an identity; keeps the link to the collector: who we are to it, when to renew, when to try again.

use std::sync::Arc;
use std::time::Duration;

use drift::enrolment::{Identity, RenewRequest};

use super::RunError;
use super::backoff::{Backoff, random_share};
use crate::client::Client;
use crate::client::credentials::{Credentials, Judged};
use crate::client::trust::Trust;
use crate::clock::{Now, TlsClock};
use crate::config::Config;
use crate::identity::{Enrolled, IdentityError, Store};
use crate::log::Chain;

/// An instance that is enrolled, and its collector.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) enrolled: Enrolled,
    pub(super) store: Store,
    credentials: Arc<Credentials>,
    trust: Arc<Trust>,
    /// When to renew, by time since boot.
    pub(super) renew_at: Duration,
}

/// When to try something again, by time since boot.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) at: Duration,
    pub(super) backoff: Backoff,
    pub(super) is_running: bool,
}

/// A collector that asks to be asked more often than this is wrong about it.
const MIN_RENEWAL_SECONDS: u64 = 5;
/// How long a certificate that had ended when it came is used before the next is asked for.
const WRONG_CLOCK_RENEWAL: Duration = Duration::from_secs(600);
/// Certificates live for a day; no collector issues one for longer than this.
const MAX_RENEWAL_SECONDS: u64 = 365 * 86_400;

impl Retry {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Retry {
            at: Duration::ZERO,
            backoff: Backoff::new(first, longest),
            is_running: false,
        }
    }

    pub(super) fn is_due(&self, uptime: Duration) -> bool {
        !self.is_running && uptime >= self.at
    }

    pub(super) fn fail(&mut self, uptime: Duration) {
        self.at = uptime + self.backoff.fail();
    }

    /// Whatever kept it from working may be over: at once.
    pub(super) fn now(&mut self) {
        self.at = Duration::ZERO;
        self.backoff.succeed();
    }
}

impl Link {
    /// The link of what is in the store, if that is an identity.
    pub(super) fn open(
        config: &Config,
        store: &Store,
        clock: &TlsClock,
        now: Now,
    ) -> Result<Option<Self>, RunError> {
        let Some(enrolled) = store.load()? else {
            return Ok(None);
        };
        let credentials = Arc::new(Credentials::none(clock));
        let key = store.key().map_err(IdentityError::from)?;
        credentials
            .replace(&key, &enrolled.certificates)
            .map_err(|_| IdentityError::ForeignKey)?;
        let trust = Trust::roots(&enrolled.certificates.trust);
        let trust = Arc::new(trust.map_err(|_| IdentityError::Pem {
            what: "trust.pem".into(),
        })?);
        let url = config.collector_url.as_deref().unwrap_or(&enrolled.url);
        let client = Client::new(url, trust.clone(), credentials.clone(), clock)?;
        let renew_at = renewal(&enrolled, clock, now);
        Ok(Some(Link {
            client,
            enrolled,
            store: store.clone(),
            credentials,
            trust,
            renew_at,
        }))
    }

    /// Takes over what is in the store now. Says whether that is another certificate or trust than before.
    pub(super) fn reload(&mut self, clock: &TlsClock, now: Now) -> Result<bool, RunError> {
        let Some(enrolled) = self.store.load()? else {
            return Ok(false);
        };
        let (old, new) = (&self.enrolled.certificates, &enrolled.certificates);
        if old.chain == new.chain && old.trust == new.trust {
            return Ok(false);
        }
        self.use_now(enrolled, clock, now)?;
        Ok(true)
    }

    /// Takes over what the collector issued just now, and keeps it; where no disk takes it, it is used all the same.
    pub(super) fn take(
        &mut self,
        identity: &Identity,
        clock: &TlsClock,
        now: Now,
    ) -> Result<(), RunError> {
        let url = self.enrolled.url.clone();
        let enrolled = self.store.understand(identity, &url, now.clock_seconds())?;
        if let Err(error) = self.store.keep(&enrolled, identity) {
            tracing::warn!(error = %Chain(&error), "the new certificate is not kept over a restart");
        }
        self.use_now(enrolled, clock, now)?;
        if self.credentials.came_just_now() == Judged::ByAWrongClock {
            tracing::warn!("the new certificate has ended by this machine's clock: set the clock");
            // Asking again at once would bring another such, for ever.
            self.renew_at = now.uptime + WRONG_CLOCK_RENEWAL;
        }
        Ok(())
    }

    fn use_now(&mut self, enrolled: Enrolled, clock: &TlsClock, now: Now) -> Result<(), RunError> {
        let key = self.store.key().map_err(IdentityError::from)?;
        self.credentials
            .replace(&key, &enrolled.certificates)
            .map_err(|_| IdentityError::ForeignKey)?;
        self.trust
            .replace(&enrolled.certificates.trust)
            .map_err(|_| IdentityError::Pem {
                what: "trust.pem".into(),
            })?;
        self.client.reconnect();
        self.renew_at = renewal(&enrolled, clock, now);
        self.enrolled = enrolled;
        Ok(())
    }

    /// Thinks again about when to renew: the clock was set.
    pub(super) fn clock_was_set(&mut self, clock: &TlsClock, now: Now) {
        self.renew_at = renewal(&self.enrolled, clock, now);
    }

    /// Whether the certificate has ended: only a renewal is answered then.
    pub(super) fn has_expired(&self) -> bool {
        self.credentials.has_expired()
    }

    /// What to ask for a new certificate with: the connection's certificate, or, where that has ended, in the request.
    pub(super) fn renewal_request(&self) -> Result<RenewRequest, RunError> {
        let csr = self
            .store
            .key()
            .and_then(|key| key.request())
            .map_err(IdentityError::from)?;
        let expired = self
            .has_expired()
            .then(|| first_pem(&self.enrolled.certificates.pem));
        Ok(RenewRequest { csr, expired })
    }
}

/// When to renew: as the collector said, give or take a tenth, counted from when the certificate came; and in any case
/// before it ends. A clock that was set back delays that by no more than the first.
fn renewal(enrolled: &Enrolled, clock: &TlsClock, now: Now) -> Duration {
    let after = enrolled
        .renew_after_seconds
        .clamp(MIN_RENEWAL_SECONDS, MAX_RENEWAL_SECONDS);
    let planned = Duration::from_secs(after).mul_f64(0.9 + random_share() / 5.0);
    let elapsed = now.clock_seconds().saturating_sub(enrolled.received_clock);
    let elapsed = Duration::from_secs(u64::try_from(elapsed).unwrap_or(0));
    let left = enrolled
        .certificates
        .not_after
        .saturating_sub(clock.seconds());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    now.uptime + planned.saturating_sub(elapsed).min(left * 9 / 10)
}

fn first_pem(chain: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    match chain.find(END) {
        Some(at) => format!("{}\n", &chain[..at + END.len()]),
        None => chain.to_owned(),
    }
}
