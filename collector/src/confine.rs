//! Receives the data directory; from then on this thread, and those that it starts, write below it alone and start no
//! program (Landlock).
//!
//! Reading stays free, since the fleets file lies where the operator wants it and names are looked up by the host's own
//! libraries, and so does the network. The operator's replacer programs are not in it: a domain is inherited by whatever
//! one starts, and no drop-in of a unit gives back what it takes. [`Launcher`](crate::replace::Launcher) starts them.

use std::path::Path;

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// The newest version of Landlock whose rights were looked at one by one; an older kernel has fewer of them.
const KNOWN: ABI = ABI::V5;

/// Why writes stay as free as they were.
#[derive(Debug, thiserror::Error)]
enum ConfineError {
    #[error(transparent)]
    Open(#[from] PathFdError),
    #[error(transparent)]
    Restrict(#[from] RulesetError),
}

/// Lets this thread, and those that it starts, write below `data` alone, and logs where that does not hold.
///
/// Call it when the directory is there and before a thread is started that is to be confined. A kernel without Landlock is
/// no reason not to collect.
pub fn write_only_below(data: &Path) {
    match restrict(data) {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(RulesetStatus::PartiallyEnforced) => tracing::info!(
            "this kernel's Landlock is old: not everything that could be written beyond the data directory is forbidden"
        ),
        Ok(RulesetStatus::NotEnforced) => tracing::info!(
            "this kernel has no Landlock: nothing but file modes and the unit keep writes to the data directory"
        ),
        Err(error) => tracing::warn!(
            error = crate::api::error_chain(&error),
            "writes are not kept to the data directory"
        ),
    }
}

fn restrict(data: &Path) -> Result<RulesetStatus, ConfineError> {
    let writing = AccessFs::from_write(KNOWN);
    let rules = Ruleset::default()
        .handle_access(writing | AccessFs::Execute)?
        .create()?;
    let place = PathBeneath::new(PathFd::new(data)?, writing);
    Ok(rules.add_rule(place)?.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;

    use tokio::process::Command as Program;

    use super::*;
    use crate::replace::Launcher;

    /// Runs `story` on a thread that may write below the first directory alone, if this kernel has Landlock: it is for good.
    fn confined(story: impl FnOnce(&Path, &Path) + Send) {
        let home = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (home.path().join("data"), home.path().join("elsewhere"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::thread::scope(|scope| {
            let story = scope.spawn(|| match restrict(&data).unwrap() {
                RulesetStatus::FullyEnforced => story(&data, &elsewhere),
                less => {
                    assert!(
                        std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none(),
                        "{less:?}"
                    );
                    println!("skipped: this kernel's Landlock holds no more than {less:?}");
                }
            });
            story.join().unwrap();
        });
    }

    #[test]
    fn beyond_its_data_nothing_is_written_and_nothing_is_started() {
        confined(|data, elsewhere| {
            fs::write(data.join("file"), "new").unwrap();
            fs::rename(data.join("file"), data.join("whole")).unwrap();
            std::os::unix::fs::symlink(elsewhere, data.join("out")).unwrap();
            for place in [elsewhere.to_owned(), data.join("out"), "/tmp".into()] {
                let error = fs::write(place.join("driftmark-confined"), "").unwrap_err();
                assert_eq!(error.kind(), PermissionDenied, "{}", place.display());
            }
            let error = Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.kind(), PermissionDenied);
            assert!(fs::read("/etc/passwd").is_ok());
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
        });
    }

    #[test]
    fn a_program_is_as_free_as_the_thread_that_starts_it() {
        let launcher = Launcher::start().unwrap();
        confined(|_, elsewhere| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap();
            let mut program = Program::new("/bin/sh");
            program
                .args(["-c", "echo written > file"])
                .current_dir(elsewhere);
            let ended = runtime.block_on(async {
                let mut launched = launcher.launch(program).await.unwrap();
                launched.child.wait().await.unwrap()
            });
            assert!(ended.success());
            let written = fs::read_to_string(elsewhere.join("file"));
            assert_eq!(written.unwrap(), "written\n");
        });
    }
}
