//! The daemon half of the agent, as a whole: enrolment and life against a collector on the loopback.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test stops where the world is not as it should be"
)]

mod descriptor_store;
mod enrolment;
mod instance;
mod life;
mod loopback;
#[allow(dead_code, reason = "other kinds of file systems are another test's")]
#[path = "../watch/place.rs"]
mod place;
mod restarted;
mod storms;
mod waiting;
mod watched;
