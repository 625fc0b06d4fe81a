//! One drift: a difference between an instance and its image that no rule allows.

use std::fmt;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::attribution::Attribution;
use crate::class::{Class, Severity};
use crate::entry::{AttributeSet, Shown};
use crate::{Blake3, TreePath};

/// One difference between what was found on an instance and its image that no rule allows.
///
/// What was *expected* is not in it: the collector looks that up in its own copy of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Where.
    pub path: TreePath,
    /// What happened there.
    pub kind: DriftKind,
    /// With kind `changed`: which attributes differ.
    #[serde(default, skip_serializing_if = "AttributeSet::is_empty_ref")]
    pub changed: AttributeSet,
    /// What is there now; none for `removed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Shown>,
    /// A sentence on what is not told by the attributes (what is mounted over it, which held value it broke).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What part of the system it concerns.
    pub class: Class,
    /// How bad it is by itself.
    pub severity: Severity,
    /// MITRE ATT&CK techniques that look like this.
    #[serde(default)]
    pub technique: Vec<Cow<'static, str>>,
    /// Who did it, where that was seen: the last one to touch the path, or a directory above it. For people, and no part
    /// of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Box<Attribution>>,
}

/// What the host's own package database says about a drifted path.
///
/// The database is the host's, unsigned: whoever changed the file could change it too. So this groups what people see
/// ("openssl 3.0.11 → 3.0.15, 14 files"), and changes no id, class, severity, mark or count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPackage {
    /// The installed package that owns the path: at most [`HostPackage::MAX_BYTES`].
    pub name: String,
    /// Its version: at most [`HostPackage::MAX_BYTES`].
    pub version: String,
    /// Whether what is there now is what that package brings, by the digest that its database holds.
    pub matches: bool,
}

impl HostPackage {
    /// The longest name and the longest version.
    pub const MAX_BYTES: usize = crate::manifest::Package::MAX_BYTES;
    /// What is said wherever one is shown.
    pub const TRUST: &str = "host database, unsigned";
}

/// What happened at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DriftKind {
    /// It is not in the image.
    Added,
    /// It is in the image and is gone.
    Removed,
    /// It differs in the named attributes.
    Changed,
    /// Something is mounted over it.
    Covered,
    /// It is a program that is not in the image, and was started: something that happens, and no state.
    Executed,
    /// The instance has another manifest than its image was registered with.
    Baseline,
    /// A kind of a later version: kept and shown as it came.
    Unknown(String),
}

impl DriftKind {
    /// The word for it in JSON and on screen.
    pub fn word(&self) -> &str {
        match self {
            DriftKind::Added => "added",
            DriftKind::Removed => "removed",
            DriftKind::Changed => "changed",
            DriftKind::Covered => "covered",
            DriftKind::Executed => "executed",
            DriftKind::Baseline => "baseline",
            DriftKind::Unknown(word) => word,
        }
    }
}

impl fmt::Display for DriftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Serialize for DriftKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for DriftKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(match word.as_str() {
            "added" => DriftKind::Added,
            "removed" => DriftKind::Removed,
            "changed" => DriftKind::Changed,
            "covered" => DriftKind::Covered,
            "executed" => DriftKind::Executed,
            "baseline" => DriftKind::Baseline,
            _ => DriftKind::Unknown(word),
        })
    }
}

/// The name of a drift among all that is open on one instance: another difference has another id.
///
/// The agent computes it ([`Drift::id`]); to the collector it is opaque, so that later versions may compute it
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DriftId(pub Blake3);

impl fmt::Display for DriftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Drift {
    /// The sentence of a drift that reads through the page cache do not show.
    pub const ON_DISK_ALONE: &str =
        "on the disk alone: processes still see other content, from the page cache";

    /// The sentence of a moment: a path of the image that was other than it should be.
    pub const PUT_BACK: &str =
        "written, replaced or removed, and as the image has it again before it was looked at";
    /// The sentence of a moment: a path that is not the image's.
    pub const GONE_AGAIN: &str = "made, and gone again before it was looked at";

    /// The sentence of a moment: a program that the image does not contain.
    pub const STARTED: &str = "started, and not a program of the image";
    /// The same, where the instance runs no other programs.
    pub const REFUSED: &str = "refused: not a program of the image";
    /// The same, where the instance is to be asked what would be refused, and refuses nothing.
    pub const WOULD_BE_REFUSED: &str = "run, and would be refused: not a program of the image";

    /// The sentence of a moment: a kernel module that the image does not contain.
    pub const MODULE: &str = "a loaded kernel module that no file of the image brings";

    /// Whether only a sweep of the disk sees it.
    pub fn is_on_disk_alone(&self) -> bool {
        self.detail.as_deref() == Some(Drift::ON_DISK_ALONE)
    }

    /// BLAKE3 over kind, path, attributes and what was found.
    pub fn id(&self) -> DriftId {
        let mut hasher = blake3::Hasher::new_derive_key("driftmark drift id v1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.kind.word().as_bytes());
        part(self.path.as_bytes());
        part(&self.changed.bits().to_le_bytes());
        part(
            &self
                .found
                .as_ref()
                .map(|shown| serde_json::to_vec(shown).expect("a plain struct"))
                .unwrap_or_default(),
        );
        part(self.detail.as_deref().unwrap_or_default().as_bytes());
        DriftId(hasher.finalize().into())
    }
}

/// The digest of a whole state set: BLAKE3 over the sorted ids, 32 bytes each.
pub fn set_digest(sorted: impl IntoIterator<Item = DriftId>) -> Blake3 {
    let mut hasher = blake3::Hasher::new();
    for id in sorted {
        hasher.update(id.0.as_bytes());
    }
    hasher.finalize().into()
}

impl AttributeSet {
    fn is_empty_ref(&self) -> bool {
        self.is_empty()
    }
}
