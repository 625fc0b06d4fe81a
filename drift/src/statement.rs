//! Who says what about a digest: in-toto Statements v1, as strict values in and canonical JSON out.
//!
//! Two kinds over the same digest: where a build comes from ([`Provenance`]), and what it became once it was sealed
//! ([`Artifact`]). A statement is only worth something inside a verified [`crate::signature::Envelope`].

mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Blake3, Sha256};

pub use text::{BadText, Label, Note, Timestamp};

/// `_type` of every in-toto Statement v1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// A statement about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The manifest, by its digests.
    pub subject: Subject,
    /// What is said about it.
    pub predicate: Predicate,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What it is called; for people.
    pub name: Note,
    /// By what it is known.
    pub digest: SubjectDigest,
}

/// The digests of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// What the rest of the world speaks.
    pub sha256: Sha256,
    /// What hosts check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Blake3>,
}

/// What is said about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Where the build comes from.
    Manifest(Provenance),
    /// What the build became once it was sealed.
    Artifact(Artifact),
}

/// Where a build comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provenance {
    /// Name of the image.
    pub name: Label,
    /// Its version.
    pub version: Label,
    /// Which build of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Label>,
    /// For which machines, as `uname -m` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Label>,
    /// When it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_time: Option<Timestamp>,
    /// What built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Note>,
    /// From which revision of its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<Note>,
    /// Who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Note>,
    /// Digest of its software bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom_sha256: Option<Sha256>,
    /// Digest (SHA-256) of the manifest of the image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Sha256>,
}

/// What a build became once it was sealed: what no manifest inside it can hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// Where it runs: `aws`, `azure`, `gcp`, …
    pub platform: Label,
    /// What it is called there, by kind or region of the name: at most [`Artifact::MAX_IDS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ids: BTreeMap<Label, Note>,
    /// Root hash of its dm-verity tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity_root_hash: Option<Sha256>,
}

/// Why bytes are not a statement.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Longer than [`Statement::MAX_BYTES`].
    #[error("statement is longer than {} bytes", Statement::MAX_BYTES)]
    TooLong,
    /// Not JSON, or a field that is missing, unknown, doubled or malformed.
    #[error("read statement")]
    Json(#[source] serde_json::Error),
    /// Not an in-toto Statement v1.
    #[error("statement is not of type {STATEMENT_TYPE}")]
    Type,
    /// A statement about anything but one subject.
    #[error("statement has {0} subjects, not one")]
    Subjects(usize),
    /// A predicate that this version does not know.
    #[error("statement has an unknown predicate type")]
    PredicateType,
    /// More ids than [`Artifact::MAX_IDS`].
    #[error("artifact has more than {} ids", Artifact::MAX_IDS)]
    TooManyIds,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<P, T> {
    #[serde(rename = "_type")]
    kind: T,
    subject: Vec<Subject>,
    predicate_type: T,
    predicate: P,
}

impl Artifact {
    /// Versioned name of this predicate.
    pub const PREDICATE_TYPE: &str = "https://driftmark.dev/artifact/v1";
    /// More names than there are regions on any cloud.
    pub const MAX_IDS: usize = 256;
}

impl Provenance {
    /// Versioned name of this predicate.
    pub const PREDICATE_TYPE: &str = "https://driftmark.dev/manifest/v1";

    /// The build, `default` where the image has only one.
    pub fn build_name(&self) -> &str {
        self.build.as_ref().map_or("default", Label::as_str)
    }
}

impl Statement {
    /// Every field is bounded; this is far above their sum for a manifest.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// The provenance, if this is that kind of statement.
    pub fn provenance(&self) -> Option<&Provenance> {
        match &self.predicate {
            Predicate::Manifest(provenance) => Some(provenance),
            Predicate::Artifact(_) => None,
        }
    }

    /// Canonical JSON: fixed order of fields, no whitespace.
    pub fn to_json(&self) -> Vec<u8> {
        match &self.predicate {
            Predicate::Manifest(predicate) => self.wire(Provenance::PREDICATE_TYPE, predicate),
            Predicate::Artifact(predicate) => self.wire(Artifact::PREDICATE_TYPE, predicate),
        }
    }

    fn wire<P: Serialize>(&self, predicate_type: &str, predicate: P) -> Vec<u8> {
        let subject = vec![self.subject.clone()];
        let wire = Wire {
            kind: STATEMENT_TYPE,
            subject,
            predicate_type,
            predicate,
        };
        serde_json::to_vec(&wire).expect("plain structs with text keys")
    }

    /// Reads a statement; unknown and doubled fields are refused.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(StatementError::TooLong);
        }
        let wire: Wire<&serde_json::value::RawValue, String> =
            serde_json::from_slice(bytes).map_err(StatementError::Json)?;
        if wire.kind != STATEMENT_TYPE {
            return Err(StatementError::Type);
        }
        let predicate = Predicate::read(&wire.predicate_type, wire.predicate.get())?;
        match <[Subject; 1]>::try_from(wire.subject) {
            Ok([subject]) => Ok(Self { subject, predicate }),
            Err(subjects) => Err(StatementError::Subjects(subjects.len())),
        }
    }
}

impl Predicate {
    fn read(predicate_type: &str, json: &str) -> Result<Self, StatementError> {
        match predicate_type {
            Provenance::PREDICATE_TYPE => serde_json::from_str(json)
                .map(Predicate::Manifest)
                .map_err(StatementError::Json),
            Artifact::PREDICATE_TYPE => {
                let artifact: Artifact =
                    serde_json::from_str(json).map_err(StatementError::Json)?;
                if artifact.ids.len() > Artifact::MAX_IDS {
                    return Err(StatementError::TooManyIds);
                }
                Ok(Predicate::Artifact(artifact))
            }
            _ => Err(StatementError::PredicateType),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
