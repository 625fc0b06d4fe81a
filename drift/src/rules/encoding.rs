//! Rules as the bytes that a manifest's header holds.
//!
//! ```text
//! varint count, then for each rule:
//! byte   type, its place in RuleType::ALL
//! varint length of the pattern, then its canonical spelling
//! ```
//!
//! One set of rules has one encoding; whatever else is refused.

use super::{Rule, RuleType, Rules};
use crate::glob::{BadPattern, Pattern};
use crate::varint;

/// Why bytes are not rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    /// The bytes end before the rules do, or a number is not in its shortest form.
    #[error("rules are cut short or not canonical")]
    Malformed,
    /// More than [`Rules::MAX_COUNT`].
    #[error("more than {} rules", Rules::MAX_COUNT)]
    TooMany,
    /// A type of a later version: what it allows cannot be known.
    #[error("rule type {0} is unknown")]
    UnknownType(u8),
    /// A pattern that is none.
    #[error("rule {number}: pattern")]
    Pattern {
        /// Which rule, from 1.
        number: usize,
        /// What is wrong with it.
        source: BadPattern,
    },
    /// A pattern in another spelling than the canonical one.
    #[error("rule {0}: pattern is not in its canonical spelling")]
    Spelling(usize),
    /// A rule that matches everything.
    #[error("rule {0} allows everything")]
    Everything(usize),
    /// Bytes after the last rule.
    #[error("bytes after the last rule")]
    Trailing,
}

impl Rules {
    /// Appends the rules.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.rules.len() as u64);
        for rule in &self.rules {
            out.push(rule.rule_type.code());
            let spelling = rule.pattern.as_bytes();
            varint::put(out, spelling.len() as u64);
            out.extend_from_slice(spelling);
        }
    }

    /// Takes back what [`Rules::encode`] appended, and nothing else.
    ///
    /// # Errors
    /// See [`BadRules`]. Whatever the bytes, it ends soon and never panics.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, BadRules> {
        let count = varint::take(&mut bytes).ok_or(BadRules::Malformed)?;
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= Self::MAX_COUNT)
            .ok_or(BadRules::TooMany)?;
        let mut rules = Vec::new();
        for number in 1..=count {
            rules.push(take_rule(&mut bytes, number)?);
        }
        if bytes.is_empty() {
            Ok(Self::from_checked(rules))
        } else {
            Err(BadRules::Trailing)
        }
    }
}

impl RuleType {
    fn code(self) -> u8 {
        let place = Self::ALL.iter().position(|&other| other == self);
        place.expect("every type is in the list of all") as u8
    }
}

fn take_rule(bytes: &mut &[u8], number: usize) -> Result<Rule, BadRules> {
    let (&code, rest) = bytes.split_first().ok_or(BadRules::Malformed)?;
    *bytes = rest;
    let rule_type = *RuleType::ALL
        .get(usize::from(code))
        .ok_or(BadRules::UnknownType(code))?;
    let length = varint::take(bytes).ok_or(BadRules::Malformed)?;
    let length = usize::try_from(length).map_err(|_| BadRules::Malformed)?;
    let (spelling, rest) = bytes.split_at_checked(length).ok_or(BadRules::Malformed)?;
    *bytes = rest;
    let pattern = Pattern::new(spelling).map_err(|source| BadRules::Pattern { number, source })?;
    if pattern.as_bytes() != spelling {
        return Err(BadRules::Spelling(number));
    }
    let rule = Rule { rule_type, pattern };
    if rule.allows_everything() {
        Err(BadRules::Everything(number))
    } else {
        Ok(rule)
    }
}
