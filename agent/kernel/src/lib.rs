//! Linux in, safe types out: the only unsafe code of Driftmark.
//!
//! In the order of the way through:
//!
//! - [`tree`]: one file system, opened so that nothing mounted above hides anything.
//! - [`partitions`], [`superblock`]: what a disk image holds, read from its bytes.
//! - [`loop_device`]: a part of a disk image as a device that a tree can be mounted from.
//! - [`dir`]: one directory of it; everything below is reached by single names from here.
//! - [`names`]: what a directory lists.
//! - [`stat`]: what one path is.
//! - [`xattrs`], [`flags`]: what else the file system holds about it.
//! - [`verity`]: what the kernel measured of a file.
//! - [`mounts`]: what is mounted where, and when that changes.
//! - [`fanotify`]: what happens in it, and who does it.
//! - [`mapped`]: what a mapped device is mapped to.
//! - [`boot`]: which boot this is, and how long ago it was.
//! - [`confine`]: no more rights than the daemon needs.
//! - [`process`], [`page_cache`]: leaving the machine as it was.
//! - [`direct`]: what the disk holds, whatever the page cache says.
//! - `stack`: what a panic that aborts tells of its callers: nothing.
//!
//! A wrapper here is one system call with its fallback; it returns owned descriptors and [`std::io::Result`], whose
//! path the caller adds. No text leaves this crate: names, targets and values are bytes.

#[cfg(not(target_os = "linux"))]
compile_error!("driftmark-kernel speaks to Linux only");

pub mod boot;
pub mod confine;
pub mod dir;
pub mod direct;
pub mod fanotify;
pub mod flags;
#[cfg(test)]
mod lab;
pub mod loop_device;
pub mod mapped;
pub mod mounts;
pub mod names;
pub mod page_cache;
pub mod partitions;
pub mod process;
#[cfg(all(panic = "abort", not(target_feature = "crt-static")))]
mod stack;
pub mod stat;
pub mod superblock;
mod sys;
pub mod tree;
pub mod verity;
pub mod xattrs;

pub use dir::Dir;
pub use loop_device::LoopDevice;
pub use mounts::Mount;
pub use names::{Between, Names, Scratch};
pub use partitions::Partition;
pub use stat::{FileKind, Stat};
pub use superblock::Superblock;
pub use tree::{Access, MountRefused, Tree};
pub use xattrs::Xattrs;
