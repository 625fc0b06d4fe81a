//! Receives signed manifests and operators' decisions about them, and hands on what a channel's last good image is.
//!
//! An image is a name and a version with one manifest for each build. A version is registered only with a signature by
//! a key that the collector trusts; the same version and build with another digest is refused for ever. A channel is a
//! pointer to a version with its history. Revoking a version or a key moves every channel that gave it out back to its
//! last good version, if there is one: see [`last_good`].

pub mod artifact;
pub mod change;
mod last_good;
mod shelf;
mod signed_by;

use drift::report::ImageRef;
use serde::{Deserialize, Serialize};

pub use crate::store::artifacts::ShownArtifact;
pub use crate::store::images::lookup;
pub use last_good::{Assignment, Build, Version, last_good};
pub use shelf::{Expected, Incoming, Opened, Shelf, ShelfError};
pub use signed_by::Keys;

/// The longest manifest that is registered: some 4 million entries.
pub const MAX_MANIFEST_BYTES: u64 = 512 * 1024 * 1024;

/// What is registered of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// BLAKE3 of its manifest's identity.
    pub digest: drift::Blake3,
}

/// A registered build, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownBuild {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which build of that version.
    pub build: String,
    /// BLAKE3 of the manifest's identity.
    #[schema(value_type = String)]
    pub blake3: drift::Blake3,
    /// SHA-256 of the manifest's identity.
    #[schema(value_type = String)]
    pub sha256: drift::Sha256,
    /// Entries in the manifest.
    pub entries: u64,
    /// The keys that signed it.
    pub signers: Vec<String>,
    /// Those of them that are revoked.
    pub revoked_signers: Vec<String>,
    /// When it was registered, in milliseconds since 1970.
    pub added_at_ms: i64,
    /// By whom.
    pub added_by: String,
    /// When its version was revoked.
    pub revoked_at_ms: Option<i64>,
    /// Why.
    pub revoked_reason: Option<String>,
    /// When its version expires.
    pub expires_at_ms: Option<i64>,
    /// The channels that give its version out now.
    pub channels: Vec<String>,
    /// What was signed beside the digest.
    pub statement: serde_json::Value,
    /// What the build is called where it runs, the latest first.
    pub artifacts: Vec<ShownArtifact>,
}

/// A channel, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownChannel {
    /// Its name.
    pub channel: String,
    /// What it gives out, if that is good.
    pub last_good: Option<ShownVersion>,
    /// Why there is none.
    pub none_because: Option<String>,
    /// What it gave out, the latest first.
    pub history: Vec<ShownAssignment>,
}

/// A version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownVersion {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a channel was pointed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownAssignment {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A key, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownKey {
    /// SHA-256 of its SPKI.
    pub id: String,
    /// `ed25519` or `ecdsa-p256`.
    pub algorithm: String,
    /// When it was added, in milliseconds since 1970.
    pub added_at_ms: i64,
    /// By whom.
    pub added_by: String,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
    /// Why.
    pub revoked_reason: Option<String>,
}

/// An image in one line: `web 1.2 (amd64)`.
pub fn shown(image: &ImageRef) -> String {
    format!("{} {} ({})", image.name, image.version, image.build)
}
