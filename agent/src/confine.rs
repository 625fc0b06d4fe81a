//! Receives what a command is about to do; hands back a process that can do no more than that.
//!
//! - The daemon keeps three capabilities and its own list of system calls. No Landlock: it is to say which program
//!   another process runs, and a Landlock domain takes that away whatever the capabilities.
//! - `bake` and `check` read anything and write in one place alone ([`writes`], by Landlock).

mod programs;
mod writes;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::log::Chain;

pub use programs::Programs;
pub use writes::{Place, RestrictError, Writes, only_at};

/// How far the daemon has locked itself in, and what it can still see from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The capabilities that it holds; none if the kernel does not say.
    pub capabilities: Option<Vec<String>>,
    /// Whether no program that it could start would have more.
    pub no_new_privileges: bool,
    /// Whether its system calls are filtered, by itself and not only by its unit.
    pub system_calls_filtered: bool,
    /// Which programs of the machine it can name: looked up anew for each question.
    pub programs: Programs,
}

/// Whether the filter is set: it holds for the life of the process.
static FILTERED: OnceLock<bool> = OnceLock::new();

/// Gives up what the daemon never needs. Call it before a second thread is started: capabilities are a thread's own.
pub fn give_up_capabilities() {
    if let Err(error) = driftmark_kernel::confine::give_up_capabilities() {
        tracing::warn!(error = %Chain(&error), "capabilities that are not needed are not given up");
    }
}

/// Filters the system calls of all threads, once for the process. Call it when everything is open.
pub fn filter_calls() {
    FILTERED.get_or_init(|| {
        // A kernel without seccomp is no reason not to verify; `status` says so.
        driftmark_kernel::confine::filter_calls()
            .inspect_err(
                |error| tracing::warn!(error = %Chain(error), "system calls are not filtered"),
            )
            .is_ok()
    });
}

impl Confinement {
    /// As it is now.
    pub fn now() -> Self {
        Confinement {
            capabilities: driftmark_kernel::confine::held_capabilities().ok(),
            no_new_privileges: rustix::thread::no_new_privs().unwrap_or_default(),
            system_calls_filtered: FILTERED.get() == Some(&true),
            programs: Programs::of_others(),
        }
    }

    /// One line for people.
    pub fn for_people(&self) -> String {
        let calls = if self.system_calls_filtered {
            "calls filtered"
        } else {
            "calls NOT filtered"
        };
        let privileges = if self.no_new_privileges {
            ""
        } else {
            ", new privileges possible"
        };
        let capabilities = self.capabilities.as_ref().map_or_else(
            || "capabilities unknown".to_owned(),
            |held| format!("{} capabilities", held.len()),
        );
        format!(
            "{capabilities}, {calls}{privileges}; {}",
            self.programs.for_people()
        )
    }
}

/// Where nothing may be skipped (`DRIFTMARK_NO_SKIPPING`), a test that cannot run has failed.
#[cfg(test)]
fn not_to_be_skipped(why: &str) {
    let is_allowed = std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none();
    assert!(is_allowed, "it must not be skipped here, but {why}");
}
