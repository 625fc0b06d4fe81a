//! Receives what the collector issued; keeps it, and hands it on at the next start.
//!
//! Four files: `instance.key`, `instance.pem` (certificate and chain), `trust.pem`, and `instance.json`, which is
//! written last: while it is missing, the instance is not enrolled.

use std::path::{Path, PathBuf};

use drift::enrolment::Identity;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::key::{InstanceKey, KeyError};
use crate::der;
use crate::state_files::{self, StateError};

/// The directory of an instance's identity.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// What the collector issued, read back and understood.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The id that the collector issued.
    pub instance: String,
    /// The fleet that it belongs to.
    pub fleet: String,
    /// The collector's address.
    pub url: String,
    /// The instance's certificates, and whom to trust.
    pub certificates: Certificates,
    /// When the certificate came, by the wall clock, seconds since 1970.
    pub received_clock: i64,
    /// How many seconds later it is to be renewed.
    pub renew_after_seconds: u64,
}

/// The instance's certificate and its chain, and the CA certificates to trust.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The instance's first, then what issued it.
    pub chain: Vec<CertificateDer<'static>>,
    /// CA certificates: several while the CA rotates.
    pub trust: Vec<CertificateDer<'static>>,
    /// The certificate as PEM text, as a renewal after its end carries it.
    pub pem: String,
    /// When it ends, seconds since 1970.
    pub not_after: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Issued {
    instance: String,
    fleet: String,
    url: String,
    received_clock: i64,
    renew_after_seconds: u64,
}

/// The last one makes an identity of the others.
const FILES: [&str; 4] = ["instance.key", "trust.pem", "instance.pem", "instance.json"];
/// A chain or trust bundle has a few certificates of a few hundred bytes.
const MAX_PEM_BYTES: u64 = 256 * 1024;
/// More certificates than a chain or a rotating bundle ever has.
const MAX_CERTIFICATES: usize = 16;

impl Store {
    /// The store in `state_directory`, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(state_directory: &Path) -> Result<Self, IdentityError> {
        let store = Self::at(state_directory);
        state_files::make_directory(&store.directory)?;
        Ok(store)
    }

    /// The store in `state_directory`, made when there is something to keep.
    pub fn at(state_directory: &Path) -> Self {
        Store {
            directory: state_directory.join("identity"),
        }
    }

    /// Copies the identity that is kept in the state directory `from` to `to`, if `to` has none.
    ///
    /// # Errors
    /// It is there and cannot be read, or cannot be written: what was copied then is no identity yet.
    pub(crate) fn carry(from: &Path, to: &Path) -> Result<(), StateError> {
        let (from, to) = (Self::at(from), Self::at(to));
        if !from.file(FILES[3]).exists() || to.file(FILES[3]).exists() {
            return Ok(());
        }
        state_files::make_directory(&to.directory)?;
        for name in FILES {
            if let Some(bytes) = state_files::read(&from.file(name), MAX_PEM_BYTES)? {
                state_files::replace(&to.file(name), &bytes)?;
            }
        }
        Ok(())
    }

    /// Where it is: renewals and operators replace files here.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The key, made on first use.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn key(&self) -> Result<InstanceKey, KeyError> {
        // Where it cannot be made, neither can the key, which then says so.
        let _ = state_files::make_directory(&self.directory);
        InstanceKey::load_or_make(&self.directory.join("instance.key"))
    }

    /// What was issued; none before enrolment.
    ///
    /// # Errors
    /// It is there and cannot be read or understood.
    pub fn load(&self) -> Result<Option<Enrolled>, IdentityError> {
        let Some(issued) = state_files::read(&self.file("instance.json"), MAX_PEM_BYTES)? else {
            return Ok(None);
        };
        let issued: Issued =
            serde_json::from_slice(&issued).map_err(|source| IdentityError::Json {
                path: self.file("instance.json"),
                source,
            })?;
        let text = |name: &str| -> Result<String, IdentityError> {
            let bytes = state_files::read(&self.file(name), MAX_PEM_BYTES)?.unwrap_or_default();
            String::from_utf8(bytes).map_err(|_| IdentityError::Pem {
                what: name.to_owned(),
            })
        };
        Ok(Some(Enrolled {
            instance: issued.instance,
            fleet: issued.fleet,
            url: issued.url,
            certificates: Certificates::parse(&text("instance.pem")?, &text("trust.pem")?)?,
            received_clock: issued.received_clock,
            renew_after_seconds: issued.renew_after_seconds,
        }))
    }

    /// Keeps what the collector at `url` issued, after making sure that it can be used with this key.
    ///
    /// # Errors
    /// It is not usable, or it cannot be written; what was there before still is then.
    pub fn save(
        &self,
        identity: &Identity,
        url: &str,
        received_clock: i64,
    ) -> Result<Enrolled, IdentityError> {
        let enrolled = self.understand(identity, url, received_clock)?;
        self.keep(&enrolled, identity)?;
        Ok(enrolled)
    }

    /// Makes sure that what the collector at `url` issued can be used with this key.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) fn understand(
        &self,
        identity: &Identity,
        url: &str,
        received_clock: i64,
    ) -> Result<Enrolled, IdentityError> {
        let certificates = Certificates::parse(&identity.certificate, &identity.trust)?;
        self.key()?.refuse_if_not_of(&certificates)?;
        Ok(Enrolled {
            instance: crate::log::peer_words(&identity.instance),
            fleet: crate::log::peer_words(&identity.fleet),
            url: url.to_owned(),
            certificates,
            received_clock,
            renew_after_seconds: identity.renew_after_seconds,
        })
    }

    /// Keeps what was understood of `identity`.
    ///
    /// # Errors
    /// It cannot be written; what was there before still is then.
    pub(crate) fn keep(&self, enrolled: &Enrolled, identity: &Identity) -> Result<(), StateError> {
        let issued = Issued {
            instance: enrolled.instance.clone(),
            fleet: enrolled.fleet.clone(),
            url: enrolled.url.clone(),
            received_clock: enrolled.received_clock,
            renew_after_seconds: enrolled.renew_after_seconds,
        };
        state_files::replace(&self.file("trust.pem"), identity.trust.as_bytes())?;
        state_files::replace(&self.file("instance.pem"), identity.certificate.as_bytes())?;
        state_files::replace(
            &self.file("instance.json"),
            &serde_json::to_vec(&issued).expect("a plain struct"),
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl InstanceKey {
    /// A certificate of another key can never be used, so it is not kept.
    fn refuse_if_not_of(&self, certificates: &Certificates) -> Result<(), IdentityError> {
        let key = self.signing_key().map_err(|_| IdentityError::ForeignKey)?;
        let certified = rustls::sign::CertifiedKey::new(certificates.chain.clone(), key);
        certified
            .keys_match()
            .map_err(|_| IdentityError::ForeignKey)
    }
}

impl Certificates {
    /// Reads PEM texts.
    ///
    /// # Errors
    /// One of them has no certificate, too many, or none that can be understood.
    pub fn parse(chain_pem: &str, trust_pem: &str) -> Result<Self, IdentityError> {
        let chain = certificates_of("instance.pem", chain_pem)?;
        let trust = certificates_of("trust.pem", trust_pem)?;
        let not_after = der::not_after(&chain[0]).ok_or_else(|| IdentityError::Pem {
            what: "instance.pem".into(),
        })?;
        Ok(Certificates {
            chain,
            trust,
            pem: chain_pem.to_owned(),
            not_after,
        })
    }
}

/// The certificates of a PEM text named `what`.
pub(crate) fn certificates_of(
    what: &str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let malformed = || IdentityError::Pem {
        what: what.to_owned(),
    };
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).take(MAX_CERTIFICATES + 1);
    let certificates = certificates
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| malformed())?;
    if certificates.is_empty() || certificates.len() > MAX_CERTIFICATES {
        Err(malformed())
    } else {
        Ok(certificates)
    }
}

/// Why an identity cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// PEM without a certificate, or with too many.
    #[error("`{what}` has no certificates, too many, or some that cannot be understood")]
    Pem {
        /// Which text.
        what: String,
    },
    /// Not what this agent writes.
    #[error("understand {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A certificate of another key.
    #[error("the certificate does not belong to this instance's key")]
    ForeignKey,
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}
