//! Signs a manifest, or prepares one to be signed elsewhere: by an HSM, a key vault, another machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use drift::manifest::Identity;
use drift::signature::{Envelope, SignatureError};
use drift::statement::{Statement, StatementError};

use crate::bake::{BakeError, read_key};
use crate::baseline::{self, BaselineError, open_unverified, trusted_keys};
use crate::durable;

/// Sign a manifest, or prepare it to be signed elsewhere.
#[derive(Debug, Clone, Args)]
#[command(
    group = clap::ArgGroup::new("how").required(true).args(["key", "pae", "attach"]),
    after_help = "\
Both ways read image.statement.json, which `bake` without --key writes beside the manifest.

Examples:
  driftmark-agent sign out/image.manifest --key keys/driftmark.key
  driftmark-agent sign out/image.manifest --pae > to-sign       # the exact bytes for an HSM or key vault
  openssl pkeyutl -sign -inkey keys/driftmark.key -rawin -in to-sign -out signature
  driftmark-agent sign out/image.manifest --attach signature --public keys/driftmark.pub"
)]
pub struct SignArguments {
    /// The manifest.
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Sign with this private key (PKCS#8 PEM, Ed25519 or ECDSA P-256).
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Print the exact bytes that are to be signed.
    #[arg(long)]
    pub pae: bool,
    /// Attach a signature that was made elsewhere: raw Ed25519, or ECDSA P-256 as DER or as raw r and s.
    #[arg(long, value_name = "SIGNATURE")]
    pub attach: Option<PathBuf>,
    /// The public key that the attached signature is by [default: whichever of /usr/lib/driftmark/trust.d it is by].
    #[arg(long, value_name = "FILE", requires = "attach")]
    pub public: Option<PathBuf>,
}

/// Why a manifest was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The manifest or a key cannot be read.
    #[error("open what is to be signed")]
    Open(#[from] BaselineError),
    /// A file cannot be read or written.
    #[error("{verb} {}", crate::bake::shown(path))]
    File {
        /// What was attempted.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// The statement is none, or is about another manifest.
    #[error("read the statement {}", crate::bake::shown(path))]
    Statement {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StatementError,
    },
    /// The statement was made for another manifest.
    #[error("{} is about another manifest: bake again", crate::bake::shown(.0))]
    OtherManifest(PathBuf),
    /// The key cannot be used.
    #[error("use the signing key")]
    Key(#[source] BakeError),
    /// There was no randomness to sign with.
    #[error("sign the statement")]
    Sign(#[source] drift::key::NoRandomness),
    /// The signature is not by the key.
    #[error(
        "attach the signature {}: it must be over exactly what `--pae` prints",
        crate::bake::shown(path)
    )]
    Attach {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SignatureError,
    },
}

/// Signs, prints what is to be signed, or attaches; returns the file that was written, if one was.
///
/// # Errors
/// See [`SignError`]; nothing is written then.
pub fn sign(arguments: &SignArguments, out: &mut dyn Write) -> Result<Option<PathBuf>, SignError> {
    let identity = open_unverified(&arguments.manifest)?.identity();
    let directory = arguments.manifest.parent().unwrap_or(Path::new(""));
    let mut signature_path = arguments.manifest.clone().into_os_string();
    signature_path.push(".sig");
    let signature_path = PathBuf::from(signature_path);
    let statement_path = directory.join("image.statement.json");
    let envelope = pending(&statement_path, &signature_path, identity)?;
    let envelope = match (&arguments.key, &arguments.attach) {
        (Some(key), _) => add_own(envelope, key)?,
        (None, Some(signature)) => attach(envelope, signature, arguments.public.as_deref())?,
        (None, None) => {
            let written = out.write_all(&envelope.pae()).and_then(|()| out.flush());
            written.map_err(|source| SignError::File {
                verb: "write",
                path: "standard output".into(),
                source,
            })?;
            return Ok(None);
        }
    };
    durable::write(&signature_path, &envelope.to_json(), 0o644).map_err(|source| {
        SignError::File {
            verb: "write",
            path: signature_path.clone(),
            source,
        }
    })?;
    Ok(Some(signature_path))
}

/// The envelope that is there already, so that a second key can sign too, or a new one around the statement.
fn pending(statement: &Path, signature: &Path, identity: Identity) -> Result<Envelope, SignError> {
    let (path, envelope) = if signature.exists() {
        (signature, baseline::read_envelope(signature)?)
    } else {
        let bytes = std::fs::read(statement).map_err(|source| SignError::File {
            verb: "read",
            path: statement.to_owned(),
            source,
        })?;
        (statement, Envelope::unsigned(bytes))
    };
    let read = Statement::from_json(envelope.unverified_statement()).map_err(|source| {
        SignError::Statement {
            path: path.to_owned(),
            source,
        }
    })?;
    if read.subject.digest.sha256 == identity.sha256 && read.provenance().is_some() {
        Ok(envelope)
    } else {
        Err(SignError::OtherManifest(path.to_owned()))
    }
}

fn add_own(mut envelope: Envelope, key: &Path) -> Result<Envelope, SignError> {
    let key = read_key(key).map_err(SignError::Key)?;
    envelope
        .add(&key, &ring::rand::SystemRandom::new())
        .map_err(SignError::Sign)?;
    Ok(envelope)
}

fn attach(
    mut envelope: Envelope,
    path: &Path,
    public: Option<&Path>,
) -> Result<Envelope, SignError> {
    let bytes = std::fs::read(path).map_err(|source| SignError::File {
        verb: "read",
        path: path.to_owned(),
        source,
    })?;
    let trust = public.map_or_else(
        || baseline::BaselinePaths::default().trust,
        |public| vec![public.to_owned()],
    );
    let mut outcome = Err(SignatureError::Untrusted);
    for key in trusted_keys(&trust)? {
        outcome = envelope.attach(&bytes, &key);
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(|source| SignError::Attach {
        path: path.to_owned(),
        source,
    })?;
    Ok(envelope)
}
