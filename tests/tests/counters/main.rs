//! What the agent costs, counted and not timed: system calls a file, instructions of the pure code.
//!
//! Counts are the same on a busy machine, so what was counted is committed here and may not grow by more than
//! [`committed::GROWTH`]. [`system_calls`] counts the agent's over small files, [`instructions`] those of decoding,
//! looking up, merging, comparing and of the rules over a seeded image (`benches/counted`).
#![forbid(unsafe_code)]

mod committed;
mod instructions;
mod system_calls;
