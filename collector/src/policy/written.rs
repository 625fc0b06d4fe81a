//! Receives the text of the fleets file, and hands on what is written there: unknown and duplicate keys are refused.

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// What holds for every fleet of the file that does not say otherwise.
    #[serde(default)]
    pub default: Section,
    /// The fleets.
    #[serde(default)]
    pub fleet: Vec<Fleet>,
}

/// One `[[fleet]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its name, as tokens and instances have it.
    pub name: String,
    /// What is said of it.
    pub section: Section,
}

drift::documented! {
    /// What may be said of one fleet or of all.
    #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    pub struct Section {
        /// `channel`: the channel that it should run. There is no default: without one nothing is replaced.
        pub channel: Option<String> = "stable",
        /// `mode`: `observe` (say what would happen, the default), `approve` (plan replacements, and let an approver
        /// release each) or `replace`.
        pub mode: Option<String> = "observe",
        /// `grace`: how long a planned order waits before it may execute. Default `5m`.
        pub grace: Option<String> = "5m",
        /// `parallel`: how many replacements may be in flight. Default 1.
        pub parallel: Option<u32> = 1,
        /// `stop-above`: the unhealthy share above which nothing is replaced. Default `20%`.
        pub stop_above: Option<String> = "20%",
        /// `minimum-severity`: the least severity that is worth a replacement: `info`, `low` (the default), `medium`,
        /// `high` or `critical`.
        pub minimum_severity: Option<String> = "low",
        /// `verify-within`: how long an executing order may take until it is verified. Default `30m`.
        pub verify_within: Option<String> = "30m",
        /// `replacer`: who terminates and replaces: `"probe"` (the autoscaler, by the agent's health probe; the default)
        /// or `{ command = ["/path", "argument"], timeout = "10m" }`, a program.
        pub replacer: Option<Replacer> = "probe",
    }
}

/// `"probe"` or `{ command = […], timeout = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Replacer {
    /// A replacer that needs no more than its name.
    Named(String),
    /// A program.
    Command(Command),
}

/// A program that replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Command {
    /// Its path and arguments.
    pub command: Vec<String>,
    /// How long it may run.
    pub timeout: Option<String>,
}

impl<'de> Deserialize<'de> for Replacer {
    /// Looks first at what is there, so that a mistake in a command is named: an untagged enum would only say that
    /// nothing matches.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(name) => Ok(Replacer::Named(name)),
            toml::Value::Table(table) => Command::deserialize(table)
                .map(Replacer::Command)
                .map_err(|error| D::Error::custom(format_args!("replacer: {}", error.message()))),
            _ => Err(D::Error::custom(
                "`replacer` is \"probe\" or { command = [\"/path\", …] }",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Fleet {
    /// Takes the name out and leaves the rest to [`Section`], which refuses unknown keys: `flatten` could not.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut table = toml::Table::deserialize(deserializer)?;
        let name = match table.remove("name") {
            Some(toml::Value::String(name)) => name,
            Some(_) => return Err(D::Error::custom("`name` of a fleet is a text")),
            None => return Err(D::Error::missing_field("name")),
        };
        let section = Section::deserialize(table).map_err(|error| {
            D::Error::custom(format_args!("fleet `{name}`: {}", error.message()))
        })?;
        Ok(Fleet { name, section })
    }
}

impl File {
    /// Reads the text of a fleets file.
    ///
    /// # Errors
    /// Text that is not TOML, or a key or value that has no place in it; the message says where.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
