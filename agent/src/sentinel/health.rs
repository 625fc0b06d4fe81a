//! Receives what the sentinel knows; hands on what an autoscaler is told.
//!
//! An autoscaler kills what is unhealthy, so there is exactly one reason for that, and it is the collector's: an
//! executing order whose replacer is `probe`. Neither a bad manifest nor a lost collector may ever be one.

use std::time::Duration;

use drift::report::Phase;

use super::Sentinel;
use crate::config::ProbeMode;
use crate::log::peer_words;

/// What the health probe answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether an autoscaler should let this instance live.
    pub healthy: bool,
    /// Why, in a sentence.
    pub reason: String,
}

/// The replacer that works through the probe.
const PROBE: &str = "probe";
/// The collector counts an instance as silent after 2.5 heartbeats; the instance does the same with it.
const SILENT_AFTER_HALF_HEARTBEATS: u32 = 5;

impl Sentinel {
    pub(super) fn judge_health(&self, uptime: Duration) -> Health {
        if let Some(order) = self.order.as_ref().filter(|order| order.replacer == PROBE) {
            let reason = format!(
                "order {} is executing: {}",
                peer_words(&order.id),
                peer_words(&order.reason)
            );
            return Health {
                healthy: false,
                reason,
            };
        }
        if self.setup.probe_mode == ProbeMode::Local && !self.open.is_empty() {
            return Health {
                healthy: false,
                reason: "drifted from its image (`probe.mode = \"local\"`)".into(),
            };
        }
        Health {
            healthy: true,
            reason: self.reason_to_live(uptime),
        }
    }

    fn reason_to_live(&self, uptime: Duration) -> String {
        if let Some(reason) = &self.unverifiable {
            return format!("cannot verify itself: {}", peer_words(reason));
        }
        let verified = match self.phase {
            Phase::Stopped => "the agent is stopping",
            Phase::Starting | Phase::Unknown => "the first scan has not finished",
            Phase::Running if self.open.is_empty() => "verified against its image",
            Phase::Running => "drifted from its image; the collector decides",
        };
        let limit = self.heartbeat * SILENT_AFTER_HALF_HEARTBEATS / 2;
        let contact = match self.heard {
            None => "; the collector has not answered yet",
            Some(heard) if uptime.saturating_sub(heard) > limit => {
                "; the collector does not answer"
            }
            Some(_) => "",
        };
        format!("{verified}{contact}")
    }
}
