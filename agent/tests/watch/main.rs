//! The live watch, as a whole, on real file systems: what it tells comes to what a scan would tell, and says who did it.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where the world is not as it should be"
)]

mod idle;
mod mutations;
mod place;
mod storms;
mod swept;
mod ways;
mod world;
