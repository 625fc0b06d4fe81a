//! Receives the places that a command writes; from then on it can write nowhere else, start no program and speak to
//! nobody (Landlock).
//!
//! Reading is left alone: a bake and a check read everything. What was opened before stays usable.

use std::fmt;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// The newest version of Landlock whose rights were looked at one by one; an older kernel has fewer of them.
const KNOWN: ABI = ABI::V5;

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
pub fn only_at(places: &[Place<'_>]) -> Writes {
    match restrict(places) {
        Ok(RulesetStatus::FullyEnforced) => Writes::Confined,
        Ok(RulesetStatus::PartiallyEnforced) => Writes::Partly,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Writes::Free,
    }
}

fn restrict(places: &[Place<'_>]) -> Result<RulesetStatus, RulesetError> {
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
        let directory = absolute.ancestors().find_map(|path| PathFd::new(path).ok());
        if let Some(directory) = directory {
            rules = rules.add_rule(PathBeneath::new(directory, rights))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
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

    use super::*;

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
            match only_at(&[
                Place::Below(&mine.join("to/come")),
                Place::RemovedFrom(&tidied),
            ]) {
                Writes::Confined => {}
                less => {
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
                let is_refused = [PermissionDenied, std::io::ErrorKind::CrossesDevices];
                assert!(is_refused.contains(&error.kind()), "{what}: {error}");
            }
        });
        story.join().unwrap();
        drop(listener);
    }
}
