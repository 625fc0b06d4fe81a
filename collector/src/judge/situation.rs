//! What is so: everything that the judge may know, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use drift::class::Severity;
use drift::report::{ImageRef, InstanceState};

use super::OrderState;
use crate::policy::Policy;

/// All fleets, and what the collector knows of its own ears.
#[derive(Debug, Clone)]
pub struct Situation {
    /// When this collector began to listen; what it knows from before is stale until it hears again.
    pub listening_since_ms: i64,
    /// How often agents are to be heard.
    pub heartbeat: Duration,
    /// Every fleet that has an instance.
    pub fleets: Vec<Fleet>,
}

/// One fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Its name.
    pub name: String,
    /// What its operators allow.
    pub policy: Policy,
    /// The last good image of its channel, or why there is none.
    pub last_good: Result<LastGood, String>,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// Its orders that are not over.
    pub orders: Vec<Order>,
}

/// The version that a channel gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its good builds, each with its manifest's digest.
    pub builds: BTreeMap<String, drift::Blake3>,
}

/// One instance, as the store holds it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The id that the collector issued.
    pub id: String,
    /// The cloud's id of it.
    pub cloud_id: Option<String>,
    /// How sure the cloud id is.
    pub proof: Proof,
    /// What it is held to be.
    pub state: InstanceState,
    /// The image that it last said it verifies against.
    pub image: Option<ImageRef>,
    /// When it enrolled.
    pub enrolled_ms: i64,
    /// When it was last heard.
    pub heard_ms: Option<i64>,
    /// What drift is open on it.
    pub drifts: Option<Drifts>,
    /// The machine that it replaced, if something that was open there is open here again.
    pub again: Option<Again>,
    /// An operator's hold.
    pub hold: Option<Hold>,
    /// The open mark.
    pub mark: Option<Mark>,
}

/// How sure a cloud id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The instance came with proof of it.
    Proven,
    /// The instance says so.
    Claimed,
}

/// What drift is open on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drifts {
    /// How many.
    pub count: u64,
    /// The worst of them.
    pub worst: Severity,
}

/// A replacement drifted in the same way as what it replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// The order that it came by.
    pub order: String,
    /// The instance that it replaced.
    pub replaced: String,
    /// The image that it came from.
    pub image: Option<ImageRef>,
}

/// An operator wants an instance left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Why.
    pub reason: String,
}

/// The open mark of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What was said of it last.
    pub reason: String,
    /// An operator cancelled its order and wants no other one.
    pub declined: Option<String>,
}

/// An order that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// Which order for this instance it is, from 1.
    pub generation: u64,
    /// The instance to replace.
    pub instance: String,
    /// The image to replace it with; none for an order that was blocked from the beginning.
    pub image: Option<ImageRef>,
    /// Where it is.
    pub state: OrderState,
    /// What was said of it last.
    pub why: String,
    /// When it was planned.
    pub planned_ms: i64,
    /// When its grace began.
    pub grace_ms: Option<i64>,
    /// Who let it go.
    pub approval: Option<Approval>,
    /// When it began to execute.
    pub executing_ms: Option<i64>,
    /// What the replacer named.
    pub replacement: Option<Replacement>,
}

/// Who let an order go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// The fleet's policy, once the grace was over.
    Policy,
    /// An approver, by the name of the token.
    Operator(String),
}

/// The machine that a replacer named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Its cloud id.
    pub cloud_id: String,
}

impl Instance {
    /// Whether it belongs to the denominator of every share: proven, and not stopped, replaced or retired.
    pub fn counts(&self) -> bool {
        self.proof == Proof::Proven && !self.is_gone()
    }

    /// Whether it is out for good, or said goodbye.
    pub fn is_gone(&self) -> bool {
        matches!(
            self.state,
            InstanceState::Stopped | InstanceState::Replaced | InstanceState::Retired
        )
    }

    /// Whether it is shown to be healthy; whatever is not known to be is not.
    pub fn is_healthy(&self) -> bool {
        self.state == InstanceState::Clean
    }
}

impl Fleet {
    /// The instance of an order.
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }
}

/// The build of the last good version that replaces this instance: its own build, or the only one there is.
///
/// # Errors
/// A sentence that says why there is none.
pub fn wanted_image(
    last_good: &Result<LastGood, String>,
    own: Option<&ImageRef>,
) -> Result<ImageRef, String> {
    let good = last_good.as_ref().map_err(Clone::clone)?;
    let own_build = own
        .filter(|image| image.name == good.name)
        .map(|image| image.build.as_str());
    let chosen = match own_build {
        Some(build) => good.builds.get_key_value(build),
        None if good.builds.len() == 1 => good.builds.first_key_value(),
        None => None,
    };
    let (build, manifest) = chosen.ok_or_else(|| match own_build {
        Some(build) => format!(
            "last good {} {} has no build {build}",
            good.name, good.version
        ),
        None => format!(
            "which build of {} {} the instance needs is not known",
            good.name, good.version
        ),
    })?;
    Ok(ImageRef {
        name: good.name.clone(),
        version: good.version.clone(),
        build: build.clone(),
        manifest: *manifest,
    })
}
