//! What an agent tells its collector, and what the collector answers.
//!
//! The subject of every report is the instance of the TLS certificate that it came with: no field here names one.
//! Every list has a stated limit, and unknown fields of a later minor version are accepted.

mod verdict;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::attribution::Attribution;
use crate::coverage::{Coverage, ProcessSweep, VerityRoot};
use crate::finding::{Drift, DriftId, HostPackage};
use crate::{Blake3, TreePath};

pub use verdict::{ExecutingOrder, InstanceState, Settings, Verdict};

/// A report, or one part of it, as `POST /v1/reports` carries it. JSON, at most [`Report::MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// This start of the agent.
    pub run: RunId,
    /// Counts up from 1 within a run; every part has its own number. (instance, run, sequence) is idempotent: the
    /// same number with another body is refused.
    pub sequence: u64,
    /// The run before this one, if the agent remembers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_run: Option<RunId>,
    /// Which part of which generation of the state set this is.
    pub part: Part,
    /// Who is speaking.
    pub agent: AgentBuild,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Where the agent is in its life.
    pub phase: Phase,
    /// The image that it verifies against; none while it is [`Report::unverifiable`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// Why it cannot verify at all (a missing or badly signed manifest), in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverifiable: Option<String>,
    /// Whether [`Report::opened`] is the whole state set or what is new since the last acknowledged report.
    pub states: StateUpdate,
    /// States opened: at most [`Report::MAX_DRIFTS`] a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<OpenDrift>,
    /// States closed, by id: at most [`Report::MAX_DRIFTS`] a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<DriftId>,
    /// How many states are open once this generation is applied.
    pub open_count: u64,
    /// [`crate::finding::set_digest`] of the whole state set once this generation is applied.
    pub set_digest: Blake3,
    /// What happened, once and for all: at most [`Report::MAX_DRIFTS`] a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
    /// Moments that were lost because the spool was full, since the start of the run.
    #[serde(default)]
    pub dropped_moments: u64,
    /// Whether the `held` lists of this generation's parts together are the whole set. The first whole set that comes is
    /// fixed by the collector; in a later one a new path, a missing path and another value are each drift. The agent
    /// sends whole sets only, and only once its first-boot window is over.
    #[serde(default)]
    pub held_whole: bool,
    /// Values that are held from first sight on: at most [`Report::MAX_HELD`] a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldValue>,
    /// What has and has not been verified.
    pub coverage: Coverage,
    /// The agent's clock, seconds since 1970. Data only: order is (run, sequence) and the collector's receipt.
    pub agent_clock: i64,
    /// Seconds since boot, by `CLOCK_BOOTTIME`.
    pub uptime_seconds: u64,
}

impl Report {
    /// The longest report, in bytes of JSON.
    pub const MAX_BYTES: usize = 1024 * 1024;
    /// The most drifts, closed ids or moments in one part.
    pub const MAX_DRIFTS: usize = 1_000;
    /// The most held values in one part.
    pub const MAX_HELD: usize = 1_000;
    /// The most ATT&CK techniques of one drift.
    pub const MAX_TECHNIQUES: usize = 16;
    /// The longest word: a kind, a class, a technique, a feature.
    pub const MAX_WORD_BYTES: usize = 64;
    /// The longest sentence: one that names a mount with its source and options, all escaped.
    pub const MAX_TEXT_BYTES: usize = 64 * 1024;
    /// The most parts of one generation (10 million drifts).
    pub const MAX_PARTS: u32 = 10_000;

    /// Whether every list and text is within its limit; the message names the first that is not.
    ///
    /// # Errors
    /// A sentence that says which limit is exceeded.
    pub fn check_limits(&self) -> Result<(), TooMuch> {
        let within = [
            ("opened", self.opened.len(), Self::MAX_DRIFTS),
            ("closed", self.closed.len(), Self::MAX_DRIFTS),
            ("moments", self.moments.len(), Self::MAX_DRIFTS),
            ("held", self.held.len(), Self::MAX_HELD),
            (
                "coverage.gaps",
                self.coverage.gaps.len(),
                Coverage::MAX_GAPS,
            ),
            (
                "coverage.limits",
                self.coverage.limits.len(),
                Coverage::MAX_LIMITS,
            ),
            (
                "coverage.notes",
                self.coverage.notes.len(),
                Coverage::MAX_NOTES,
            ),
            (
                "coverage.verity_roots",
                self.coverage.verity_roots.as_ref().map_or(0, Vec::len),
                Coverage::MAX_VERITY_ROOTS,
            ),
            (
                "coverage.processes",
                (self.coverage.processes.as_ref()).map_or(0, |swept| swept.mapped_paths.len()),
                ProcessSweep::MAX_MAPPED,
            ),
            ("coverage.not_held", self.coverage.not_held.len(), 64),
            ("boot_id", self.boot_id.len(), 64),
            ("agent.version", self.agent.version.len(), 64),
            ("agent.features", self.agent.features.len(), 64),
            (
                "unverifiable",
                self.unverifiable.as_ref().map_or(0, String::len),
                4096,
            ),
            (
                "part.count",
                self.part.count as usize,
                Self::MAX_PARTS as usize,
            ),
        ];
        match within.into_iter().find(|(_, length, limit)| length > limit) {
            Some((field, length, limit)) => Err(TooMuch {
                field,
                length,
                limit,
            }),
            None if self.part.index == 0 || self.part.index > self.part.count => Err(TooMuch {
                field: "part.index",
                length: self.part.index as usize,
                limit: self.part.count as usize,
            }),
            None => self.check_texts(),
        }
    }

    /// The words and sentences of what is told, wherever they stand.
    fn check_texts(&self) -> Result<(), TooMuch> {
        let short = |field, text: &str| within(field, text.len(), Self::MAX_WORD_BYTES);
        let long = |field, text: &str| within(field, text.len(), Self::MAX_TEXT_BYTES);
        let drifts = self
            .opened
            .iter()
            .map(|open| &open.drift)
            .chain(self.moments.iter().map(|moment| &moment.drift));
        for drift in drifts {
            short("kind", drift.kind.word())?;
            short("class", drift.class.word())?;
            short("severity", drift.severity.word())?;
            within("technique", drift.technique.len(), Self::MAX_TECHNIQUES)?;
            drift
                .technique
                .iter()
                .try_for_each(|technique| short("technique", technique))?;
            long("detail", drift.detail.as_deref().unwrap_or_default())?;
            let by = drift.attribution.as_ref();
            if let Some(by) = by.filter(|by| !by.is_within_limits()) {
                return Err(TooMuch {
                    field: "attribution",
                    length: by.longest(),
                    limit: Attribution::MAX_TEXT_BYTES,
                });
            }
        }
        let packages = self.opened.iter().flat_map(|open| &open.host_package);
        for text in packages.flat_map(|package| [&package.name, &package.version]) {
            within("host_package", text.len(), HostPackage::MAX_BYTES)?;
        }
        for text in self.agent.features.iter().chain(&self.coverage.not_held) {
            short("agent.features and coverage.not_held", text)?;
        }
        let image = self
            .image
            .iter()
            .flat_map(|image| [&image.name, &image.version, &image.build]);
        image
            .into_iter()
            .try_for_each(|text| within("image", text.len(), ImageRef::MAX_NAME_BYTES))?;
        self.coverage
            .gaps
            .iter()
            .try_for_each(|gap| long("coverage.gaps", &gap.detail))?;
        self.coverage
            .limits
            .iter()
            .try_for_each(|limit| long("coverage.limits", limit))?;
        self.coverage
            .notes
            .iter()
            .try_for_each(|note| long("coverage.notes", note))?;
        let mut roots = self.coverage.verity_roots.iter().flatten();
        roots.try_for_each(|root| {
            let digits = root.root_hash.len();
            within("coverage.verity_roots", digits, VerityRoot::MAX_HASH_DIGITS)?;
            short("coverage.verity_roots", &root.algorithm)
        })
    }
}

fn within(field: &'static str, length: usize, limit: usize) -> Result<(), TooMuch> {
    if length > limit {
        Err(TooMuch {
            field,
            length,
            limit,
        })
    } else {
        Ok(())
    }
}

/// A list or text that exceeds its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {length}, and at most {limit} is allowed")]
pub struct TooMuch {
    /// The name of the field.
    pub field: &'static str,
    /// What it has.
    pub length: usize,
    /// What it may have.
    pub limit: usize,
}

/// 128 random bits that name one start of an agent; 32 hexadecimal digits in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub [u8; 16]);

/// "Part n of m" of one generation of the state set; a generation is applied when all its parts have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Counts up within a run; every report that is not a further part begins a new one.
    pub generation: u64,
    /// From 1.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Part {
    /// A report in one part.
    pub fn only(generation: u64) -> Self {
        Part {
            generation,
            index: 1,
            count: 1,
        }
    }

    /// Whether no part comes after this one.
    pub fn is_last(&self) -> bool {
        self.index == self.count
    }
}

/// The agent's build and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentBuild {
    /// Its version.
    pub version: String,
    /// The minor version of `/v1` that it speaks.
    pub minor: u32,
    /// What it can do, by name.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Where an agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The first full scan of this run has not finished.
    Starting,
    /// It verifies.
    Running,
    /// A goodbye; never health.
    Stopped,
    /// A phase of a later version.
    #[serde(other)]
    Unknown,
}

/// Which image an instance was baked from, as its verified manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Build: architecture or variant.
    pub build: String,
    /// BLAKE3 of the manifest's identity.
    pub manifest: Blake3,
}

impl ImageRef {
    /// The longest name, version or build; the labels of a manifest's statement are shorter.
    pub const MAX_NAME_BYTES: usize = 256;
}

/// How a report's states relate to those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateUpdate {
    /// Opened and closed since the last report.
    Change,
    /// All that is open: what is not in this generation is closed.
    Whole,
}

/// A drift that is open, with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDrift {
    /// Its name among all that is open on this instance.
    pub id: DriftId,
    /// The drift.
    #[serde(flatten)]
    pub drift: Drift,
    /// What the host's own package database says of it; no part of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_package: Option<HostPackage>,
}

/// Something that happened and is over: only ever acknowledged, never closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Counts up within a run.
    pub number: u64,
    /// What happened: a drift that was put back before it could be held, a program that ran.
    pub drift: Drift,
    /// When, by the agent's clock, in milliseconds since 1970.
    pub agent_clock_milliseconds: i64,
}

/// A value that the image leaves open and that is held from first sight on.
///
/// The collector keeps the first one and raises drift where a later one differs; the agent's copy is a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldValue {
    /// Where.
    pub path: TreePath,
    /// What is there: a digest over everything that is held of it; none where nothing is there.
    pub value: Option<Blake3>,
    /// With an append-only file: how long it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// With an append-only file that was held before: the length that was held, and the digest of the file up to it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<HeldPrefix>,
}

/// The beginning of an append-only file, up to the length that was held before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPrefix {
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3 of that many bytes of the file as it is now; none if it is shorter now.
    pub digest: Option<Blake3>,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A run that is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run is 32 hexadecimal digits")]
pub struct BadRunId;

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadRunId);
        }
        u128::from_str_radix(text, 16)
            .map(|value| RunId(value.to_be_bytes()))
            .map_err(|_| BadRunId)
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
