//! Which rule counts at a path: asked for every entry of an image, so literals are found by hash and the rest is
//! refused by its first bytes.

use std::collections::HashMap;

use super::{Rule, RuleType, Rules};
use crate::TreePath;

/// Where to look first.
#[derive(Clone)]
pub(super) struct Index {
    /// Literal pattern → the first rule that has it.
    literal: HashMap<Box<[u8]>, usize>,
    /// Literal pattern → the first volatile rule that has it.
    volatile: HashMap<Box<[u8]>, usize>,
    /// The rules with wildcards, in order.
    wild: Vec<usize>,
}

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self {
            literal: HashMap::new(),
            volatile: HashMap::new(),
            wild: Vec::new(),
        };
        for (nth, rule) in rules.iter().enumerate() {
            let Some(literal) = rule.pattern.literal() else {
                index.wild.push(nth);
                continue;
            };
            index.literal.entry(literal.into()).or_insert(nth);
            if rule.rule_type == RuleType::Volatile {
                index.volatile.entry(literal.into()).or_insert(nth);
            }
        }
        index
    }

    /// The first literal rule that matches the path, or is volatile and matches a directory above it.
    fn first_literal(&self, path: &[u8]) -> Option<usize> {
        let here = self.literal.get(path).copied();
        here.into_iter()
            .chain(self.first_volatile_literal(path))
            .min()
    }

    /// The first literal volatile rule that matches the path or a directory above it.
    fn first_volatile_literal(&self, path: &[u8]) -> Option<usize> {
        if self.volatile.is_empty() {
            return None;
        }
        let above = path
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(end, _)| &path[..end]);
        above
            .chain([path])
            .filter_map(|path| self.volatile.get(path).copied())
            .min()
    }
}

impl Rule {
    pub(super) fn counts_at(&self, path: &TreePath) -> bool {
        match self.rule_type {
            RuleType::Volatile => self.pattern.matches_or_contains(path),
            _ => self.pattern.matches(path),
        }
    }

    /// Whether it is volatile and matches a directory above: where such a rule counts, nothing is held.
    pub fn reaches_from_above(&self, path: &TreePath) -> bool {
        self.rule_type == RuleType::Volatile && self.pattern.contains(path)
    }
}

impl Rules {
    /// The rule that counts at a path, with its place in the order. A volatile rule counts below what it matches too.
    pub fn first_match(&self, path: &TreePath) -> Option<(usize, &Rule)> {
        let literal = self.index.first_literal(path.as_bytes());
        let before = literal.unwrap_or(usize::MAX);
        let wild = self
            .index
            .wild
            .iter()
            .copied()
            .take_while(|&nth| nth < before);
        let nth = wild
            .into_iter()
            .find(|&nth| self.rules[nth].counts_at(path))
            .or(literal)?;
        Some((nth, &self.rules[nth]))
    }

    /// Whether a volatile rule counts here and begins here: the path is matched and no directory above it is.
    pub fn is_volatile_root(&self, path: &TreePath) -> bool {
        self.first_match(path).is_some_and(|(_, rule)| {
            rule.rule_type == RuleType::Volatile && !rule.pattern.contains(path)
        })
    }

    /// Whether a volatile rule counts here because it matches a directory above: nothing here is held.
    pub fn below_volatile(&self, path: &TreePath) -> bool {
        self.first_match(path)
            .is_some_and(|(_, rule)| rule.reaches_from_above(path))
    }

    /// Whether a walk must enter this directory: something below it may be held.
    ///
    /// Not where a volatile rule reaches below it, unless a rule that comes before says something about what is there.
    /// What counts at the directory itself does not matter: below a mount point that is `covered` first and `volatile`
    /// then, nothing is held.
    pub fn descend(&self, directory: &TreePath) -> bool {
        self.scope().descend(directory)
    }
}
