//! Events of file systems in; who did it, and what has to be looked at again and when, out.
//!
//! - [`attribution`]: at once, before the process is gone.
//! - [`settle`]: many events about one thing become one look at it.
//!
//! Not yet part of [`crate::run`]: the daemon scans, and does not watch.

pub mod attribution;
pub mod settle;
