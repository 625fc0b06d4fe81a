//! Which rules can count in a directory: a walk narrows them on its way down, and in most directories none is left.

use super::{Rule, RuleType, Rules};
use crate::TreePath;

/// The rules that may count at what is in a directory, in order.
///
/// It answers as [`Rules`] do, for paths below its directory alone, without asking every rule again.
#[derive(Debug, Clone)]
pub struct Scope<'r> {
    rules: &'r Rules,
    /// Places in the order; no more than [`Rules::MAX_COUNT`].
    candidates: Vec<u16>,
}

impl Rules {
    /// All of them: what may count in a tree.
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            rules: self,
            candidates: (0..self.rules.len() as u16).collect(),
        }
    }
}

impl<'r> Scope<'r> {
    /// Those that may count below this directory, which lies in this scope.
    pub fn below(&self, directory: &TreePath) -> Self {
        let reaches = |rule: &Rule| {
            (rule.rule_type == RuleType::Volatile && rule.counts_at(directory))
                || rule.pattern.may_match_below(directory)
        };
        let candidates = self.candidates.iter().copied();
        Scope {
            rules: self.rules,
            candidates: candidates
                .filter(|&nth| reaches(&self.rules.rules[usize::from(nth)]))
                .collect(),
        }
    }

    /// Whether none can count there.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// See [`Rules::first_match`].
    pub fn first_match(&self, path: &TreePath) -> Option<&'r Rule> {
        let mut candidates = self.candidates();
        candidates.find(|rule| rule.counts_at(path))
    }

    /// Whether a walk must enter this directory: see [`Rules::descend`].
    pub fn descend(&self, directory: &TreePath) -> bool {
        let reaches =
            |rule: &Rule| rule.rule_type == RuleType::Volatile && rule.counts_at(directory);
        let Some(nth) = self.candidates().position(reaches) else {
            return true;
        };
        let mut earlier = self.candidates().take(nth);
        earlier.any(|rule| rule.pattern.may_match_below(directory))
    }

    fn candidates(&self) -> impl Iterator<Item = &'r Rule> {
        let rules = &self.rules.rules;
        self.candidates
            .iter()
            .map(move |&nth| &rules[usize::from(nth)])
    }
}
