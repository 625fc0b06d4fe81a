//! Events of file systems in; what has become of the paths that they are about, and who did it, out.
//!
//! ```text
//! kernel ─▶ eyes ─▶ events: who (attribution), where ─▶ settle ─▶ looking: scan::look ─▶ whoever was told to be told
//! ```
//!
//! - [`live`]: the thread that reads events as they come, and what it is waked by.
//! - [`eyes`]: the marks on the image's file systems, each the best that it allows.
//! - [`attribution`]: at once, before the process is gone; [`actors`] remembers the last ones, and [`starts`] tells what
//!   those were that are gone already.
//! - [`settle`]: many events about one thing become one look at it.
//! - [`looking`]: the thread that reads and judges just what has changed.
//! - [`seen`]: until when all was seen, for a start after this one and for whoever asks how long nothing was.
//!
//! Two threads of its own, not tasks of the daemon's runtime: a process that writes and ends is there for a millisecond,
//! and neither a handshake with the collector nor the hashing of a large file may come between.
//!
//! Invariants: whatever an event is about is looked at after that event; what cannot be told by looking at single paths
//! (lost events, names of inodes, mounts) is told to be in doubt, and a pass over the tree follows. Nothing is decided here:
//! what looks find is told, with the time for which nothing was seen.

mod actors;
pub mod attribution;
mod eyes;
mod live;
mod looking;
mod seen;
pub mod settle;
mod starts;

pub use live::{LiveWatch, Order, Told};
pub use looking::Sighting;
pub(crate) use looking::actor_at;
pub(crate) use starts::Strangers;
