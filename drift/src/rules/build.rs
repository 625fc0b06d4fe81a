//! Rule files put together: which rules count, and which are a mistake.

use super::{Origin, Rule, RuleFile, RuleType, Rules, SourcedRule};
use crate::glob::Pattern;

/// Rules with where each comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The rules that count, in order.
    pub rules: Rules,
    /// Where each was written, in the same order.
    pub sources: Vec<SourcedRule>,
    /// Rules that were dropped because a rule of a file before theirs overrides them.
    pub notes: Vec<Note>,
}

/// A rule that never counts, because a rule of an earlier file matches all that it matches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "rule {} of {} ({}) is overridden by rule {} of {} ({})",
    dropped.number, dropped.file, dropped.rule, by.number, by.file, by.rule
)]
pub struct Note {
    /// The rule that was dropped.
    pub dropped: SourcedRule,
    /// The rule that overrides it.
    pub by: SourcedRule,
}

/// Why rule files cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// A rule that an earlier one of the same file leaves nothing to.
    #[error(
        "rule {} of {file} ({}) never counts: rule {} ({}) before it matches all that it matches",
        shadowed.number, shadowed.rule, by.number, by.rule
    )]
    Shadowed {
        /// The file of both.
        file: String,
        /// The rule that never counts.
        shadowed: Box<SourcedRule>,
        /// The rule before it.
        by: Box<SourcedRule>,
    },
    /// A rule that matches everything below the root: nothing would be verified any more.
    #[error("rule {} of {} ({}) allows everything", .0.number, .0.file, .0.rule)]
    Everything(Box<SourcedRule>),
    /// More than [`Rules::MAX_COUNT`] in all files together.
    #[error("more than {} rules in all files together", Rules::MAX_COUNT)]
    TooMany,
}

impl Rules {
    /// Puts rule files together: the image's in order, then the distribution's.
    ///
    /// # Errors
    /// See [`RulesError`]. A rule that one of an *earlier file* leaves nothing to is no error but a [`Note`]:
    /// overriding is what an image's own rules are for.
    pub fn build(image: Vec<RuleFile>, distribution: Vec<RuleFile>) -> Result<Built, RulesError> {
        let files = image.into_iter().map(|file| (file, Origin::Image));
        let files = files.chain(
            distribution
                .into_iter()
                .map(|file| (file, Origin::Distribution)),
        );
        let mut kept: Vec<(usize, SourcedRule)> = Vec::new();
        let mut notes = Vec::new();
        for (nth, (file, origin)) in files.enumerate() {
            for rule in file.rules {
                let rule = SourcedRule { origin, ..rule };
                if rule.rule.allows_everything() {
                    return Err(RulesError::Everything(Box::new(rule)));
                }
                match kept
                    .iter()
                    .find(|(_, earlier)| earlier.rule.shadows(&rule.rule))
                {
                    None if kept.len() == Rules::MAX_COUNT => return Err(RulesError::TooMany),
                    None => kept.push((nth, rule)),
                    Some((of, by)) if *of == nth => {
                        let (shadowed, by) = (Box::new(rule), Box::new(by.clone()));
                        return Err(RulesError::Shadowed {
                            file: file.name,
                            shadowed,
                            by,
                        });
                    }
                    Some((_, by)) => notes.push(Note {
                        dropped: rule,
                        by: by.clone(),
                    }),
                }
            }
        }
        let sources: Vec<SourcedRule> = kept.into_iter().map(|(_, rule)| rule).collect();
        let rules = Rules::from_checked(sources.iter().map(|source| source.rule.clone()).collect());
        Ok(Built {
            rules,
            sources,
            notes,
        })
    }
}

impl Rule {
    /// Whether this rule, coming first, leaves `later` nothing.
    ///
    /// A volatile rule reaches below what its pattern matches, so it takes a rule that reaches as far to shadow one:
    /// `covered /tmp` before `volatile /tmp` is a rule for the mount point and a rule for what is in it.
    pub(super) fn shadows(&self, later: &Rule) -> bool {
        match (self.rule_type, later.rule_type) {
            (RuleType::Volatile, _) => self.pattern.includes_below(&later.pattern),
            (_, RuleType::Volatile) => {
                self.pattern.includes(&later.pattern)
                    && below(&later.pattern).is_some_and(|below| self.pattern.includes(&below))
            }
            (_, _) => self.pattern.includes(&later.pattern),
        }
    }

    /// Whether everything below the root is matched.
    pub(super) fn allows_everything(&self) -> bool {
        let everything = Pattern::new(b"/**").expect("a pattern");
        match self.rule_type {
            RuleType::Volatile => self.pattern.includes_below(&everything),
            _ => self.pattern.includes(&everything),
        }
    }
}

/// The pattern for everything below what `pattern` matches; none if it would be too long.
fn below(pattern: &Pattern) -> Option<Pattern> {
    let spelling = pattern.as_bytes();
    let separator: &[u8] = if spelling == b"/" { b"" } else { b"/" };
    Pattern::new(&[spelling, separator, b"**"].concat()).ok()
}
