//! Puts a bake together: rules, tree, statement, signature, files.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use drift::Sha256;
use drift::key::SigningKey;
use drift::manifest::{BakedManifest, Builder, Identity};
use drift::signature::Envelope;
use drift::statement::{
    BadText, Label, Note, Predicate, Provenance, Statement, Subject, SubjectDigest, Timestamp,
};

use super::gather::{Reading, with_links};
use super::glance::Glance;
use super::home::Home;
use super::rules::choose;
use super::source::Source;
use super::{BakeArguments, BakeError, ChosenRules, RulesChoice, Share, Trace, shown, traces};
use crate::baseline;
use crate::clock::Now;
use crate::durable;
use crate::packages;
use crate::scan::Progress;

/// What a bake made.
#[derive(Debug)]
pub struct Baked {
    /// What was signed, or is to be.
    pub identity: Identity,
    /// How many entries the manifest has.
    pub entry_count: u64,
    /// Length of the manifest in bytes.
    pub manifest_bytes: u64,
    /// The rules that it carries.
    pub rules: ChosenRules,
    /// What they leave unheld.
    pub share: Share,
    /// What an instance left in the image, and should be cleaned.
    pub traces: Vec<Trace>,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

/// Bakes; nothing is written unless everything was read.
///
/// `opened` is called once the source is open and nothing of it was read: from then on nothing but `--output` is
/// written, no program started and nobody spoken to, so that it may confine the process.
///
/// # Errors
/// See [`BakeError`].
pub fn bake(
    arguments: &BakeArguments,
    interrupt: &AtomicBool,
    opened: &dyn Fn(),
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Baked, BakeError> {
    let key = arguments.key.as_deref().map(read_key).transpose()?;
    let provenance = provenance(arguments)?;
