//! Whole trees for properties, weighted to the nasty: seeds or bytes in, entries, observations and rules out.
//!
//! Everything is grown from [`Choices`], so that one generator serves proptest (which shrinks the bytes) and the fuzz
//! targets (which evolve them).

#![allow(
    dead_code,
    unused_imports,
    reason = "each test and fuzz target takes what it needs"
)]
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(unreachable_pub, reason = "shared by several test programs")]

pub mod choices;
pub mod forge;
pub mod grow;
pub mod model;
pub mod mutate;

pub use choices::Choices;
pub use grow::Tree;
