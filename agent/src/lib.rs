//! The Driftmark agent: bakes an image's manifest, and holds an instance against it.
//!
//! In the order of the way through:
//!
//! - [`bake`], [`keygen`], [`sign`], [`inspect`], [`diff`]: in the image pipeline.
//! - [`baseline`]: the image's manifest, verified.
//! - [`scan`]: walk, merge, read, judge; [`pace`] keeps it back where others would feel it.
//! - [`packages`]: which package owns a path, by the databases in the tree.
//! - [`check`]: one scan and an exit code.
//! - [`learn`]: what first boots changed → the tightest rules that allow it.
//! - [`run`]: the daemon, around [`sentinel`], a pure state machine. It scans, reports through [`spool`] and [`client`],
//!   answers autoscalers through [`probe`] and people through [`status`], and tells systemd how it is ([`supervise`]).
//! - [`watch`]: what happens between scans: events to who did it, and to what has become of just these paths.
//! - [`sweep`]: what no event tells: what runs, what is mapped, what only some see mounted.
//! - [`enforce`]: executions that wait for an answer: programs that the image does not hold do not run, where that is asked
//!   for.
//! - [`confine`]: no more rights than the work needs.
//! - [`config`], [`enrol`], [`identity`], [`held`], [`clock`]: what the daemon needs to begin and to remember; `der`: what
//!   `identity` and `client` read and write of certificates.
//! - [`cli`]: flags to all of this.

#![forbid(unsafe_code)]

pub mod bake;
pub mod baseline;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod confine;
mod der;
pub mod diff;
pub mod durable;
pub mod enforce;
pub mod enrol;
pub mod held;
pub mod identity;
pub mod inspect;
pub mod interrupt;
pub mod keygen;
pub mod learn;
pub mod log;
pub mod pace;
pub mod packages;
pub mod probe;
pub mod run;
pub mod scan;
pub mod sentinel;
pub mod sign;
pub mod spool;
pub mod state_files;
pub mod status;
pub mod supervise;
pub mod sweep;
pub mod watch;

/// Threads that read and hash where nothing else is asked for: one a core.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut number = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in UNITS {
        if number < 1024.0 {
            break;
        }
        number /= 1024.0;
        shown = format!("{number:.1} {unit}");
    }
    shown
}
