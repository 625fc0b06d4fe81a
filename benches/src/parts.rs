//! One table each: what README shows, and what can be asked for alone.

mod cold_check;
mod felt;
mod growth;
mod latency;
mod memory;
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
pub const PARTS: [Part; 7] = [
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
];
