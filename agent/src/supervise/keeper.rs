//! Queues of the watch in; the same queues, and what came into them meanwhile, out after a restart.
//!
//! The service manager keeps them (`FileDescriptorStoreMax=`): what happens while no agent is there waits in them.
//! Invariant: only queues that keep nobody waiting. Whoever has to wait for an answer would wait for an agent that is not
//! there, and the machine would stand still.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftmark_kernel::fanotify::Watch;

/// The service manager, as far as it keeps what this service has open. Where there is none, nothing comes back.
#[derive(Debug, Default)]
pub struct Keeper(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    /// What came back and was not taken yet.
    back: Vec<(Kept, OwnedFd)>,
    /// What the manager has.
    kept: Vec<Kept>,
}

/// One of the queues that are kept under a name. There are two for a moment, while one is put in place of another: whatever
/// ends the agent then, one of them comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    name: String,
    number: u64,
}

impl Keeper {
    /// What the manager has passed to this process. Call it before anything is opened.
    pub fn of_this_start() -> Self {
        let passed = driftmark_kernel::process::passed_descriptors().into_iter();
        let mut back: Vec<_> = passed
            .filter_map(|(name, passed)| Some((Kept::parsed(&name)?, passed)))
            .collect();
        // The latest first.
        back.sort_by_key(|(kept, _)| std::cmp::Reverse(kept.number));
        let kept = back.iter().map(|(kept, _)| kept.clone()).collect();
        Keeper(Mutex::new(Content { back, kept }))
    }

    /// What came back under this name, with what was queued meanwhile.
    pub fn take(&self, name: &str) -> Option<Watch> {
        let mut content = self.content();
        let place = content
            .back
            .iter()
            .position(|(kept, _)| kept.name == name)?;
        let (_, kept) = content.back.remove(place);
        Watch::resumed(kept).ok()
    }

    /// Has a queue kept under a name ([`named`]), in place of what was kept under it.
    pub fn keep(&self, name: &str, watch: &Watch) {
        let mut content = self.content();
        let last = content.kept.iter().map(|kept| kept.number).max();
        let kept = Kept {
            name: name.to_owned(),
            number: last.map_or(0, |last| last.saturating_add(1)),
        };
        super::keep(&kept.shown(), watch.as_fd());
        content.retain(|other| other.name != name);
        content.kept.push(kept);
    }

    /// Lets go of all but these: queues of what is not watched any more.
    pub fn keep_only(&self, names: &[&str]) {
        let mut content = self.content();
        content.back.clear();
        content.retain(|kept| names.contains(&kept.name.as_str()));
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn retain(&mut self, is_wanted: impl Fn(&Kept) -> bool) {
        self.kept.retain(|kept| {
            let is_wanted = is_wanted(kept);
            if !is_wanted {
                super::notify(&[("FDSTOREREMOVE", "1"), ("FDNAME", &kept.shown())]);
            }
            is_wanted
        });
    }
}

impl Kept {
    /// None for what is not the watch's: a unit may have other descriptors, of a drop-in's socket.
    fn parsed(text: &str) -> Option<Kept> {
        let (name, number) = text.strip_prefix(OURS)?.rsplit_once('.')?;
        Some(Kept {
            name: name.to_owned(),
            number: number.parse().ok()?,
        })
    }

    fn shown(&self) -> String {
        format!("{OURS}{}.{}", self.name, self.number)
    }
}

/// The name of a queue of this kind (a word) about what `about` tells apart.
pub fn named(kind: &str, about: &[&[u8]]) -> String {
    let mut digest = blake3::Hasher::new();
    for part in about {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digest = digest.finalize().to_hex();
    format!("{kind}-{}", &digest[..NAME_DIGITS])
}

const OURS: &str = "driftmark-";
/// Enough to tell a few dozen apart. A manager takes names of 255 characters.
const NAME_DIGITS: usize = 16;
