//! Receives what an image builder wrote about what it made, hands on statements of what a build is called where it runs.
//!
//! What a file is, is recognised by its content: Packer's manifest, the run outputs of Azure Image Builder, the image of
//! EC2 Image Builder, mkosi's manifest, Docker's image, or our own form, signed or not. Of each format only what names
//! an artifact is read, and that strictly: an id that is none is refused, never kept. What such a file says of the
//! build itself (`custom_data` of Packer, the subject of a signature) must fit the build that it is added to.

mod amazon;
mod azure;
mod docker;
mod google;
mod mkosi;
mod packer;

use std::collections::BTreeMap;
use std::fmt;

use drift::key::TrustedKey;
use drift::signature::{Envelope, SignatureError};
use drift::statement::{
    Artifact, Label, Note, Predicate, Statement, Subject as StatementSubject, SubjectDigest,
};
use drift::{Blake3, Sha256};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest file: a Packer manifest that grew over a thousand runs, a mkosi manifest with all its packages.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The most files with one manifest.
pub const MAX_FILES: usize = 16;
/// The longest piece of a file that a refusal quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// The build that a file is added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which build of that version.
    pub build: String,
    /// SHA-256 of its manifest's identity.
    pub sha256: Sha256,
    /// BLAKE3 of the same.
    pub blake3: Blake3,
}

/// What a file says of a build that it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Who wrote the file.
    pub format: Format,
    /// One for each platform, at least one; each about the build's manifest.
    pub statements: Vec<Statement>,
    /// The signature as it came, if it has one.
    pub envelope: Option<String>,
    /// The trusted keys that signed it.
    pub signers: Vec<String>,
}

/// Whose output a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Packer's `manifest` post-processor.
    Packer,
    /// `az image builder show-runs -o json`.
    AzureImageBuilder,
    /// `aws imagebuilder get-image`.
    Ec2ImageBuilder,
    /// mkosi's `--manifest-format=json`.
    Mkosi,
    /// `docker inspect`, `docker build --iidfile`, `docker buildx build --metadata-file`.
    Docker,
    /// Our own form.
    Own,
    /// Our own form, signed.
    Signed,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Longer than [`MAX_BYTES`].
    #[error("an artifact file has at most {MAX_BYTES} bytes")]
    TooLong,
    /// None of the formats.
    #[error(
        "this is the output of no image builder that is known here: Packer's manifest, Azure or EC2 Image Builder's \
         JSON, mkosi's manifest, docker's image id, metadata or `inspect`, or \
         {{\"platform\": …, \"ids\": {{KIND: ID}}}}, signed or not"
    )]
    Unknown,
    /// A format, and not as it should be.
    #[error("read {format}: {}", quoted(&error.to_string()))]
    Json {
        /// Which.
        format: Format,
        /// Why not.
        error: serde_json::Error,
    },
    /// An id that is none.
    #[error("{format} says `{}`, and {wanted} was expected", quoted(found))]
    Id {
        /// Whose.
        format: Format,
        /// What it says.
        found: String,
        /// What would be one.
        wanted: &'static str,
    },
    /// It names nothing.
    #[error("{0} names no artifact")]
    Nothing(Format),
    /// It is of a build that is not done, or has failed.
    #[error(
        "{format} is about an image that is not there: its state is `{}`, not `{wanted}`",
        quoted(state)
    )]
    Unfinished {
        /// Whose.
        format: Format,
        /// What it says.
        state: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// A Packer manifest without its last run.
    #[error(
        "{format}: `last_run_uuid` is `{}`, and no build is of that run",
        quoted(run)
    )]
    NoRun {
        /// Whose.
        format: Format,
        /// The run.
        run: String,
    },
    /// A builder of Packer's that makes nothing known here.
    #[error(
        "Packer's builder type `{}` is not known here: hand in {{\"platform\": …, \"ids\": {{KIND: ID}}}} instead",
        quoted(.0)
    )]
    BuilderType(String),
    /// A key of ours that is none.
    #[error(
        "custom_data `{}` is not known: driftmark.name, driftmark.version, driftmark.build and driftmark.manifest are",
        quoted(.0)
    )]
    CustomData(String),
    /// Two ids of one kind.
    #[error(
        "there are two ids for {kind}, `{}` and `{}`: say which build each is of (custom_data \"driftmark.build\"), \
         or hand them in one by one",
        quoted(one),
        quoted(other)
    )]
    Twice {
        /// Which kind.
        kind: String,
        /// The first id.
        one: String,
        /// The second.
        other: String,
    },
    /// More than a statement holds.
    #[error(
        "there are more than {} ids, or they are too long for one statement",
        Artifact::MAX_IDS
    )]
    TooMany,
    /// It is about something else.
    #[error("{what} does not fit: expected {expected}, found {}", quoted(found))]
    DoesNotFit {
        /// What.
        what: &'static str,
        /// What the build has.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// Its signature does not hold.
    #[error("verify the artifact statement's signature")]
    Signature(#[source] SignatureError),
    /// It is signed, and says something else.
    #[error("what is signed is no statement about an artifact")]
    OtherStatement,
}

/// Reads a file of whatever format, for one build.
///
/// # Errors
/// See [`ArtifactError`].
pub fn read(
    bytes: &[u8],
    subject: &Subject,
    trusted: &[TrustedKey],
) -> Result<Said, ArtifactError> {
    if bytes.len() > MAX_BYTES {
        return Err(ArtifactError::TooLong);
    }
    let format = recognise(bytes).ok_or(ArtifactError::Unknown)?;
    let found = match format {
        Format::Packer => packer::read(bytes, subject)?,
        Format::AzureImageBuilder => azure::run_outputs(bytes)?,
        Format::Ec2ImageBuilder => amazon::image(bytes)?,
        Format::Mkosi => mkosi::manifest(bytes)?,
        Format::Docker => docker::read(bytes)?,
        Format::Own => vec![own(parse(bytes, format)?)?],
        Format::Signed => return signed(bytes, subject, trusted),
    };
    let statements: Vec<Statement> = found.into_iter().map(|it| stated(it, subject)).collect();
    if statements.is_empty() {
        return Err(ArtifactError::Nothing(format));
    }
    let too_long = |it: &Statement| it.to_json().len() > Statement::MAX_BYTES;
    if statements.iter().any(too_long) {
        return Err(ArtifactError::TooMany);
    }
    Ok(Said {
        format,
        statements,
        envelope: None,
        signers: Vec::new(),
    })
}

/// The members of a JSON object, of which only the names are looked at.
type Members<'a> = BTreeMap<String, &'a RawValue>;

fn recognise(bytes: &[u8]) -> Option<Format> {
    if docker::is_image_id(bytes) {
        return Some(Format::Docker);
    }
    let members: Members<'_> = if is_list(bytes) {
        let list: Vec<Members<'_>> = serde_json::from_slice(bytes).ok()?;
        list.into_iter().next()?
    } else {
        serde_json::from_slice(bytes).ok()?
    };
    let has = |name: &str| members.contains_key(name);
    [
        (has("payloadType"), Format::Signed),
        (has("platform"), Format::Own),
        (has("builds") && has("last_run_uuid"), Format::Packer),
        (has("manifest_version") && has("config"), Format::Mkosi),
        (has("image"), Format::Ec2ImageBuilder),
        (docker::is_metadata(&members), Format::Docker),
        (has("Id"), Format::Docker),
        (azure::is_run_output(&members), Format::AzureImageBuilder),
    ]
    .into_iter()
    .find_map(|(is, format)| is.then_some(format))
}

fn signed(bytes: &[u8], subject: &Subject, trusted: &[TrustedKey]) -> Result<Said, ArtifactError> {
    let envelope = Envelope::from_json(bytes).map_err(ArtifactError::Signature)?;
    let verified = envelope.verify(trusted).map_err(ArtifactError::Signature)?;
    let Predicate::Artifact(artifact) = verified.statement.predicate else {
        return Err(ArtifactError::OtherStatement);
    };
    let about = verified.statement.subject.digest;
    fits(
        "the manifest that is signed for",
        &subject.sha256,
        &about.sha256,
    )?;
    if let Some(blake3) = about.blake3 {
        fits("the manifest that is signed for", &subject.blake3, &blake3)?;
    }
    let statement = Statement {
        subject: verified.statement.subject,
        predicate: Predicate::Artifact(own(artifact)?),
    };
    Ok(Said {
        format: Format::Signed,
        statements: vec![statement],
        envelope: Some(String::from_utf8_lossy(&envelope.to_json()).into_owned()),
        signers: verified.keys.iter().map(ToString::to_string).collect(),
    })
}

/// Our own form, which says whatever its writer wants, within what is an id at all.
fn own(artifact: Artifact) -> Result<Artifact, ArtifactError> {
    if artifact.ids.is_empty() && artifact.verity_root_hash.is_none() {
        return Err(ArtifactError::Nothing(Format::Own));
    }
    if artifact.ids.len() > Artifact::MAX_IDS {
        return Err(ArtifactError::TooMany);
    }
    for id in artifact.ids.values() {
        checked(Format::Own, id.as_str())?;
    }
    Ok(artifact)
}

fn stated(artifact: Artifact, subject: &Subject) -> Statement {
    let digest = SubjectDigest {
        sha256: subject.sha256,
        blake3: Some(subject.blake3),
    };
    Statement {
        subject: StatementSubject {
            name: "image.manifest".parse().expect("a plain word"),
            digest,
        },
        predicate: Predicate::Artifact(artifact),
    }
}

/// The ids of one platform, as they are gathered.
#[derive(Debug)]
struct Gathered {
    format: Format,
    platform: &'static str,
    ids: BTreeMap<Label, Note>,
}

impl Gathered {
    fn of(format: Format, platform: &'static str) -> Self {
        Gathered {
            format,
            platform,
            ids: BTreeMap::new(),
        }
    }

    /// Adds an id; the same one again is no news, another one of the same kind is refused.
    fn add(&mut self, kind: &str, id: &str) -> Result<(), ArtifactError> {
        let label: Label = kind.parse().map_err(|_| ArtifactError::Id {
            format: self.format,
            found: kind.to_owned(),
            wanted: "a name of letters, digits and `.`, `_`, `+`, `~`, `:`, `-`",
        })?;
        let id = checked(self.format, id)?;
        match self.ids.get(&label) {
            Some(known) if *known != id => {
                return Err(ArtifactError::Twice {
                    kind: kind.to_owned(),
                    one: known.as_str().to_owned(),
                    other: id.as_str().to_owned(),
                });
            }
            _ if self.ids.len() >= Artifact::MAX_IDS => return Err(ArtifactError::TooMany),
            _ => {}
        }
        self.ids.insert(label, id);
        Ok(())
    }

    /// The artifact, if anything was gathered.
    fn artifact(self) -> Option<Artifact> {
        (!self.ids.is_empty()).then(|| Artifact {
            platform: self.platform.parse().expect("a plain word"),
            ids: self.ids,
            verity_root_hash: None,
        })
    }
}

/// Text that can be an id anywhere: it is looked up, told to programs, and printed.
fn checked(format: Format, id: &str) -> Result<Note, ArtifactError> {
    let refused = || ArtifactError::Id {
        format,
        found: id.to_owned(),
        wanted: "an id of 1 to 1024 printable ASCII characters without spaces",
    };
    if !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused());
    }
    id.parse().map_err(|_| refused())
}

fn fits<T: PartialEq + ToString>(
    what: &'static str,
    expected: &T,
    found: &T,
) -> Result<(), ArtifactError> {
    if expected == found {
        return Ok(());
    }
    Err(ArtifactError::DoesNotFit {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

fn is_list(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"[")
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], format: Format) -> Result<T, ArtifactError> {
    serde_json::from_slice(bytes).map_err(|error| ArtifactError::Json { format, error })
}

/// What a file says, as a refusal may repeat it.
fn quoted(text: &str) -> String {
    let mut quoted: String = drift::escape(text.as_bytes())
        .chars()
        .take(MAX_QUOTED_CHARS)
        .collect();
    if quoted.is_empty() {
        quoted.push_str("nothing");
    }
    quoted
}

impl Format {
    /// The word for it in JSON and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Format::Packer => "packer",
            Format::AzureImageBuilder => "azure-image-builder",
            Format::Ec2ImageBuilder => "ec2-image-builder",
            Format::Mkosi => "mkosi",
            Format::Docker => "docker",
            Format::Own => "driftmark",
            Format::Signed => "driftmark-signed",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Packer => "Packer's manifest",
            Format::AzureImageBuilder => "Azure Image Builder's run output",
            Format::Ec2ImageBuilder => "EC2 Image Builder's image",
            Format::Mkosi => "mkosi's manifest",
            Format::Docker => "docker's image",
            Format::Own | Format::Signed => "the artifact statement",
        })
    }
}

#[cfg(test)]
mod tests;
