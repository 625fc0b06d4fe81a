//! The world in which Driftmark is tested and shown: real processes, real systemd instances of a real image, real file
//! systems, and nothing of it left behind.
//!
//! In the order in which a story uses them: a [`sandbox`] is the private machine, an [`image`] is what boots in it,
//! a [`lab`] is the sandbox with a network and its [`instance`]s, an [`intrusion`] is what goes wrong there.
//! A [`collector`] judges, and a [`cloud`] replaces; all of them together are a [`fleet`].
//! A [`vm`] is one such instance with a kernel, a memory and a clock of its own.
//! [`packages`] are what is shipped, [`process`] runs the two programs alone, [`loopfs`] gives them a file system to look
//! at, and [`mutations`] are what is done to one. A [`tree`] is a small file system tree with an agent that watches it, a
//! [`sender`] is an instance that is nothing but its reports.
#![forbid(unsafe_code)]

pub mod apt;
pub mod cloud;
pub mod collector;
pub mod distribution;
pub mod fleet;
pub mod image;
pub mod instance;
pub mod intrusion;
pub mod lab;
pub mod loopfs;
pub mod mutations;
pub mod packages;
pub mod patience;
pub mod process;
pub mod relay;
pub mod sandbox;
pub mod sender;
pub mod tree;
pub mod vm;

pub use cloud::Cloud;
pub use collector::{Collector, CollectorOptions};
pub use distribution::Distribution;
pub use fleet::{Fleet, FleetOptions};
pub use image::{Image, Recipe, Workshop};
pub use instance::{Instance, InstanceOptions};
pub use lab::Lab;
pub use loopfs::{FileSystem, LoopFs};
pub use process::{Program, Running};
pub use sandbox::Sandbox;
pub use sender::Sender;
pub use tree::Tree;
pub use vm::{Kernel, Machine, MachineOptions};
