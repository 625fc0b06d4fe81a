//! Receives signed manifests and what builds are called where they run; registers them, or refuses and changes nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use drift::manifest::ManifestError;
use drift::report::ImageRef;
use drift::signature::{Envelope, SignatureError};
use rusqlite::{Connection, Transaction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{ApiError, Operator, Role, error_chain};
use crate::clock::now_ms;
use crate::image::artifact::{self, ArtifactError, MAX_BYTES, MAX_FILES, Said, Subject};
use crate::image::change::ChangeError;
use crate::image::{Incoming, Keys, MAX_MANIFEST_BYTES, ShownBuild};
use crate::ledger::{self, Entry};
use crate::serve::App;
use crate::store::artifacts::{self, NotKept};
use crate::store::images::{self, NewBuild};
use crate::store::{Store, StoreError};

/// What is uploaded, and what its sender holds it to be.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AddQuery {
    /// How many bytes of the body are the signature (`MANIFEST.sig`); the artifact files and the manifest follow.
    signature_bytes: usize,
    /// How many bytes each artifact file has, with commas between: `512,2048`.
    artifact_bytes: Option<String>,
    /// When the version expires, in milliseconds since 1970; never where it is not said.
    expires_at_ms: Option<i64>,
    /// The name that the manifest is expected to be signed for.
    name: Option<String>,
    /// The version that it is expected to be signed for.
    version: Option<String>,
    /// The build that it is expected to be signed for.
    build: Option<String>,
}

/// An upload, taken apart.
struct Upload {
    signature: Vec<u8>,
    artifacts: Vec<Vec<u8>>,
    incoming: Incoming,
}

/// A build whose signature holds, with what its artifact files say of it.
#[derive(Debug, Clone)]
struct Verified {
    new: Arc<NewBuild>,
    said: Arc<Vec<Said>>,
}

/// Registers a build: its signature must be by a key that is trusted now, and everything that comes with it must fit.
/// The same version and build with the same digest is no news and may bring further signatures and artifacts; with
/// another digest it is refused.
#[utoipa::path(post, path = "/v1/images", tag = "images", params(AddQuery),
    request_body(content = String, content_type = "application/octet-stream",
        description = "signature, then artifact files, then manifest"),
    responses((status = 200, body = ShownBuild), (status = 400, description = "not a manifest, its signature, or an artifact"),
        (status = 403, description = "signed by no trusted key"),
        (status = 409, description = "registered with another digest, not what was expected, or an artifact of another build")))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(query): Query<AddQuery>,
    body: Body,
) -> Result<Json<ShownBuild>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let upload = receive(&app, &query, body).await?;
    let keys = keys(&app.store).await?;
    let verified = tokio::task::spawn_blocking(move || verify(upload, &query, &keys)).await;
    let (verified, incoming) = verified.map_err(|error| ApiError::internal(&error))??;
    // What is refused leaves no file behind; who is faster than this look costs the room of one.
    let looked_at = verified.clone();
    let looked: Result<(), ApiError> = app.store.read(move |db| looked_at.check(db)).await;
    looked?;
    let digest = verified.new.image.manifest;
    // The file first: what is registered has its manifest.
    let kept = tokio::task::spawn_blocking(move || incoming.keep(digest)).await;
    kept.map_err(|error| ApiError::internal(&error))??;
    let registered: Result<_, ApiError> = app
        .store
        .write(move |tx| verified.register(tx, &operator.name, now_ms()))
        .await;
    Ok(Json(registered?))
}

/// Adds what a build is called where it runs: the output of an image builder as it is, recognised by its content, or
/// `{"platform": …, "ids": {KIND: ID}}`, signed or not. Adding it again is no news.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/{build}/artifacts", tag = "images",
    request_body(content = String, content_type = "application/octet-stream", description = "the file"),
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version"),
        ("build" = String, Path, description = "its build")),
    responses((status = 200, body = ShownBuild), (status = 400, description = "the output of no image builder that is known"),
        (status = 403, description = "signed by no trusted key"), (status = 404, description = "no such build"),
        (status = 409, description = "of another build, or it says so itself")))]
pub(super) async fn add_artifact(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version, build)): Path<(String, String, String)>,
    file: Bytes,
) -> Result<Json<ShownBuild>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let keys = keys(&app.store).await?;
    let added: Result<_, ApiError> = app
        .store
        .write(move |tx| {
            let known = images::builds(tx, Some(&name), Some(&version), Some(&build))?.pop();
            let known = known
                .ok_or_else(|| ApiError::not_found("image of that name, version and build"))?;
            let subject = Subject {
                name,
                version,
                build,
                sha256: known.sha256,
                blake3: known.blake3,
            };
            let said = artifact::read(&file, &subject, &keys.trusted)
                .map_err(|error| bad_artifact(&error, &file, &keys))?;
            keep(tx, &subject, &said, &operator.name, now_ms())?;
            shown(tx, &subject)
        })
        .await;
    Ok(Json(added?))
}

impl Verified {
    fn subject(&self) -> Subject {
        let ImageRef {
            name,
            version,
            build,
            manifest,
        } = self.new.image.clone();
        Subject {
            name,
            version,
            build,
            sha256: self.new.sha256,
            blake3: manifest,
        }
    }

    /// Whether nothing that is registered stands against it; whether the build is known.
    fn check(&self, db: &Connection) -> Result<(), ApiError> {
        self.is_known(db)?;
        let subject = self.subject();
        for said in self.said.iter() {
            artifacts::check(db, &subject, said)?;
        }
        Ok(())
    }

    fn is_known(&self, db: &Connection) -> Result<bool, ApiError> {
        let image = &self.new.image;
        match images::lookup(db, &image.name, &image.version, &image.build)? {
            Some(known) if known.digest != image.manifest => {
                let (shown, found, known) =
                    (crate::image::shown(image), image.manifest, known.digest);
                Err(ChangeError::Refused(format!(
                    "{shown} is registered with digest {known}, and this manifest has {found}: \
                     another content needs another version; nothing was added"
                ))
                .into())
            }
            known => Ok(known.is_some()),
        }
    }

    fn register(
        &self,
        tx: &Transaction<'_>,
        by: &str,
        now_ms: i64,
    ) -> Result<ShownBuild, ApiError> {
        let new = &self.new;
        let (kind, reason) = if self.is_known(tx)? {
            new.signers
                .iter()
                .try_for_each(|key| images::sign(tx, &new.image, key))?;
            (
                "image-signed-again",
                "registered before, with the same digest",
            )
        } else {
            images::register(tx, new, by, now_ms)?;
            ("image-registered", "signed by a trusted key")
        };
        let subject = self.subject();
        let detail = json!({"build": subject.build, "blake3": subject.blake3, "sha256": subject.sha256,
                            "signers": new.signers});
        note(tx, kind, &subject, reason, detail, by, now_ms)?;
        for said in self.said.iter() {
            keep(tx, &subject, said, by, now_ms)?;
        }
        shown(tx, &subject)
    }
}

/// Keeps what a file says, with its ledger entry; nothing where nothing of it is new.
fn keep(
    tx: &Transaction<'_>,
    subject: &Subject,
    said: &Said,
    by: &str,
    now_ms: i64,
) -> Result<(), ApiError> {
    if artifacts::add(tx, subject, said, by, now_ms)? == 0 {
        return Ok(());
    }
    let reason = if said.signers.is_empty() {
        "an operator says what the build became"
    } else {
        "a trusted key signed what the build became"
    };
    let statements: Vec<Value> = said
        .statements
        .iter()
        .filter_map(|statement| serde_json::from_slice(&statement.to_json()).ok())
        .map(|statement: Value| statement["predicate"].clone())
        .collect();
    let detail = json!({"build": subject.build, "format": said.format.word(), "signers": said.signers,
                        "artifacts": statements});
    note(tx, "image-artifact", subject, reason, detail, by, now_ms)
}

fn note(
    tx: &Transaction<'_>,
    kind: &'static str,
    subject: &Subject,
    reason: &str,
    detail: Value,
    by: &str,
    now_ms: i64,
) -> Result<(), ApiError> {
    let entry = Entry {
        kind,
        fleet: None,
        subject: Some(format!("{} {}", subject.name, subject.version)),
        reason: reason.to_owned(),
        detail,
        actor: by.to_owned(),
    };
    ledger::append(tx, now_ms, &entry)?;
    Ok(())
}

fn shown(tx: &Transaction<'_>, of: &Subject) -> Result<ShownBuild, ApiError> {
    let shown = images::builds(tx, Some(&of.name), Some(&of.version), Some(&of.build))?.pop();
    shown.ok_or_else(|| ApiError::not_found("image of that name, version and build"))
}

async fn keys(store: &Store) -> Result<Keys, ApiError> {
    let read = store.read(|db| {
        Ok::<_, StoreError>(Keys {
            trusted: images::trusted_keys(db)?,
            former: images::former_keys(db)?,
        })
    });
    Ok(read.await?)
}

/// Takes the body apart: signature and artifact files into memory, the manifest into a file beside the others.
async fn receive(app: &App, query: &AddQuery, mut body: Body) -> Result<Upload, ApiError> {
    if query.signature_bytes > Envelope::MAX_BYTES {
        return Err(ApiError::bad_request(
            "bad-signature",
            format!("a signature has at most {} bytes", Envelope::MAX_BYTES),
        ));
    }
    let mut wanted = VecDeque::from([query.signature_bytes]);
    wanted.extend(lengths(query.artifact_bytes.as_deref())?);
    let mut heads: Vec<Vec<u8>> = vec![Vec::new(); wanted.len()];
    let mut incoming = app.shelf.incoming()?;
    let (mut at, mut length) = (0, 0);
    let broken = |_| ApiError::bad_request("bad-body", "the upload broke off");
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let Ok(bytes) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        let mut rest = &bytes[..];
        while at < wanted.len() {
            let (head, more) = rest.split_at(rest.len().min(wanted[at] - heads[at].len()));
            heads[at].extend_from_slice(head);
            rest = more;
            if heads[at].len() < wanted[at] {
                break;
            }
            at += 1;
        }
        length += rest.len() as u64;
        if length > MAX_MANIFEST_BYTES {
            return Err(ApiError::bad_request(
                "too-long",
                format!("a manifest has at most {MAX_MANIFEST_BYTES} bytes"),
            ));
        }
        // Into the page cache, a frame at a time: it is synced off this thread.
        incoming.write(rest)?;
    }
    if heads.iter().map(Vec::len).ne(wanted.iter().copied()) {
        return Err(ApiError::bad_request(
            "bad-body",
            "the body is shorter than its signature and artifact files",
        ));
    }
    let mut heads = heads.into_iter();
    Ok(Upload {
        signature: heads.next().unwrap_or_default(),
        artifacts: heads.collect(),
        incoming,
    })
}

/// How long each artifact file is.
fn lengths(text: Option<&str>) -> Result<Vec<usize>, ApiError> {
    let wrong = || {
        ApiError::bad_request(
            "bad-artifact",
            format!(
                "`artifact_bytes` has at most {MAX_FILES} lengths of at most {MAX_BYTES} bytes"
            ),
        )
    };
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let lengths: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    let lengths = lengths.map_err(|_| wrong())?;
    if lengths.len() > MAX_FILES || lengths.iter().any(|length| *length > MAX_BYTES) {
        return Err(wrong());
    }
    Ok(lengths)
}

fn verify(upload: Upload, query: &AddQuery, keys: &Keys) -> Result<(Verified, Incoming), ApiError> {
    let Upload {
        signature,
        artifacts,
        incoming,
    } = upload;
    let envelope = Envelope::from_json(&signature)
        .map_err(|error| ApiError::bad_request("bad-signature", error_chain(&error)))?;
    let manifest = incoming
        .verify(&envelope, &keys.trusted)
        .map_err(|error| bad_manifest(&error, &envelope, keys))?;
    let provenance = manifest.provenance();
    let identity = manifest.identity();
    let new = NewBuild {
        image: ImageRef {
            name: provenance.name.to_string(),
            version: provenance.version.to_string(),
            build: provenance.build_name().to_owned(),
            manifest: identity.blake3,
        },
        sha256: identity.sha256,
        entries: manifest.header().entry_count,
        envelope: String::from_utf8_lossy(&envelope.to_json()).into_owned(),
        statement: String::from_utf8_lossy(envelope.unverified_statement()).into_owned(),
        signers: manifest.signers().iter().map(ToString::to_string).collect(),
        expires_at_ms: query.expires_at_ms,
    };
    drop(manifest);
    let is_expected = [
        ("name", &query.name, &new.image.name),
        ("version", &query.version, &new.image.version),
        ("build", &query.build, &new.image.build),
    ];
    for (what, expected, found) in is_expected {
        if let Some(expected) = expected.as_ref().filter(|expected| *expected != found) {
            let expected = drift::escape(expected.as_bytes());
            return Err(ApiError::conflict(
                "does-not-fit",
                format!(
                    "{what} does not fit: expected {expected}, and the manifest is signed for {found}: nothing was added"
                ),
            ));
        }
    }
    let mut verified = Verified {
        new: Arc::new(new),
        said: Arc::default(),
    };
    let subject = verified.subject();
    let said = artifacts.iter().map(|file| {
        artifact::read(file, &subject, &keys.trusted)
            .map_err(|error| bad_artifact(&error, file, keys))
    });
    verified.said = Arc::new(said.collect::<Result<_, _>>()?);
    Ok((verified, incoming))
}

fn bad_manifest(error: &ManifestError, envelope: &Envelope, keys: &Keys) -> ApiError {
    let message = error_chain(error);
    match error {
        ManifestError::Signature(
            SignatureError::Untrusted | SignatureError::Wrong(_) | SignatureError::Unsigned,
        ) => ApiError::forbidden(
            "bad-signature",
            format!("{message}: {}", keys.explain(envelope)),
        ),
        ManifestError::Signature(_)
        | ManifestError::OtherManifest { .. }
        | ManifestError::OtherStatement => ApiError::forbidden("bad-signature", message),
        _ => ApiError::bad_request("bad-manifest", message),
    }
}

fn bad_artifact(error: &ArtifactError, file: &[u8], keys: &Keys) -> ApiError {
    let message = error_chain(error);
    match error {
        ArtifactError::DoesNotFit { .. } => {
            ApiError::conflict("does-not-fit", format!("{message}: nothing was added"))
        }
        ArtifactError::Signature(
            SignatureError::Untrusted | SignatureError::Wrong(_) | SignatureError::Unsigned,
        ) => {
            let explained = Envelope::from_json(file).map(|envelope| keys.explain(&envelope));
            ApiError::forbidden(
                "bad-signature",
                format!("{message}: {}", explained.unwrap_or_default()),
            )
        }
        ArtifactError::TooLong => {
            ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "too-long", message)
        }
        _ => ApiError::bad_request("bad-artifact", message),
    }
}

impl From<NotKept> for ApiError {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Taken { .. } => ApiError::conflict("artifact-taken", error.to_string()),
            NotKept::TooMany => ApiError::conflict("too-many", error.to_string()),
            NotKept::Statement(error) => error.into(),
        }
    }
}
