//! The way from an empty root file system to a machine that is watched: each image builder's own tool with our script
//! for it, the page that tells a new user, and what one machine is told at its boot.

#![forbid(unsafe_code)]

mod builders;
mod configured;
mod packer;
mod page;
mod vault;
mod world;
