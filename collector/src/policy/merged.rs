//! Receives what is written, and hands on a value for every key of every fleet: the fleet's own, else the file's
//! default, else the built-in one.

use super::written;

/// Every key of one fleet, still as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Its name.
    pub name: String,
    /// See [`written::Section`]; no channel is a value of its own.
    pub channel: Option<String>,
    /// See [`written::Section`].
    pub mode: String,
    /// See [`written::Section`].
    pub grace: String,
    /// See [`written::Section`].
    pub parallel: u32,
    /// See [`written::Section`].
    pub stop_above: String,
    /// See [`written::Section`].
    pub minimum_severity: String,
    /// See [`written::Section`].
    pub verify_within: String,
    /// See [`written::Section`].
    pub replacer: written::Replacer,
}

/// Puts every fleet of a file over the file's default and the built-in one.
pub fn merge(file: written::File) -> Vec<Fleet> {
    let default = file.default;
    file.fleet
        .into_iter()
        .map(|fleet| Fleet::over(&default, fleet.name, fleet.section))
        .collect()
}

impl Fleet {
    /// One fleet over a default.
    pub fn over(default: &written::Section, name: String, own: written::Section) -> Self {
        fn first<T: Clone>(own: Option<T>, default: Option<&T>, built_in: impl FnOnce() -> T) -> T {
            own.or_else(|| default.cloned()).unwrap_or_else(built_in)
        }
        Fleet {
            name,
            channel: own.channel.or_else(|| default.channel.clone()),
            mode: first(own.mode, default.mode.as_ref(), || "observe".into()),
            grace: first(own.grace, default.grace.as_ref(), || "5m".into()),
            parallel: first(own.parallel, default.parallel.as_ref(), || 1),
            stop_above: first(own.stop_above, default.stop_above.as_ref(), || "20%".into()),
            minimum_severity: first(
                own.minimum_severity,
                default.minimum_severity.as_ref(),
                || "low".into(),
            ),
            verify_within: first(own.verify_within, default.verify_within.as_ref(), || {
                "30m".into()
            }),
            replacer: first(own.replacer, default.replacer.as_ref(), || {
                written::Replacer::Named("probe".into())
            }),
        }
    }
}
