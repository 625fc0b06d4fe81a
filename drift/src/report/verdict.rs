//! The collector's answer to a report.

use serde::{Deserialize, Serialize};

/// The answer to a report: it is durable, this is what the collector makes of you, and this is how to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The sequence number that is durable now, and with it every earlier one of the run.
    pub acknowledged: u64,
    /// What the collector holds this instance to be.
    pub state: InstanceState,
    /// The order that is executing on this instance, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<ExecutingOrder>,
    /// The collector's state set differs from the agent's: send everything.
    #[serde(default)]
    pub resend_all: bool,
    /// How to go on.
    pub settings: Settings,
}

/// An order that is executing. The health probe turns unhealthy only for one with the replacer `probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutingOrder {
    /// The order's id.
    pub id: String,
    /// Its fleet's replacer: `probe`, `command`, …
    pub replacer: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// What the collector sets for its agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Seconds between heartbeats; the agent keeps it within 1 and 3600.
    pub heartbeat_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            heartbeat_seconds: 60,
        }
    }
}

/// What the collector holds an instance to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It has a certificate and has not finished its first scan.
    Enrolled,
    /// Verified against its image, nothing open.
    Clean,
    /// Something is open.
    Drifted,
    /// It cannot verify itself.
    Unverifiable,
    /// Nothing was heard for 2.5 heartbeats.
    Silent,
    /// It said goodbye.
    Stopped,
    /// An order replaced it.
    Replaced,
    /// An operator took it out.
    Retired,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl InstanceState {
    /// The word for it in JSON and on screen.
    pub fn word(self) -> &'static str {
        match self {
            InstanceState::Enrolled => "enrolled",
            InstanceState::Clean => "clean",
            InstanceState::Drifted => "drifted",
            InstanceState::Unverifiable => "unverifiable",
            InstanceState::Silent => "silent",
            InstanceState::Stopped => "stopped",
            InstanceState::Replaced => "replaced",
            InstanceState::Retired => "retired",
            InstanceState::Unknown => "unknown",
        }
    }
}
