//! Speed and memory of the agent on a real tree, each against a stated ceiling in the same run.

#![forbid(unsafe_code)]

pub mod ceiling;
pub mod table;
