//! One table each: what README shows, and what can be asked for alone.

mod attribution;
mod cold_check;
mod compare;
mod felt;
mod growth;
mod latency;
mod memory;
mod slowdown;
mod stored;
mod storm;
mod volatile;
mod warm;

use std::path::Path;

use anyhow::Result;

/// A part of the bench.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The word that asks for it.
    pub word: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Measures, and gives Markdown.
    pub measure: fn(&Path) -> Result<String>,
}

/// All of them, in the order in which they are shown.
pub const PARTS: [Part; 14] = [
    Part {
        word: "warm",
        title: "Everything in the page cache",
        measure: warm::measure,
    },
    Part {
        word: "cold",
        title: "Nothing cached",
        measure: cold_check::measure,
    },
    Part {
        word: "memory",
        title: "Memory, and what is left behind",
        measure: memory::measure,
    },
    Part {
        word: "felt",
        title: "What others feel of a scan, everything in the page cache",
        measure: felt::warm,
    },
    Part {
        word: "felt-cold",
        title: "What others feel of a scan, nothing cached",
        measure: felt::cold,
    },
    Part {
        word: "growth",
        title: "Growth",
        measure: growth::measure,
    },
    Part {
        word: "latency",
        title: "How soon a change is known",
        measure: latency::measure,
    },
    Part {
        word: "stored",
        title: "How soon a change is stored, and the probe says so",
        measure: stored::measure,
    },
    Part {
        word: "attribution",
        title: "Who wrote and was gone",
        measure: attribution::measure,
    },
    Part {
        word: "storm",
        title: "More than a watch can take in",
        measure: storm::measure,
    },
    Part {
        word: "volatile",
        title: "A busy directory in which anything may change",
        measure: volatile::measure,
    },
    Part {
        word: "unpack",
        title: "What an archive that is unpacked loses by the watch",
        measure: slowdown::unpack,
    },
    Part {
        word: "build",
        title: "What a build loses by the watch",
        measure: slowdown::build,
    },
    Part {
        word: "compare",
        title: "The same changes, as others tell of them",
        measure: compare::measure,
    },
];
