//! Receives the fleets file, and hands on what each fleet's operators allow.
//!
//! ```toml
//! [default]                      # under every fleet of this file
//! grace = "5m"
//!
//! [[fleet]]
//! name = "web"
//! channel = "web-stable"         # what it should run
//! mode = "replace"               # observe (default) | approve | replace
//! parallel = 1                   # replacements in flight at a time
//! stop-above = "20%"             # no replacement while more than this share is unhealthy
//! minimum-severity = "low"       # what drift is worth a replacement
//! verify-within = "30m"          # from executing to verified
//! replacer = { command = ["/usr/local/bin/replace-web"], timeout = "10m" }   # or "probe" (default)
//! ```
//!
//! Three stages: [`written`] is the file as text allows it, [`merged`] has every value from fleet, default or built-in,
//! [`checked`] is what the rest of the collector sees. A fleet that is not in the file is observed and nothing else.

pub mod checked;
mod current;
mod measure;
pub mod merged;
pub mod written;

pub use checked::{Fleets, MAX_NAME_BYTES, Mode, Policy, Replacer, Unacceptable, is_name};
pub use current::{Current, PolicyError, Reloaded};
pub use measure::{BadMeasure, Share, parse_duration, shown_duration};
