//! How much of an image its rules leave unheld: rules are easily too wide, and nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};

use drift::TreePath;
use drift::rules::{Built, RuleType, Rules, SourcedRule};

use super::BakeError;
use crate::scan::filesystems::Filesystems;
use crate::scan::{Visit, Walk};

/// What each rule allows, and how much lies under volatile ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Entries that each rule is the first to match, in the order of the rules.
    pub matched: Vec<u64>,
    /// Paths of the tree, all and under volatile rules.
    pub entries: Part,
    /// Bytes of regular files.
    pub bytes: Part,
    /// Regular files that someone may execute.
    pub executables: Part,
    /// Executables under each volatile rule.
    volatile_executables: Vec<u64>,
}

/// A part of a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// What lies under volatile rules.
    pub volatile: u64,
    /// All there is.
    pub all: u64,
}

impl Part {
    fn add(&mut self, amount: u64, is_volatile: bool) {
        self.all += amount;
        if is_volatile {
            self.volatile += amount;
        }
    }

    /// In percent; 0 of nothing.
    pub fn percent(self) -> f64 {
        if self.all == 0 {
            0.0
        } else {
            self.volatile as f64 * 100.0 / self.all as f64
        }
    }
}

impl Share {
    /// More executables than this under `volatile` is an error.
    pub const MAX_EXECUTABLE_PERCENT: f64 = 2.0;

    /// Walks everything, whatever the rules say, without opening any file.
    pub(super) fn measure(
        filesystems: &Filesystems,
        built: &Built,
        interrupt: &AtomicBool,
    ) -> Result<Self, BakeError> {
        let mut share = Share::of_none(built);
        let everything = Rules::none();
        let walked = Walk::new(filesystems, &everything).run::<BakeError>(&mut |visit| {
            if interrupt.load(Ordering::Relaxed) {
                return Err(BakeError::Interrupted);
            }
            match visit {
                Visit::File { at, place, .. } => {
                    let stat = place.stat().ok();
                    let file = stat.map(|stat| (stat.size, stat.mode & 0o111 != 0));
                    share.add(built, at.path(), file);
                }
                Visit::Directory { path, .. } => share.add(built, &path, None),
                Visit::Other { at, .. } => share.add(built, at.path(), None),
                Visit::Gap(_) => {}
            }
            Ok(())
        })?;
        walked.map_err(BakeError::unopened)?;
        Ok(share)
    }

    /// Nothing measured yet.
    pub(super) fn of_none(built: &Built) -> Self {
        let count = built.rules.len();
        Share {
            matched: vec![0; count],
            volatile_executables: vec![0; count],
            ..Share::default()
        }
    }

    /// Counts one path; a regular file with its length and whether someone may execute it.
    pub(super) fn add(&mut self, built: &Built, path: &TreePath, file: Option<(u64, bool)>) {
        let first = built
            .rules
            .first_match(path)
            .map(|(nth, rule)| (nth, rule.rule_type == RuleType::Volatile));
        let is_volatile = first.is_some_and(|(_, is_volatile)| is_volatile);
        if let Some((nth, _)) = first {
            self.matched[nth] += 1;
        }
        self.entries.add(1, is_volatile);
        if let Some((size, is_executable)) = file {
            self.bytes.add(size, is_volatile);
            self.executables.add(u64::from(is_executable), is_volatile);
            if let Some((nth, true)) = first.filter(|_| is_executable) {
                self.volatile_executables[nth] += 1;
            }
        }
    }

    /// # Errors
    /// More than [`Share::MAX_EXECUTABLE_PERCENT`] of the executables under volatile rules.
    pub(super) fn check(&self, sources: &[SourcedRule]) -> Result<(), BakeError> {
        if self.executables.percent() <= Self::MAX_EXECUTABLE_PERCENT {
            return Ok(());
        }
        let mut worst: Vec<(u64, &SourcedRule)> = self
            .volatile_executables
            .iter()
            .copied()
            .zip(sources)
            .collect();
        worst.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let named: Vec<String> = worst
            .iter()
            .take(3)
            .filter(|(count, _)| *count > 0)
            .map(|(count, source)| format!("{} ({count} executables)", source.rule))
            .collect();
        let Part { volatile, all } = self.executables;
        Err(BakeError::TooVolatile {
            volatile,
            all,
            rules: named.join(", "),
        })
    }
}
