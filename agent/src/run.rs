//! Receives a configuration; runs as the daemon until it is told to stop.
//!
//! One thread of tokio does everything but the scans, which have a thread of their own. What to do is decided by the
//! [`Sentinel`](crate::sentinel::Sentinel); here it is done.
//!
//! - [`daemon`]: the loop, and what happens in it.
//! - [`last_seen`]: until when all was seen, for the start after this one.
//! - [`link`]: the collector: who we are to it, and when to try again.
//! - [`scanner`]: the thread that scans.
//! - [`sight`]: what is seen between scans.
//! - [`sweeper`]: the thread that looks at the processes.
//! - [`guard`]: what does not run.
//! - [`first_boot`]: when what may change once may no longer change.
//! - [`state`]: where the agent keeps what must outlive it, whatever the disk is like.
//! - [`waiting`]: where an agent that is not enrolled waits for its token and its configuration.
//! - [`watch`]: notices that files in a directory were replaced.

mod backoff;
mod daemon;
mod first_boot;
mod guard;
mod last_seen;
mod link;
mod scanner;
mod sight;
mod state;
mod sweeper;
mod waiting;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{self, Config, EXIT_CONFIG};
use crate::confine;
use crate::identity::{IdentityError, KeyError};
use crate::log::{self, Chain};
use crate::state_files::StateError;
use crate::supervise::Keeper;

pub use first_boot::FirstBoot;

/// `EX_SOFTWARE`, `EX_CANTCREAT` of `sysexits.h`.
const EXIT_SOFTWARE: u8 = 70;
const EXIT_CANNOT_CREATE: u8 = 73;
/// `EX_TEMPFAIL`.
const EXIT_LATER: u8 = 75;

/// `run`: the daemon. Ends 0 when it was told to stop.
pub fn run(file: Option<&Path>) -> ExitCode {
    // Before anything is opened.
    let keeper = Arc::new(Keeper::of_this_start());
    let surroundings = config::Surroundings::of_process();
    let sources = Sources {
        file,
        surroundings: &surroundings,
        keeper: &keeper,
    };
    let mut config = match sources.load() {
        Ok(config) => config,
        Err(error) => return config::refuse(&error),
    };
    log::start(config.log);
    driftmark_kernel::process::share_heap();
    confine::give_up_capabilities();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)
        .and_then(|runtime| {
            let outcome = runtime.block_on(async {
                loop {
                    match daemon::run(config, sources).await? {
                        Ended::Told => return Ok(()),
                        Ended::Reconfigured(other) => config = *other,
                    }
                }
            });
            // A name that is still being looked up keeps nobody from ending.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the agent ends");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Where the configuration comes from: it is looked at again until the instance is enrolled. And what an agent before this
/// one has left behind.
#[derive(Debug, Clone, Copy)]
struct Sources<'a> {
    file: Option<&'a Path>,
    surroundings: &'a config::Surroundings,
    keeper: &'a Arc<Keeper>,
}

impl Sources<'_> {
    fn load(self) -> Result<Config, config::ConfigError> {
        config::load(self.file, self.surroundings)
    }
}

/// Why the daemon's loop ended without an error.
enum Ended {
    /// It was told to.
    Told,
    /// Another configuration appeared before the instance was enrolled: everything begins again with it.
    Reconfigured(Box<Config>),
}

/// Why the daemon ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No runtime.
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Its own files.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS or HTTP.
    #[error(transparent)]
    Client(#[from] crate::client::ClientError),
    /// No randomness.
    #[error("get random bits")]
    Randomness,
    /// Another agent uses this state directory.
    #[error("another agent runs with the state directory {}", .0.display())]
    AlreadyRuns(PathBuf),
    /// The thread that scans is gone.
    #[error("the thread that scans has ended")]
    Scanner,
}

impl RunError {
    fn exit_code(&self) -> u8 {
        match self {
            RunError::Identity(IdentityError::Key(KeyError::Exposed { .. })) => EXIT_CONFIG,
            RunError::State(_) | RunError::Identity(_) => EXIT_CANNOT_CREATE,
            RunError::AlreadyRuns(_) => EXIT_LATER,
            _ => EXIT_SOFTWARE,
        }
    }
}

/// The kernel's id of this boot; empty where there is none.
pub fn boot_id() -> String {
    driftmark_kernel::boot::boot_id().unwrap_or_default()
}
