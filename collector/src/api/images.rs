//! Images and channels for operators: registering a signed manifest, promoting, revoking, restoring.

use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, Query, State};
use drift::manifest::ManifestError;
use drift::report::ImageRef;
use drift::signature::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::keys::{Consequences, Reason};
use super::{ApiError, Operator, Role};
use crate::clock::now_ms;
use crate::image::change::{self, ChangeError, Decided};
use crate::image::{
    Incoming, MAX_ARTIFACT_BYTES, MAX_MANIFEST_BYTES, ShelfError, ShownBuild, ShownChannel,
};
use crate::ledger::{self, Entry};
use crate::serve::App;
use crate::store::images::{self, NewBuild};
use crate::store::{Store, StoreError};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show))
        .routes(routes!(revoke))
        .routes(routes!(restore))
        .routes(routes!(artifact))
        .routes(routes!(channels))
        .routes(routes!(promote))
}

/// What is uploaded.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AddQuery {
    /// How many bytes of the body are the signature (`MANIFEST.sig`); the manifest follows.
    signature_bytes: usize,
    /// When the version expires, in milliseconds since 1970; never where it is not said.
    expires_at_ms: Option<i64>,
}

/// Which version a channel is to give out.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A sentence, for the ledger.
    pub reason: String,
}

/// All registered builds, newest first.
#[utoipa::path(get, path = "/v1/images", tag = "images", responses((status = 200, body = Vec<ShownBuild>)))]
async fn list(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    Ok(Json(
        app.store
            .read(|db| Ok::<_, StoreError>(images::builds(db, None, None, None)?))
            .await?,
    ))
}

/// The builds of one version.
#[utoipa::path(get, path = "/v1/images/{name}/{version}", tag = "images",
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Vec<ShownBuild>), (status = 404)))]
async fn show(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    let read = app.store.read(move |db| {
        Ok::<_, StoreError>(images::builds(db, Some(&name), Some(&version), None)?)
    });
    let builds = read.await?;
    if builds.is_empty() {
        Err(ApiError::not_found("image of that name and version"))
    } else {
        Ok(Json(builds))
    }
}

/// Registers a build: its signature must be by a key that is trusted now. The same version and build with the same
/// digest is no news and may bring further signatures; with another digest it is refused.
#[utoipa::path(post, path = "/v1/images", tag = "images", params(AddQuery),
    request_body(content = String, content_type = "application/octet-stream", description = "signature, then manifest"),
    responses((status = 200, body = ShownBuild), (status = 400, description = "not a manifest, or not its signature"),
        (status = 403, description = "signed by no trusted key"),
        (status = 409, description = "registered with another digest")))]
async fn add(
    State(app): State<Arc<App>>,
    operator: Operator,
    Query(query): Query<AddQuery>,
    body: Body,
) -> Result<Json<ShownBuild>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    if query.signature_bytes > Envelope::MAX_BYTES {
        return Err(ApiError::bad_request(
            "bad-signature",
            format!("a signature has at most {} bytes", Envelope::MAX_BYTES),
        ));
    }
    let (signature, incoming) = receive(&app, query.signature_bytes, body).await?;
    let trusted = app
        .store
        .read(|db| Ok::<_, StoreError>(images::trusted_keys(db)?))
        .await?;
    let verified =
        tokio::task::spawn_blocking(move || verify(&signature, incoming, &trusted)).await;
    let (mut new, incoming) = verified.map_err(|error| ApiError::internal(&error))??;
    new.expires_at_ms = query.expires_at_ms;
    let digest = new.image.manifest;
    // The file first: what is registered has its manifest.
    let kept = tokio::task::spawn_blocking(move || incoming.keep(digest)).await;
    kept.map_err(|error| ApiError::internal(&error))??;
    Ok(Json(register(&app.store, new, operator.name).await?))
}

async fn register(store: &Store, new: NewBuild, by: String) -> Result<ShownBuild, ApiError> {
    let registered = store.write(move |tx| {
        let ImageRef { name, version, build, manifest } = new.image.clone();
        let now_ms = now_ms();
        let (kind, reason) = match images::lookup(tx, &name, &version, &build)? {
            Some(known) if known.digest != manifest => {
                let known = known.digest;
                return Err(ChangeError::Refused(format!("{name} {version} ({build}) is registered with digest {known}")));
            }
            Some(_) => {
                new.signers.iter().try_for_each(|key| images::sign(tx, &new.image, key))?;
                ("image-signed-again", "registered before, with the same digest")
            }
            None => {
                images::register(tx, &new, &by, now_ms)?;
                ("image-registered", "signed by a trusted key")
            }
        };
        let entry = Entry {
            kind,
            fleet: None,
            subject: Some(format!("{name} {version}")),
            reason: reason.into(),
            detail: json!({"build": build, "blake3": manifest, "sha256": new.sha256, "signers": new.signers}),
            actor: by,
        };
        ledger::append(tx, now_ms, &entry)?;
        let shown = images::builds(tx, Some(&name), Some(&version), Some(&build))?.pop();
        shown.ok_or_else(|| ChangeError::Unknown("build".into()))
    });
    Ok(registered.await?)
}

/// Takes the body apart: the signature into memory, the manifest into a file beside the others.
async fn receive(
    app: &App,
    signature_bytes: usize,
    mut body: Body,
) -> Result<(Vec<u8>, Incoming), ApiError> {
    let mut incoming = app.shelf.incoming()?;
    let (mut signature, mut length) = (Vec::with_capacity(signature_bytes), 0);
    let broken = |_| ApiError::bad_request("bad-body", "the upload broke off");
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let Ok(bytes) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        let (head, rest) = bytes.split_at(bytes.len().min(signature_bytes - signature.len()));
        signature.extend_from_slice(head);
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
    if signature.len() < signature_bytes {
        return Err(ApiError::bad_request(
            "bad-body",
            "the body is shorter than its signature",
        ));
    }
    Ok((signature, incoming))
}

fn verify(
    signature: &[u8],
    incoming: Incoming,
    trusted: &[drift::key::TrustedKey],
) -> Result<(NewBuild, Incoming), ApiError> {
    let refuse = |error: &ManifestError| {
        let message = super::error_chain(error);
        match error {
            ManifestError::Signature(_) | ManifestError::OtherManifest { .. } => {
                ApiError::forbidden("bad-signature", message)
            }
            _ => ApiError::bad_request("bad-manifest", message),
        }
    };
    let envelope = Envelope::from_json(signature)
        .map_err(|error| ApiError::bad_request("bad-signature", super::error_chain(&error)))?;
    let manifest = incoming
        .verify(&envelope, trusted)
        .map_err(|error| refuse(&error))?;
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
        expires_at_ms: None,
    };
    drop(manifest);
    Ok((new, incoming))
}

impl From<ShelfError> for ApiError {
    fn from(error: ShelfError) -> Self {
        match &error {
            ShelfError::Io { .. } => {
                tracing::error!(
                    error = super::error_chain(&error),
                    "a manifest cannot be kept"
                );
                ApiError::unavailable(
                    "the collector's disk does not take or give manifests now; try again later",
                )
            }
            ShelfError::Random | ShelfError::Manifest { .. } | ShelfError::Swapped { .. } => {
                ApiError::internal(&error)
            }
        }
    }
}

/// Revokes a version now: no build of it is last good, and every channel that gives it out moves back.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/revoke", tag = "images", request_body = Reason,
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Consequences), (status = 404), (status = 409, description = "revoked already")))]
async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
    Json(reason): Json<Reason>,
) -> Result<Json<Consequences>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let decided = Decided {
        by: operator.name,
        reason: reason.checked()?,
        now_ms: now_ms(),
    };
    let moved = app
        .store
        .write(move |tx| change::revoke(tx, &name, &version, &decided))
        .await?;
    app.wake.notify_one();
    Ok(Json(Consequences { moved }))
}

/// Takes a revocation back. Channels stay where they are.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/restore", tag = "images", request_body = Reason,
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version")),
    responses((status = 200, body = Vec<ShownBuild>), (status = 404), (status = 409, description = "not revoked")))]
async fn restore(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
    Json(reason): Json<Reason>,
) -> Result<Json<Vec<ShownBuild>>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let decided = Decided {
        by: operator.name,
        reason: reason.checked()?,
        now_ms: now_ms(),
    };
    let restored = app.store.write(move |tx| {
        change::restore(tx, &name, &version, &decided)?;
        Ok::<_, ChangeError>(images::builds(tx, Some(&name), Some(&version), None)?)
    });
    let restored = restored.await?;
    app.wake.notify_one();
    Ok(Json(restored))
}

/// Keeps what a build became once it was sealed, such as a `packer-manifest.json`.
#[utoipa::path(post, path = "/v1/images/{name}/{version}/{build}/artifact", tag = "images", request_body = serde_json::Value,
    params(("name" = String, Path, description = "name of the image"), ("version" = String, Path, description = "its version"),
        ("build" = String, Path, description = "its build")),
    responses((status = 200, body = ShownBuild), (status = 404)))]
async fn artifact(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version, build)): Path<(String, String, String)>,
    Json(artifact): Json<serde_json::Value>,
) -> Result<Json<ShownBuild>, ApiError> {
    operator.require_everywhere(Role::Admin)?;
    let text = ledger::canonical_json(&artifact);
    if text.len() > MAX_ARTIFACT_BYTES {
        return Err(ApiError::bad_request(
            "too-long",
            format!("an artifact has at most {MAX_ARTIFACT_BYTES} bytes"),
        ));
    }
    let kept = app.store.write(move |tx| {
        if !images::set_artifact(tx, &name, &version, &build, &text)? {
            return Err(ChangeError::Unknown(
                "image of that name, version and build".into(),
            ));
        }
        let entry = Entry {
            kind: "image-artifact",
            fleet: None,
            subject: Some(format!("{name} {version}")),
            reason: "an operator says what the build became".into(),
            detail: json!({"build": build, "digest": drift::Blake3::of(text.as_bytes())}),
            actor: operator.name,
        };
        ledger::append(tx, now_ms(), &entry)?;
        let shown = images::builds(tx, Some(&name), Some(&version), Some(&build))?.pop();
        shown.ok_or_else(|| ChangeError::Unknown("build".into()))
    });
    Ok(Json(kept.await?))
}

/// All channels with what they give out and gave out.
#[utoipa::path(get, path = "/v1/channels", tag = "images", responses((status = 200, body = Vec<ShownChannel>)))]
async fn channels(
    State(app): State<Arc<App>>,
    operator: Operator,
) -> Result<Json<Vec<ShownChannel>>, ApiError> {
    operator.require_role(Role::Viewer)?;
    Ok(Json(
        app.store
            .read(|db| Ok::<_, StoreError>(change::shown_channels(db, now_ms())?))
            .await?,
    ))
}

/// Points a channel to a version; the first promotion makes the channel.
#[utoipa::path(post, path = "/v1/channels/{channel}", tag = "images", request_body = Promotion,
    params(("channel" = String, Path, description = "its name")),
    responses((status = 200, body = ShownChannel), (status = 404), (status = 409, description = "that version is not good")))]
async fn promote(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(channel): Path<String>,
    Json(promotion): Json<Promotion>,
) -> Result<Json<ShownChannel>, ApiError> {
    operator.require_everywhere(Role::Operator)?;
    let Promotion {
        name,
        version,
        reason,
    } = promotion;
    let decided = Decided {
        by: operator.name,
        reason: Reason { reason }.checked()?,
        now_ms: now_ms(),
    };
    let promoted = app.store.write(move |tx| {
        change::promote(tx, &channel, &name, &version, &decided)?;
        let shown = change::shown_channels(tx, decided.now_ms)?
            .into_iter()
            .find(|shown| shown.channel == channel);
        shown.ok_or_else(|| ChangeError::Unknown("channel".into()))
    });
    let promoted = promoted.await?;
    app.wake.notify_one();
    Ok(Json(promoted))
}
