//! The hostile stories: the real collector program on loopback, spoken to as an attacker would.
//!
//! A [`world::World`] is a collector with a signed image, its [`machine::Machine`]s, and a witness: the states of everybody
//! and the ledger, before and after. [`wire`] speaks to its ports with whatever certificate, body and
//! timing; [`forge`] makes the certificates and requests that an attacker would like to have. The stories: reports,
//! connections, certificates, one machine speaking for another, requests for names, tokens, claims, forged
//! replacements, swapped manifests, images, files, operators, the ledger, and the document that describes the
//! operators' port.
#![forbid(unsafe_code)]

mod baselines;
mod certificates;
mod claims;
mod connections;
mod files;
mod forge;
mod images;
mod impersonation;
mod ledger;
mod machine;
mod openapi;
mod operators;
mod replacements;
mod reports;
mod requests;
mod samples;
mod schema;
mod tokens;
mod wire;
mod world;
