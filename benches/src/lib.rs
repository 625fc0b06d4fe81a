//! Speed and memory of the agent, each against a stated ceiling in the same run.
//!
//! - [`list`], [`walk`]: the files of a tree, listed before, or walked bare.
//! - [`ceiling`]: reading and hashing them, and looking at them, with nothing else.
//! - [`cold`]: the fastest plain readers of a tree of which nothing is cached.
//! - [`seeded`]: trees of any size that are the same everywhere.
//! - [`agent`], [`aide`], [`idle`]: what is held against these.
//! - [`felt`]: processes that feel what runs beside them; [`spread`]: how sure a difference is that they feel.
//! - [`watched`]: a tree under the daemon's watch, and a collector that is told of it.
//! - [`peers`]: others that watch the same tree.
//! - [`writer`]: processes that write and are gone; [`drain`]: the least that reading events costs.
//! - [`machine`]: its caches, its load, its name.
//! - [`turns`], [`table`]: runs in turn, their medians, and how they are shown.
//! - [`parts`]: one table each, of what README shows.

#![forbid(unsafe_code)]

pub mod agent;
pub mod aide;
pub mod ceiling;
pub mod cold;
pub mod drain;
pub mod felt;
pub mod idle;
pub mod list;
pub mod machine;
pub mod parts;
pub mod peers;
pub mod seeded;
pub mod spread;
pub mod table;
pub mod turns;
pub mod walk;
pub mod watched;
pub mod writer;
