//! The detection stories: the real agent over real file systems on loop devices, one change at a time.
//!
//! A [`ground::Ground`] is a file system with trees in it and the agent beside it. The stories: every mutation and its
//! undoing, what cannot be read, what a quick pass believes, what is left in the
//! page cache, what rules allow, who bakes the same bytes, and what comes of manifests, signatures and names that mean
//! harm.
#![forbid(unsafe_code)]

mod base;
mod beside;
mod disk;
mod exports;
mod filesystems;
mod gaps;
mod ground;
mod hostile_manifests;
mod mutations;
mod own_manifest;
mod own_system;
mod page_cache;
mod rules;
mod same_bytes;
mod signing;
mod unread;
