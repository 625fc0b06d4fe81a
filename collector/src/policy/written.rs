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

/// What may be said of one fleet or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Section {
    /// The channel that it should run.
    pub channel: Option<String>,
    /// `observe`, `approve` or `replace`.
    pub mode: Option<String>,
    /// How long a planned order waits before it may execute.
    pub grace: Option<String>,
    /// How many replacements may be in flight.
    pub parallel: Option<u32>,
    /// The unhealthy share above which nothing is replaced.
    pub stop_above: Option<String>,
    /// The least severity that is worth a replacement.
    pub minimum_severity: Option<String>,
    /// How long an executing order may take until it is verified.
    pub verify_within: Option<String>,
    /// Who terminates and replaces.
    pub replacer: Option<Replacer>,
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
