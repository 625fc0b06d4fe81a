//! Receives an instance as it is stored, hands on what operators see of it.

use std::time::Duration;

use drift::Blake3;
use drift::entry::Shown;
use drift::finding::HostPackage;
use drift::manifest::Package;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::packages::{Image, InImage, ShownTransaction};
use crate::instance::{self, Instance, severity};
use crate::serve::App;
use crate::store::drifts::{Kept, Opened};

/// An instance in a list.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ListedInstance {
    /// The id that the collector issued.
    pub id: String,
    /// Its fleet.
    pub fleet: String,
    /// What the collector holds it to be.
    pub state: String,
    /// The cloud's id of it.
    pub cloud_id: Option<String>,
    /// Whether that is proven, and not only claimed.
    pub proven: bool,
    /// The image that it enrolled for, `NAME VERSION BUILD`.
    pub image: Option<String>,
    /// How much is open.
    pub open: u64,
    /// The gravest that is open.
    pub severity: Option<String>,
    /// When it was last heard of, in milliseconds since 1970.
    pub heard_at_ms: Option<i64>,
    /// When it enrolled, in milliseconds since 1970.
    pub enrolled_at_ms: i64,
    /// Since when something is open, in milliseconds since 1970.
    pub drifted_since_ms: Option<i64>,
    /// Since when it is clean, in milliseconds since 1970.
    pub clean_since_ms: Option<i64>,
    /// Why no order may touch it.
    pub hold: Option<String>,
    /// Why it is replaced or retired.
    pub standing_reason: Option<String>,
}

/// An instance with what is known of it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownInstance {
    /// What is listed of it.
    #[serde(flatten)]
    pub listed: ListedInstance,
    /// The manifest that its image was registered with or, before that, that it enrolled for: BLAKE3.
    pub manifest: Option<String>,
    /// The manifest that it verifies against: BLAKE3.
    pub reported_manifest: Option<String>,
    /// Why it cannot verify, or be judged.
    pub unverifiable: Option<String>,
    /// When its latest certificate ends, in milliseconds since 1970.
    pub certificate_until_ms: i64,
    /// Its agent's version.
    pub agent_version: Option<String>,
    /// Its boot.
    pub boot_id: Option<String>,
    /// Its current run and the latest number in it.
    pub run: Option<String>,
    /// See [`ShownInstance::run`].
    pub sequence: u64,
    /// The digest of what is open by its word.
    pub set_digest: Option<String>,
    /// What is open, the gravest first.
    pub drifts: Vec<ShownDrift>,
    /// What of all that is open would be explained by packages, if the host's word is taken for it: for display, and
    /// for nothing that is decided.
    pub transactions: Vec<ShownTransaction>,
    /// What happened there, the latest first.
    pub moments: Vec<ShownMoment>,
    /// Moments that its agent had no room for.
    pub dropped_moments: u64,
    /// Held values whose beginning can no longer be proven.
    pub held_unproven: u64,
    /// What has and has not been verified; `verity_roots` in it are the dm-verity devices that it is mounted from.
    #[schema(value_type = Option<Object>)]
    pub coverage: Option<Value>,
    /// The dm-verity root hashes that its build was sealed with, by the build's second statements: `/` or `/usr` has to
    /// be mounted from one of them. None if no statement says one.
    pub sealed_root_hashes: Vec<String>,
}

/// Something that is open.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownDrift {
    /// Its name.
    pub id: String,
    /// Whether the collector says so, and not the agent.
    pub raised: bool,
    /// How bad it is by itself.
    pub severity: String,
    /// When the collector heard of it, in milliseconds since 1970.
    pub opened_at_ms: i64,
    /// The drift; none beyond the gravest 10,000. `attribution` in it is who did it, by the host's word, where its watch saw
    /// that.
    #[schema(value_type = Option<Object>)]
    pub drift: Option<Value>,
    /// What the image has there, from the collector's own copy of the manifest.
    #[schema(value_type = Option<Object>)]
    pub expected: Option<Value>,
    /// The package that it belongs to in the image, from the same copy.
    pub package: Option<ShownPackage>,
    /// What the host's own package database says of it.
    pub host_package: Option<ShownHostPackage>,
}

/// A package of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What the host's own package database says of a path: unsigned, and whoever changed the path could change it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownHostPackage {
    /// The installed package that owns it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether what is there now is what the package brings, by the digest that the database holds.
    pub matches: bool,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownMoment {
    /// When the collector heard of it, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// When it was by the agent's clock, in milliseconds since 1970.
    pub agent_clock_ms: i64,
    /// What it was, and in `attribution` who did it.
    #[schema(value_type = Option<Object>)]
    pub drift: Option<Value>,
}

impl ListedInstance {
    pub(super) fn of(instance: &Instance, heartbeat: Duration, now_ms: i64) -> Self {
        let image = instance.image.as_ref();
        ListedInstance {
            id: instance.id.clone(),
            fleet: instance.fleet.clone(),
            state: instance::state(instance, heartbeat, now_ms)
                .word()
                .to_owned(),
            cloud_id: instance.cloud_id.clone(),
            proven: instance.proven,
            image: image.map(|image| format!("{} {} {}", image.name, image.version, image.build)),
            open: instance.all_open(),
            severity: instance.severity.as_ref().map(ToString::to_string),
            heard_at_ms: instance.heard_at_ms,
            enrolled_at_ms: instance.enrolled_at_ms,
            drifted_since_ms: instance.drifted_since_ms,
            clean_since_ms: instance.clean_since_ms,
            hold: instance
                .hold
                .as_ref()
                .map(|hold| format!("{} ({})", hold.reason, hold.by)),
            standing_reason: instance.standing_reason.clone(),
        }
    }
}

impl ShownInstance {
    pub(super) fn of(
        instance: &Instance,
        listed: ListedInstance,
        open: Vec<Opened>,
        transactions: Vec<ShownTransaction>,
        image: &Image,
        moments: Vec<Kept>,
        coverage: Option<&str>,
    ) -> Self {
        let unknown_image = || "it names no image that is registered".to_owned();
        let heard = instance.heard_at_ms.is_some();
        ShownInstance {
            listed,
            manifest: instance
                .image
                .as_ref()
                .map(|image| image.manifest.to_string()),
            reported_manifest: instance.reported_manifest.map(|digest| digest.to_string()),
            unverifiable: instance
                .unverifiable
                .clone()
                .or_else(|| (heard && !instance.image_known).then(unknown_image)),
            certificate_until_ms: instance.certificate_until_ms,
            agent_version: instance.agent_version.clone(),
            boot_id: instance.boot_id.clone(),
            run: instance.run.map(|run| run.to_string()),
            sequence: instance.sequence,
            set_digest: instance.set_digest.map(|digest| digest.to_string()),
            drifts: open
                .into_iter()
                .map(|open| shown_drift(open, image))
                .collect(),
            transactions,
            moments: moments.into_iter().map(shown_moment).collect(),
            dropped_moments: instance.dropped_moments,
            held_unproven: instance.held_unproven,
            coverage: coverage.and_then(|text| serde_json::from_str(text).ok()),
            sealed_root_hashes: Vec::new(),
        }
    }
}

fn shown_drift(open: Opened, image: &Image) -> ShownDrift {
    let there = open
        .drift
        .as_ref()
        .and_then(|drift| image.at.get(&drift.path));
    ShownDrift {
        id: open.id.to_string(),
        raised: open.raised,
        severity: severity(open.rank).to_string(),
        opened_at_ms: open.opened_at_ms,
        expected: there.and_then(|there| serde_json::to_value(&there.shown).ok()),
        package: there
            .and_then(|there| there.package.as_ref())
            .map(|package| {
                let Package { name, version } = package.clone();
                ShownPackage { name, version }
            }),
        host_package: open.package.map(|package| {
            let HostPackage {
                name,
                version,
                matches,
            } = package;
            ShownHostPackage {
                name,
                version,
                matches,
            }
        }),
        drift: open
            .drift
            .and_then(|drift| serde_json::to_value(drift).ok()),
    }
}

fn shown_moment(kept: Kept) -> ShownMoment {
    ShownMoment {
        received_at_ms: kept.received_at_ms,
        agent_clock_ms: kept.agent_clock_ms,
        drift: kept
            .drift
            .and_then(|drift| serde_json::to_value(drift).ok()),
    }
}

/// What the image of an instance has at the paths that drifted: from our copy of the manifest, never from the report.
/// Blocking. Where we hold no copy, or cannot read it, nothing is shown and the log says why.
pub(super) fn image(app: &App, registered: Blake3, open: &[Opened]) -> Image {
    let mut image = Image::default();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(
            error = crate::api::error_chain(error),
            "what was expected cannot be looked up"
        );
    };
    for drift in open.iter().filter_map(|open| open.drift.as_ref()) {
        match app.shelf.expected(registered, &drift.path) {
            Ok(Some(there)) => {
                let there = InImage {
                    shown: Shown::from(&there.entry),
                    package: there.origin.and_then(|origin| origin.package),
                };
                image.at.insert(drift.path.clone(), there);
            }
            Ok(None) => {}
            Err(error) => {
                failed(&error);
                return image;
            }
        }
    }
    // Only where something is to be grouped, and only once everything could be looked up.
    if open.iter().any(|open| open.package.is_some()) {
        match app.shelf.packages(registered) {
            Ok(packages) => image.packages = Some(packages),
            Err(error) => failed(&error),
        }
    }
    image
}
