//! What a drift means: class, severity and ATT&CK technique, from one table.

mod table;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::TreePath;
use crate::entry::{Attribute, AttributeSet, Entry, Kind};
use crate::finding::DriftKind;

/// What a drift means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classification {
    /// What part of the system it concerns.
    pub class: Class,
    /// How bad it is by itself.
    pub severity: Severity,
    /// MITRE ATT&CK techniques that look like this, the most telling first.
    pub techniques: Vec<&'static str>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A word of a later version: kept and shown as it came.
            Unknown(String),
        }

        impl $name {
            /// The word for it in JSON and on screen.
            pub fn word(&self) -> &str {
                match self {
                    $($name::$variant => $word,)+
                    $name::Unknown(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => $name::$variant,)+
                    _ => $name::Unknown(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map($name::from)
            }
        }
    };
}

words! {
    /// How bad a drift is by itself, least first.
    Severity {
        /// Worth knowing.
        Info = "info",
        /// Worth a look.
        Low = "low",
        /// Worth a question.
        Medium = "medium",
        /// Worth a page.
        High = "high",
        /// An intrusion until shown otherwise.
        Critical = "critical",
    }
}

words! {
    /// What part of the system a drift concerns.
    Class {
        /// Programs.
        Program = "program",
        /// Shared libraries and the loader's configuration.
        Library = "library",
        /// Users, passwords, PAM, sudo, SSH.
        Authentication = "authentication",
        /// What starts by itself: cron, units, profiles, preloads.
        Persistence = "persistence",
        /// Names, addresses, routes, filters.
        Network = "network",
        /// Kernel, modules, initramfs, boot loader.
        Boot = "boot",
        /// Logs and their configuration.
        Log = "log",
        /// The agent's own files.
        Sentinel = "sentinel",
        /// Everything else.
        Other = "other",
    }
}

/// A program that runs as its owner or group, or with capabilities, whoever starts it.
const SETUID_TECHNIQUE: &str = "T1548.001";
const SETUID_OR_SETGID: u16 = 0o6000;
const WORLD_WRITABLE: u16 = 0o002;
/// Hiding artifacts, here under a mount.
const COVERED_TECHNIQUES: [&str; 2] = ["T1564", "T1036"];
/// Ingress tool transfer: somebody has brought it.
const EXECUTED_TECHNIQUE: &str = "T1105";
/// Impair defences: what verifies is itself not what the image says.
const BASELINE_TECHNIQUE: &str = "T1562.001";
/// Indicator removal: clear logs.
const LOG_REMOVED_TECHNIQUE: &str = "T1070.002";
/// File and directory permissions modification.
const PERMISSIONS_TECHNIQUE: &str = "T1222.002";
/// Compromise host software binary.
const PROGRAM_TECHNIQUE: &str = "T1554";

/// What a drift means, from its path, its kind, the attributes that differ, and what is there now.
///
/// The table says what the path is; then what happened there can only make it worse.
pub fn classify(
    path: &TreePath,
    kind: &DriftKind,
    changed: AttributeSet,
    found: Option<&Entry>,
) -> Classification {
    let mut meaning = table::lookup(path).unwrap_or_else(|| unlisted(found));
    match kind {
        DriftKind::Covered => {
            meaning.techniques = COVERED_TECHNIQUES.to_vec();
            meaning.raise(Severity::High);
        }
        DriftKind::Executed => {
            meaning.class = Class::Program;
            meaning.techniques = vec![EXECUTED_TECHNIQUE];
            meaning.raise(Severity::High);
        }
        DriftKind::Baseline => {
            meaning.class = Class::Sentinel;
            meaning.techniques = vec![BASELINE_TECHNIQUE];
            meaning.raise(Severity::Critical);
        }
        DriftKind::Removed if meaning.class == Class::Log => {
            meaning.techniques = vec![LOG_REMOVED_TECHNIQUE];
            meaning.raise(Severity::High);
        }
        DriftKind::Added | DriftKind::Changed | DriftKind::Removed | DriftKind::Unknown(_) => {}
    }
    if let Some(found) = found {
        meaning.weigh(kind, changed, found);
    }
    meaning
}

/// A path that the table does not name: a program if it can be executed.
fn unlisted(found: Option<&Entry>) -> Classification {
    if found.is_some_and(Entry::is_executable) {
        return Classification {
            class: Class::Program,
            severity: Severity::High,
            techniques: vec![PROGRAM_TECHNIQUE],
        };
    }
    Classification {
        class: Class::Other,
        severity: Severity::Low,
        techniques: Vec::new(),
    }
}

impl Classification {
    /// Raises the severity for privilege that was gained, or that others may take.
    fn weigh(&mut self, kind: &DriftKind, changed: AttributeSet, found: &Entry) {
        let gained = |attribute| *kind == DriftKind::Added || changed.contains(attribute);
        if found.node.kind() == Kind::File && gains_privilege(gained, found) {
            self.lead(SETUID_TECHNIQUE);
            self.raise(Severity::Critical);
            return;
        }
        let has_mode = found.node.kind() != Kind::Symlink;
        if has_mode
            && *kind == DriftKind::Changed
            && gained(Attribute::Mode)
            && found.mode & WORLD_WRITABLE != 0
        {
            self.lead(PERMISSIONS_TECHNIQUE);
            self.raise(Severity::High);
        }
    }

    fn raise(&mut self, to: Severity) {
        self.severity = self.severity.clone().max(to);
    }

    fn lead(&mut self, technique: &'static str) {
        if !self.techniques.contains(&technique) {
            self.techniques.insert(0, technique);
        }
    }
}

/// Setuid, setgid or capabilities that were not there, or were another owner's.
fn gains_privilege(gained: impl Fn(Attribute) -> bool, found: &Entry) -> bool {
    let runs_as_other = found.mode & SETUID_OR_SETGID != 0;
    let owner_or_mode = [
        Attribute::Mode,
        Attribute::Uid,
        Attribute::Gid,
        Attribute::Kind,
    ]
    .into_iter()
    .any(&gained);
    let capable = found.xattrs.value(b"security.capability").is_some();
    (runs_as_other && owner_or_mode)
        || (capable && (gained(Attribute::Xattr) || gained(Attribute::Kind)))
}

#[cfg(test)]
mod tests;
