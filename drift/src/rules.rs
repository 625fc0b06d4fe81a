//! What may change, where and how: typed allowances, signed with the manifest, instead of excludes.
//!
//! Takes rule files in order and hands on [`Rules`]: the first rule that matches a path is the one that counts, the
//! image's own before its distribution's. What a rule allows is [`RuleType::allowance`]; applying it is
//! [`crate::compare`]'s.

mod allowance;
mod build;
mod encoding;
mod file;
mod lookup;
mod scope;

use std::fmt;

pub use allowance::{Allowance, Place};
pub use build::{Built, Note, RulesError};
pub use encoding::BadRules;
pub use file::{BadRuleFile, Origin, RuleFile, SourcedRule};
pub use scope::Scope;

use crate::glob::Pattern;
use lookup::Index;

/// What a rule allows at the paths that its pattern matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleType {
    /// Anything below may change, appear and go. A matched directory is itself held (but it may appear); a matched
    /// thing of another kind may change, appear and go.
    Volatile,
    /// May appear, change or go; what it is once the first-boot window is over is held from then on.
    FirstBoot,
    /// Content may grow at its end (the first bytes, as many as were expected, hash to what was expected), and it may
    /// appear. Owner, mode, kind and attributes hold.
    AppendOnly,
    /// Content and size may change, nothing else; it may not appear or go.
    Content,
    /// May be missing; if it is there, it is as in the manifest.
    Absent,
    /// May be mounted over.
    Covered,
    /// May appear, and content and size may change, as long as the content passes the check. Owner, mode, kind and
    /// attributes hold where the manifest has the entry.
    Shape(Shape),
}

/// What the content of a file is checked to be: see [`crate::shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `/etc/machine-id`. Its value is held after first boot.
    MachineId,
    /// A host key of `sshd`, private or public. Its value is held after first boot.
    HostKey,
    /// `/etc/ld.so.cache`: each entry names a library of the image in a trusted directory.
    LdSoCache,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it allows.
    pub rule_type: RuleType,
    /// Where.
    pub pattern: Pattern,
}

/// Rules in order; the first that matches a path is the one that counts.
#[derive(Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    index: Index,
}

impl RuleType {
    /// All of them, in the order of their codes in a manifest.
    pub const ALL: [RuleType; 9] = [
        RuleType::Volatile,
        RuleType::FirstBoot,
        RuleType::AppendOnly,
        RuleType::Content,
        RuleType::Absent,
        RuleType::Covered,
        RuleType::Shape(Shape::MachineId),
        RuleType::Shape(Shape::HostKey),
        RuleType::Shape(Shape::LdSoCache),
    ];

    /// The word for it in rule files and on screen; a shape by the name of the shape.
    pub fn word(self) -> &'static str {
        match self {
            RuleType::Volatile => "volatile",
            RuleType::FirstBoot => "first-boot",
            RuleType::AppendOnly => "append-only",
            RuleType::Content => "content",
            RuleType::Absent => "absent",
            RuleType::Covered => "covered",
            RuleType::Shape(shape) => shape.word(),
        }
    }
}

impl Shape {
    /// All of them, in the order of their codes in a manifest.
    pub const ALL: [Shape; 3] = [Shape::MachineId, Shape::HostKey, Shape::LdSoCache];

    /// The word for it in rule files and on screen.
    pub fn word(self) -> &'static str {
        match self {
            Shape::MachineId => "machine-id",
            Shape::HostKey => "host-key",
            Shape::LdSoCache => "ld-so-cache",
        }
    }
}

impl fmt::Display for RuleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rule_type, self.pattern)
    }
}

impl Rules {
    /// More rules than any image has; a file or manifest with more is refused.
    pub const MAX_COUNT: usize = 4096;

    /// No rules: nothing may change.
    pub fn none() -> Self {
        Self::from_checked(Vec::new())
    }

    /// The rules in the order in which they count.
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn from_checked(rules: Vec<Rule>) -> Self {
        let index = Index::of(&rules);
        Self { rules, index }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::none()
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Rules {}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.rules.iter().map(ToString::to_string))
            .finish()
    }
}

#[cfg(test)]
mod tests;
