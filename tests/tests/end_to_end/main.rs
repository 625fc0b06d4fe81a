//! The end-to-end stories: real agents, a real collector with its SQLite, real systemd instances where a machine matters.
//!
//! From the whole way ([`replacement`]) to what goes wrong on it: agents that die ([`agent_down`]), machines that come and
//! go ([`boots`]), collectors that die ([`durability`]) or are away ([`away`]), instances with more drift than anyone reads
//! ([`many`]), fleets that are not to be touched ([`modes`]), too much at once ([`breakers`]), and instances that cannot
//! say what they are ([`unverifiable`]).
#![forbid(unsafe_code)]

mod replacement;
