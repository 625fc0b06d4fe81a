//! The quiet stories: what an ordinary life does to an instance is no drift, and one real change in it is one drift.
//!
//! [`ground`] makes a fleet of a distribution's image, [`day`] is what happens on an instance in a day, [`change`] what
//! an intruder does. In [`soak`] all of it goes on for as long as it is told; [`distributions`] does a day on each
//! distribution, with and without cloud-init; [`documented`] holds the rules of those that cannot be booted here.
#![forbid(unsafe_code)]

mod change;
mod day;
mod distributions;
mod documented;
mod ground;
mod soak;
