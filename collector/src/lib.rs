//! The collector: receives what agents report about their instances, and has drifted ones replaced, within limits.
//!
//! In the order of the way through:
//!
//! - [`config`], [`clock`]: what the operator wants, and what time it is.
//! - [`confine`]: it writes to its data directory alone.
//! - [`authority`]: the certificate authority: who is who.
//! - [`rate`]: how often a peer can make us write something down.
//! - [`listen`]: TLS connections, and which instance is at the other end.
//! - [`store`]: SQLite; one writer that commits in groups, a few readers, and typed functions over their transactions.
//! - [`enrol`]: a join token and a key become an instance with a certificate; certificates are renewed.
//! - [`ingest`]: reports become stored state, once each, durable before they are acknowledged.
//! - [`instance`]: what the collector holds an instance to be, from stored facts and the time.
//! - [`image`]: registered builds, channels, last good.
//! - [`policy`]: fleets and what they allow.
//! - [`judge`]: facts × policy × time → marks and orders. Pure.
//! - [`replace`]: orders are carried out and verified.
//! - [`ledger`]: every decision and refusal, hash-chained.
//! - [`api`]: the agents' and the operators' HTTP interfaces.
//! - [`serve`]: all of it, running.
//! - [`cli`]: the commands that talk to a running collector.

#![forbid(unsafe_code)]

pub mod api;
pub mod authority;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confine;
pub mod enrol;
pub mod image;
pub mod ingest;
pub mod instance;
pub mod judge;
pub mod ledger;
pub mod listen;
pub mod policy;
pub mod rate;
pub mod replace;
pub mod serve;
pub mod store;
