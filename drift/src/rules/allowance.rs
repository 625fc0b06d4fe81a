//! What each type of rule allows, as a value.

use super::{RuleType, Rules, Shape};
use crate::TreePath;
use crate::entry::{Attribute, AttributeSet, Kind};

/// Where a path stands to the rule that matches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The pattern matches the path itself, and it is a directory.
    Directory,
    /// The pattern matches the path itself, and it is anything else.
    Leaf,
    /// A volatile rule matches a directory above it.
    Below,
}

/// What may differ without being drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// It may be there without being in the image.
    pub appear: bool,
    /// It may be missing.
    pub go: bool,
    /// It may be mounted over.
    pub covered: bool,
    /// What of it may differ, as long as what the type of the rule asks for holds (growth, a shape).
    pub attributes: AttributeSet,
}

const CONTENT: AttributeSet = AttributeSet::of(&[Attribute::Size, Attribute::Content]);

impl Allowance {
    /// Nothing: what holds where no rule matches.
    pub const NONE: Self = Self {
        appear: false,
        go: false,
        covered: false,
        attributes: AttributeSet::EMPTY,
    };
    /// Everything.
    pub const ALL: Self = Self {
        appear: true,
        go: true,
        covered: true,
        attributes: AttributeSet::ALL,
    };
}

impl RuleType {
    /// What it allows at a path that stands like this to the rule.
    pub fn allowance(self, place: Place) -> Allowance {
        let none = Allowance::NONE;
        match (self, place) {
            (_, Place::Below) => Allowance::ALL,
            (RuleType::Volatile, Place::Directory) => Allowance {
                appear: true,
                ..none
            },
            (RuleType::Volatile, Place::Leaf) | (RuleType::FirstBoot, _) => Allowance {
                covered: false,
                ..Allowance::ALL
            },
            (RuleType::AppendOnly | RuleType::Shape(_), _) => Allowance {
                appear: true,
                attributes: CONTENT,
                ..none
            },
            (RuleType::Content, _) => Allowance {
                attributes: CONTENT,
                ..none
            },
            (RuleType::Absent, _) => Allowance { go: true, ..none },
            (RuleType::Covered, _) => Allowance {
                covered: true,
                ..none
            },
        }
    }

    /// Whether the value that is there once the first-boot window is over is held from then on.
    pub fn holds_first_value(self) -> bool {
        match self {
            RuleType::FirstBoot => true,
            RuleType::Shape(shape) => shape.is_held(),
            RuleType::Volatile
            | RuleType::AppendOnly
            | RuleType::Content
            | RuleType::Absent
            | RuleType::Covered => false,
        }
    }
}

impl Shape {
    /// Whether its value is held once the first-boot window is over: an instance keeps its identity, its loader's
    /// cache may be rebuilt.
    pub fn is_held(self) -> bool {
        match self {
            Shape::MachineId | Shape::HostKey => true,
            Shape::LdSoCache => false,
        }
    }
}

impl Rules {
    /// What may differ at `path`, which is (or, if it is missing, was) of this kind.
    pub fn allowance(&self, path: &TreePath, kind: Kind) -> Allowance {
        let Some((_, rule)) = self.first_match(path) else {
            return Allowance::NONE;
        };
        let place = match kind {
            _ if rule.rule_type == RuleType::Volatile && rule.pattern.contains(path) => {
                Place::Below
            }
            Kind::Directory => Place::Directory,
            _ => Place::Leaf,
        };
        rule.rule_type.allowance(place)
    }
}
