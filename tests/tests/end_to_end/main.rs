//! The end-to-end stories: real agents, a real collector with its SQLite, real systemd instances where a machine matters.
//!
//! From the whole way ([`replacement`]) to what goes wrong on it: agents that die ([`agent_down`]), machines that come and
//! go ([`boots`]), collectors that die ([`durability`]) or are away ([`away`]), instances with more drift than anyone reads
//! ([`many`]), fleets that are not to be touched ([`modes`]), too much at once ([`breakers`]), and instances that cannot
//! say what they are ([`unverifiable`]). What happens between scans: [`watched`], [`mutated`]; what does not: [`enforced`]; and between
//! two starts: [`restarted`].
#![forbid(unsafe_code)]

mod agent_down;
mod away;
mod boots;
mod breakers;
mod durability;
mod enforced;
mod many;
mod modes;
mod mutated;
mod replacement;
mod restarted;
mod unverifiable;
mod watched;

use std::time::Duration;

/// The policy of a fleet in which nothing is replaced.
const OBSERVE: &str = "mode = \"observe\"\n";

/// The fleets file of a collector on this machine's loopback.
const OBSERVED_FLEETS: &str =
    "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"observe\"\n";

/// Whatever is waited for takes seconds; this is for two busy cores.
const LIMIT: Duration = Duration::from_secs(90);
