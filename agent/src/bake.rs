//! Bakes the manifest of an image: reads its whole tree and writes down what is there.

pub mod arguments;
mod aside;
mod gather;
mod glance;
mod home;
mod rules;
mod share;
mod source;
mod traces;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use drift::manifest::BuildError;
use drift::{TreePath, escape};

use crate::packages::PackagesError;

pub use arguments::BakeArguments;
pub use rules::{ChosenRules, RulesChoice};
pub use share::Share;
pub use traces::Trace;
pub(crate) use write::read_key;
pub use write::{Baked, Told, bake};

/// Why an image cannot be baked. Nothing is written then.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The root of the tree cannot be opened.
    #[error("open the root of the tree {}", shown(path))]
    Root {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk image that cannot be read.
    #[error("bake from the disk {}", shown(path))]
    Disk {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<source::disk::DiskError>,
    },
    /// A tar that cannot be read.
    #[error("bake from the tar {}", shown(path))]
    Archive {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<source::archive::ArchiveError>,
    },
    /// An agent ran in the image.
    #[error(
        "{found} is left from an agent that ran here, and every instance would be that one: stop the agent, run `rm -rf {state}/*`, and bake again"
    )]
    Identity {
        /// The first of its files.
        found: String,
        /// The state directory, as it is reached from here.
        state: String,
    },
    /// With `--strict`, what would be warned about.
    #[error("the image has {count} traces of an instance: {list}")]
    Traces {
        /// How many.
        count: usize,
        /// The paths of the first.
        list: String,
    },
    /// A file of the tree or of the command line that cannot be read.
    #[error("read {}", shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("write {}", shown(path))]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What cannot be read cannot be promised.
    #[error(
        "{count} paths could not be read, the first is {first}: a manifest must hold everything"
    )]
    Gaps {
        /// How many.
        count: usize,
        /// The first, with the reason.
        first: String,
    },
    /// A file system of the image's fstab is not mounted.
    #[error(
        "{0} is in the image's fstab and not mounted: mount it, or bake with `--filesystem none`"
    )]
    FilesystemMissing(TreePath),
    /// No rules are known for what the image is.
    #[error(
        "there are no rules for {0}: give some with `--rules FILE`, or `--rules none` to allow nothing at all"
    )]
    UnknownDistribution(String),
    /// A rule file that is wrong.
    #[error("read rules")]
    RuleFile(#[from] drift::rules::BadRuleFile),
    /// Rules that do not go together.
    #[error("put the rules together")]
    Rules(#[from] drift::rules::RulesError),
    /// A package database that cannot be read: what it would say of the paths is part of the manifest.
    #[error("find out which packages own the paths")]
    Packages(#[from] PackagesError),
    /// Rules that leave too much unheld.
    #[error(
        "{volatile} of {all} executables lie under `volatile` rules, which is more than {} %: nobody would notice a changed one. Narrow these rules: {rules}",
        Share::MAX_EXECUTABLE_PERCENT
    )]
    TooVolatile {
        /// Executables under volatile rules.
        volatile: u64,
        /// All executables.
        all: u64,
        /// The rules, worst first.
        rules: String,
    },
    /// Entries that do not make a manifest.
    #[error("make the manifest")]
    Build(#[from] BuildError),
    /// A name or version that cannot be one.
    #[error("--{flag} {value:?}")]
    Argument {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        #[source]
        source: drift::statement::BadText,
    },
    /// A signing key that is none.
    #[error("read the signing key {}", shown(path))]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: drift::key::KeyError,
    },
    /// The signature could not be made.
    #[error("sign the manifest")]
    Sign(#[source] drift::key::NoRandomness),
    /// It was told to end.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl BakeError {
    /// The root of a tree that a walk could not open.
    fn unopened(source: io::Error) -> Self {
        BakeError::Root {
            path: "/".into(),
            source,
        }
    }
}

pub(crate) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}
