//! Receives the places that a command writes; from then on it can write nowhere else, start no program file and open no
//! TCP connection (Landlock).
//!
//! Reading is left alone: a bake and a check read everything. What was opened before stays usable, and UDP and Unix
//! sockets stay open. All of it from Linux 6.10 on; of older kernels, 6.7 holds TCP and 6.2 that no file is cut.

use std::path::Path;
use std::{fmt, io};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// The newest version of Landlock whose rights were looked at one by one; an older kernel has fewer of them.
const KNOWN: ABI = ABI::V5;

/// Why writes stay as free as they were.
#[derive(Debug, thiserror::Error)]
pub enum RestrictError {
    /// A place that is written cannot be opened.
    #[error("open a place that is to be written")]
    Open(#[from] PathFdError),
    /// The kernel's own refusal.
    #[error("confine writes by Landlock")]
    Restrict(#[from] RulesetError),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Everything that was asked for holds.
    Confined,
    /// This kernel's Landlock is older, and holds what it knows.
    Partly,
    /// This kernel has none, or it is switched off.
    Free,
}

/// Where a command writes.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// Everything below this. If it does not exist yet, the nearest directory above it that does stands for it.
    Below(&'a Path),
    /// A directory of its own goes from here when it ends: whatever is a directory may be removed, if it is empty.
    RemovedFrom(&'a Path),
}

/// Lets this process write at `places` alone.
///
/// It holds for this thread and those that it starts: call it before the threads that read are started.
///
/// # Errors
/// A place cannot be opened, or the kernel refuses: writes are as free as they were.
pub fn only_at(places: &[Place<'_>]) -> Result<Writes, RestrictError> {
    let writing: BitFlags<AccessFs> = AccessFs::from_write(KNOWN);
    let mut rules = Ruleset::default()
        .handle_access(writing | AccessFs::Execute)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .create()?;
    for place in places {
        let (place, rights) = match place {
            Place::Below(place) => (place, writing),
            Place::RemovedFrom(place) => (place, AccessFs::RemoveDir.into()),
        };
        let absolute = std::path::absolute(place).unwrap_or_else(|_| place.to_path_buf());
        rules = rules.add_rule(PathBeneath::new(nearest(&absolute)?, rights))?;
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Writes::Confined,
        RulesetStatus::PartiallyEnforced => Writes::Partly,
        RulesetStatus::NotEnforced => Writes::Free,
    })
}

/// The path, or of the directories above it the nearest that is there. One that cannot be opened is not passed over: what
/// is above it is more than what was asked for.
fn nearest(path: &Path) -> Result<PathFd, PathFdError> {
    let mut last = PathFd::new(path);
    for above in path.ancestors().skip(1) {
        match last {
            Err(PathFdError::OpenCall { ref source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                last = PathFd::new(above);
            }
            _ => break,
        }
    }
    last
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Writes::Confined => "it can write to its own place alone",
            Writes::Partly => {
                "this kernel's Landlock is old: not everything that it could write elsewhere is forbidden to it"
            }
            Writes::Free => "this kernel has no Landlock: nothing but file modes keeps it from writing elsewhere",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;

    use super::super::not_to_be_skipped;
    use super::*;

    #[test]
    fn a_place_that_is_not_there_is_its_nearest_directory_and_one_that_cannot_be_opened_is_none() {
        let home = tempfile::tempdir().unwrap();
        assert!(nearest(&home.path().join("to/come")).is_ok());
        std::os::unix::fs::symlink("round", home.path().join("round")).unwrap();
        assert!(nearest(&home.path().join("round/to/come")).is_err());
    }

    #[test]
    fn beyond_its_place_nothing_is_written_started_or_reached() {
        let home = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mine, other) = (home.path().join("mine"), home.path().join("other"));
        let tidied = home.path().join("tidied");
        fs::create_dir(&mine).unwrap();
        fs::create_dir_all(tidied.join("own")).unwrap();
        fs::write(tidied.join("file"), "").unwrap();
        fs::write(&other, "as it was").unwrap();
        // Landlock is a thread's own; this test's process stays as it is.
        let story = std::thread::spawn(move || {
            let places = [
                Place::Below(&mine.join("to/come")),
                Place::RemovedFrom(&tidied),
            ];
            match only_at(&places).unwrap() {
                Writes::Confined => {}
                less => {
                    not_to_be_skipped(&less.to_string());
                    println!("skipped: {less}");
                    return;
                }
            }
            fs::create_dir_all(mine.join("to/come")).unwrap();
            fs::write(mine.join("to/come/file"), "new").unwrap();
            fs::rename(mine.join("to/come/file"), mine.join("file")).unwrap();
            assert_eq!(fs::read_to_string(&other).unwrap(), "as it was");
            fs::remove_dir(tidied.join("own")).unwrap();
            let refused = [
                ("write", fs::write(&other, "").err()),
                (
                    "truncate",
                    fs::File::options()
                        .append(true)
                        .open(&other)
                        .and_then(|file| file.set_len(0))
                        .err(),
                ),
                ("remove", fs::remove_file(&other).err()),
                ("remove a file", fs::remove_file(tidied.join("file")).err()),
                ("move away", fs::rename(&other, mine.join("other")).err()),
                ("make", fs::create_dir(other.with_extension("new")).err()),
                (
                    "start",
                    std::process::Command::new("/bin/true").status().err(),
                ),
                ("reach", std::net::TcpStream::connect(address).err()),
            ];
            for (what, error) in refused {
                let error = error.unwrap_or_else(|| panic!("{what} was not refused"));
                let is_refused = [PermissionDenied, io::ErrorKind::CrossesDevices];
                assert!(is_refused.contains(&error.kind()), "{what}: {error}");
            }
        });
        story.join().unwrap();
        drop(listener);
    }
}
