//! The baking stories: one image read from every place that it can lie in, and what must not be in an image.
//!
//! A [`studio::Studio`] is a sandbox with an image in it: as a tree, on partitioned disks, in a qcow2, in a tar. Whatever
//! is read is never written, which every story proves by its digest.
#![forbid(unsafe_code)]

mod disks;
mod home;
mod hostile_tars;
mod refused;
mod studio;
mod tars;
mod traces;
