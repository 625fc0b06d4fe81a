//! Receives a join token; hands back an identity, kept in the state directory.
//!
//! An answer that was lost is asked for again with the same key and the same token: the collector gives the same
//! instance its identity again. An instance that is enrolled is never enrolled over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drift::enrolment::{BadToken, EnrolRequest, JoinToken};
use drift::report::ImageRef;

use crate::client::credentials::Credentials;
use crate::client::trust::Trust;
use crate::client::{Client, ClientError, Remedy};
use crate::clock::{Now, TlsClock};
use crate::identity::{Enrolled, IdentityError, KeyError, Store, certificates_of};
use crate::log::peer_words;
use crate::state_files::{self, StateError};

/// What `enroll` is told.
#[derive(Debug, Clone, Default)]
pub struct EnrollArguments {
    /// The collector's address, where it is not the join token's.
    pub collector: Option<String>,
    /// CA certificates to trust, PEM, instead of the join token's digest.
    pub ca_file: Option<PathBuf>,
    /// The fleet that this instance is for, where that is not left to the token.
    pub fleet: Option<String>,
    /// The join token.
    pub token_file: PathBuf,
    /// Where the identity is kept.
    pub state_directory: PathBuf,
    /// The cloud's id of this machine.
    pub cloud_id: Option<String>,
    /// The image that this instance was baked from, if its manifest verified.
    pub image: Option<ImageRef>,
    /// When that image was built, seconds since 1970.
    pub build_time: Option<i64>,
}

/// How often `enroll` asks a collector that is away before it gives up. The daemon never gives up.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

/// Enrols this instance, once.
///
/// # Errors
/// [`EnrolError`]; the message says what to do.
pub fn enroll(arguments: &EnrollArguments) -> Result<Enrolled, EnrolError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(EnrolError::Runtime)?;
    runtime.block_on(async {
        let clock = TlsClock::default();
        clock.not_before(arguments.build_time.unwrap_or(0));
        let applicant = Applicant::prepare(arguments, &clock)?;
        let mut attempt = 1;
        loop {
            match applicant.apply().await {
                Err(error) if attempt < ATTEMPTS && error.is_passing() => attempt += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// An instance that is ready to ask.
pub struct Applicant {
    client: Client,
    request: EnrolRequest,
    store: Store,
}

impl Applicant {
    /// Reads the token and makes the key and the request.
    ///
    /// # Errors
    /// [`EnrolError`], of which [`EnrolError::AlreadyEnrolled`] is one.
    pub fn prepare(arguments: &EnrollArguments, clock: &TlsClock) -> Result<Self, EnrolError> {
        let store = Store::open(&arguments.state_directory)?;
        if let Some(enrolled) = store.load()? {
            return Err(EnrolError::AlreadyEnrolled {
                instance: enrolled.instance,
                fleet: enrolled.fleet,
                directory: store.directory().to_owned(),
            });
        }
        let token = read_token(&arguments.token_file)?;
        let trust = match &arguments.ca_file {
            None => Trust::pinned(token.ca),
            Some(file) => Trust::roots(&certificates_of("ca-file", &read_text(file)?)?)
                .map_err(EnrolError::Trust)?,
        };
        let url = arguments.collector.as_deref().unwrap_or(&token.url);
        if !url.starts_with("https://") {
            return Err(EnrolError::Address {
                url: url.to_owned(),
            });
        }
        let client = Client::new(
            url,
            Arc::new(trust),
            Arc::new(Credentials::none(clock)),
            clock,
        )?;
        let cloud_id = arguments.cloud_id.clone().filter(|id| !id.is_empty());
        if cloud_id
            .as_ref()
            .is_some_and(|id| id.len() > EnrolRequest::MAX_CLOUD_ID_BYTES)
        {
            return Err(EnrolError::CloudId);
        }
        let request = EnrolRequest {
            token: token.secret,
            csr: store.key()?.request()?,
            cloud_id,
            fleet: arguments.fleet.clone(),
            image: arguments.image.clone(),
            boot_id: crate::run::boot_id(),
        };
        Ok(Applicant {
            client,
            request,
            store,
        })
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`EnrolError`]; [`EnrolError::is_passing`] says whether to ask again.
    pub async fn apply(&self) -> Result<Enrolled, EnrolError> {
        let identity = self
            .client
            .enrol(&self.request)
            .await
            .map_err(|error| match error {
                error if error.is_mistrust() && !error.is_about_time() => EnrolError::Impostor {
                    url: self.client.url().to_owned(),
                    source: error,
                },
                error => EnrolError::Client(error),
            })?;
        if let Some(wanted) = self
            .request
            .fleet
            .as_ref()
            .filter(|&wanted| *wanted != identity.fleet)
        {
            return Err(EnrolError::OtherFleet {
                wanted: wanted.clone(),
                given: peer_words(&identity.fleet),
            });
        }
        Ok(self
            .store
            .save(&identity, self.client.url(), Now::read().clock_seconds())?)
    }
}

/// The first of these files that is there.
pub fn first_there(files: &[PathBuf]) -> Option<&Path> {
    files
        .iter()
        .map(PathBuf::as_path)
        .find(|file| file.exists())
}

/// The first line of a file that holds the cloud's id of this machine; none where there is none.
pub fn read_cloud_id(file: &Path) -> Option<String> {
    let bytes = state_files::read(file, MAX_CREDENTIAL_BYTES).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty() && line.len() <= EnrolRequest::MAX_CLOUD_ID_BYTES).then(|| line.to_owned())
}

/// A credential is one line.
const MAX_CREDENTIAL_BYTES: u64 = 64 * 1024;

fn read_token(file: &Path) -> Result<JoinToken, EnrolError> {
    JoinToken::parse(&read_text(file)?).map_err(|source| EnrolError::Token {
        path: file.to_owned(),
        source,
    })
}

fn read_text(file: &Path) -> Result<String, EnrolError> {
    let bytes = state_files::read(file, MAX_CREDENTIAL_BYTES)?;
    let bytes = bytes.ok_or_else(|| StateError {
        action: "read",
        path: file.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why this instance is not enrolled, or not enrolled again.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has an identity already.
    #[error("already enrolled as {instance} in fleet {fleet}: to enrol anew, retire it at the collector and remove {}", directory.display())]
    AlreadyEnrolled {
        /// Its id.
        instance: String,
        /// Its fleet.
        fleet: String,
        /// Where the identity is.
        directory: PathBuf,
    },
    /// The token file holds no token.
    #[error("understand token file {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadToken,
    },
    /// Not an address of a collector.
    #[error("`{url}` is not `https://HOST:PORT`")]
    Address {
        /// What was given.
        url: String,
    },
    /// The collector gave an identity of another fleet, which is not kept.
    #[error(
        "this instance is for fleet {wanted}, and the join token is for {given}: hand over a token of the right fleet, or correct `enroll.fleet`"
    )]
    OtherFleet {
        /// The fleet that was asked for.
        wanted: String,
        /// The fleet of the answer.
        given: String,
    },
    /// Longer than a cloud id is.
    #[error("a cloud id has at most {} bytes", EnrolRequest::MAX_CLOUD_ID_BYTES)]
    CloudId,
    /// The CA file.
    #[error("trust the certificates of the CA file")]
    Trust(#[source] rustls::Error),
    /// Whoever answers is not the collector that made the token.
    #[error("{url} is not the collector that made this token")]
    Impostor {
        /// The address.
        url: String,
        /// What TLS says.
        source: ClientError,
    },
    /// The request.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer, or what was there before.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file.
    #[error(transparent)]
    State(#[from] StateError),
    /// No runtime.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
}

impl EnrolError {
    /// Whether asking again, as it is, may help.
    pub fn is_passing(&self) -> bool {
        match self {
            EnrolError::Client(ClientError::Refused { .. } | ClientError::Clock { .. }) => false,
            EnrolError::Client(error) => error.remedy() == Remedy::Later,
            _ => false,
        }
    }
}
