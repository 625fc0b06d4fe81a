//! Receives the configured state directory; hands on one that can be worked in, and says what is wrong with it.
//!
//! No disk keeps an agent from verifying: one that is full is waited for, and where nobody can write (a read-only root,
//! a disk that the kernel gave up on) the runtime directory has to do: an identity survives a restart there, though no
//! reboot. An identity goes along, in either direction, so the same instance speaks from both.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use drift::report::RunId;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{FlockOperation, StatVfsMountFlags};

use super::RunError;
use crate::identity::Store;
use crate::log::Chain;
use crate::state_files::{self, StateError};

/// Where the agent keeps what must outlive it.
#[derive(Debug)]
pub(super) struct StateDirectory {
    path: PathBuf,
    /// What is wrong with it, in words for people.
    trouble: Option<String>,
    /// Whether it is the one that is lost with the next boot.
    pub(super) is_volatile: bool,
    /// Held as long as the daemon lives.
    _lock: Option<File>,
}

/// What may wait in a volatile directory: it is memory.
pub(super) const MAX_VOLATILE_SPOOL_BYTES: u64 = 8 * 1024 * 1024;

impl StateDirectory {
    /// The configured one, or, where nobody can write it, one beside the status socket. Keeps every other agent out.
    ///
    /// # Errors
    /// Another agent uses it.
    pub(super) fn open(configured: &Path, status_socket: &Path) -> Result<Self, RunError> {
        let volatile = status_socket
            .parent()
            .unwrap_or(Path::new("/run"))
            .join("state");
        let made = state_files::make_directory(configured);
        let is_volatile = is_read_only(configured);
        let (path, other) = if is_volatile {
            (volatile.as_path(), configured)
        } else {
            (configured, volatile.as_path())
        };
        let read_only = is_volatile.then(|| {
            format!(
                "{} is on a read-only file system: identity and reports are kept in {} until the next boot",
                configured.display(),
                volatile.display()
            )
        });
        let problem = made
            .and_then(|()| state_files::make_directory(path))
            .and_then(|()| Store::carry(other, path));
        let mut state = Self {
            trouble: read_only.or_else(|| problem.err().map(|error| Chain(&error).to_string())),
            path: path.to_owned(),
            is_volatile,
            _lock: None,
        };
        match lock(&state.path) {
            Ok(lock) => state._lock = Some(lock),
            Err(RunError::State(error)) => state.is_wrong(&error),
            Err(error) => return Err(error),
        }
        Ok(state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// It can be written again.
    pub(super) fn is_well(&mut self) {
        if !self.is_volatile {
            self.trouble = None;
        }
    }

    /// This start, and the one before if this directory remembers it.
    ///
    /// # Errors
    /// There is no randomness. A start that cannot be remembered is one all the same.
    pub(super) fn begin_run(&mut self) -> Result<(RunId, Option<RunId>), RunError> {
        let file = self.path.join("run");
        let previous = state_files::read(&file, 64).ok().flatten();
        let previous = String::from_utf8_lossy(&previous.unwrap_or_default())
            .trim()
            .parse()
            .ok();
        let mut bits = [0; 16];
        SystemRandom::new()
            .fill(&mut bits)
            .map_err(|_| RunError::Randomness)?;
        let run = RunId(bits);
        if let Err(error) = state_files::replace(&file, run.to_string().as_bytes()) {
            self.is_wrong(&error);
        }
        Ok((run, previous))
    }

    fn is_wrong(&mut self, error: &StateError) {
        self.trouble.get_or_insert_with(|| Chain(error).to_string());
    }
}

/// Whether nobody can write there: asked of what is there of the path.
fn is_read_only(path: &Path) -> bool {
    path.ancestors()
        .find_map(|ancestor| rustix::fs::statvfs(ancestor).ok())
        .is_some_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Keeps every other agent out of this state directory for as long as the file is open.
fn lock(directory: &Path) -> Result<File, RunError> {
    let path = directory.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(StateError::at("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RunError::AlreadyRuns(directory.to_owned())),
        Err(error) => Err(StateError::at("lock", &path)(error.into()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_made_keeps_no_agent_from_running_and_is_named() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let configured = home.path().join("file/state");
        let mut state =
            StateDirectory::open(&configured, &home.path().join("run/agent.sock")).unwrap();
        let trouble = state.trouble().unwrap().to_owned();
        assert!(trouble.contains("file/state"), "{trouble}");
        let (first, previous) = state.begin_run().unwrap();
        assert_eq!(previous, None);
        assert_ne!(first, state.begin_run().unwrap().0);
    }

    #[test]
    fn two_agents_never_share_a_directory_and_a_start_is_remembered() {
        let home = tempfile::tempdir().unwrap();
        let (configured, socket) = (home.path().join("state"), home.path().join("agent.sock"));
        let mut state = StateDirectory::open(&configured, &socket).unwrap();
        assert_eq!((state.trouble(), state.is_volatile), (None, false));
        let (run, _) = state.begin_run().unwrap();
        assert!(matches!(
            StateDirectory::open(&configured, &socket),
            Err(RunError::AlreadyRuns(_))
        ));
        drop(state);
        let mut again = StateDirectory::open(&configured, &socket).unwrap();
        assert_eq!(again.begin_run().unwrap().1, Some(run));
    }
}
