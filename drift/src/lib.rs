//! The language that both sides of Driftmark speak, and its verb, [`compare`].
//!
//! Pure: no I/O, no clock, no randomness (`clippy.toml` beside this crate bans them). In the order of the way through:
//!
//! - [`path`], [`digest`], [`entry`]: what one path of an image is.
//! - [`rules`], [`glob`], [`shape`]: what may change, where, and what it must still be.
//! - [`manifest`]: everything in an image, in canonical bytes.
//! - [`statement`], [`signature`], [`key`]: who says so.
//! - [`observation`]: what a path turned out to be on an instance.
//! - [`compare`]: manifest × observations → drift and gaps.
//! - [`finding`], [`class`]: one drift, and what it means: class, severity and technique.
//! - [`attribution`]: who did it, and how sure that is.
//! - [`coverage`]: what has and has not been verified.
//! - [`report`], [`enrolment`]: what agent and collector say to each other.
//! - [`written`], [`documented`]: TOML as people write it, and configuration types that carry their own documentation.
//! - [`export`]: JSON Lines and BSD mtree for the rest of the world.

#![forbid(unsafe_code)]

pub mod attribution;
pub mod class;
pub mod compare;
pub mod coverage;
pub mod digest;
pub mod documented;
pub mod enrolment;
pub mod entry;
pub mod export;
pub mod finding;
pub mod glob;
pub mod key;
pub mod manifest;
pub mod observation;
pub mod path;
pub mod report;
pub mod rules;
pub mod shape;
pub mod signature;
pub mod statement;
mod varint;
pub mod written;

pub use digest::{Blake3, Sha256};
pub use entry::Entry;
pub use path::{TreePath, escape};

use base64::Engine as _;

/// Standard base64 with padding, as JSON fields carry bytes.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The reverse of [`base64`].
///
/// # Errors
/// Anything that is not standard base64 with padding.
pub fn from_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    base64::engine::general_purpose::STANDARD.decode(text)
}
