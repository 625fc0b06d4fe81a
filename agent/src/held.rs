//! Receives held values as scans see them; hands on how long each append-only file was at first sight.
//!
//! Only a cache: the collector keeps the first value of every path and raises drift where a later one differs. What the
//! scan needs of it is the length up to which an append-only file is hashed again. A value is cached at first sight
//! and never moves, because the collector compares with the first one that it was told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drift::report::HeldValue;
use drift::{Blake3, TreePath};
use serde::{Deserialize, Serialize};

use crate::state_files::{self, StateError};

/// The values that are held on this instance, as far as this agent remembers.
#[derive(Debug, Default)]
pub struct HeldCache {
    file: Option<PathBuf>,
    values: BTreeMap<TreePath, First>,
    changed: bool,
}

/// One value at first sight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct First {
    path: TreePath,
    value: Option<Blake3>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    values: Vec<First>,
}

/// More paths than any image leaves open; further ones are reported but not cached.
const MAX_VALUES: usize = 100_000;
/// Room for [`MAX_VALUES`] of ordinary length.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
const VERSION: u32 = 1;

impl HeldCache {
    /// The cache of `state_directory`. One that is missing or cannot be understood is an empty one: the collector
    /// still holds the first values.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(state_directory: &Path) -> Result<Self, StateError> {
        let file = state_directory.join("held.json");
        let stored = state_files::read(&file, MAX_FILE_BYTES)?;
        let stored = stored.and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
        let values = stored
            .filter(|stored| stored.version == VERSION)
            .map(|stored| stored.values)
            .unwrap_or_default();
        let values = values
            .into_iter()
            .take(MAX_VALUES)
            .map(|first| (first.path.clone(), first))
            .collect();
        Ok(HeldCache {
            file: Some(file),
            values,
            changed: false,
        })
    }

    /// How long an append-only file was when it was first held; none for what is not held yet.
    pub fn length_of(&self, path: &TreePath) -> Option<u64> {
        self.values.get(path)?.length
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Keeps `held` if its path is new.
    pub fn keep(&mut self, held: &HeldValue) {
        if self.values.len() >= MAX_VALUES || self.values.contains_key(&held.path) {
            return;
        }
        let first = First {
            path: held.path.clone(),
            value: held.value,
            length: held.length,
        };
        self.values.insert(held.path.clone(), first);
        self.changed = true;
    }

    /// Makes durable what [`HeldCache::keep`] added.
    ///
    /// # Errors
    /// It could not be written; it is tried again next time.
    pub fn save(&mut self) -> Result<(), StateError> {
        let Some(file) = self.file.as_ref().filter(|_| self.changed) else {
            return Ok(());
        };
        let stored = Stored {
            version: VERSION,
            values: self.values.values().cloned().collect(),
        };
        state_files::replace(file, &serde_json::to_vec(&stored).expect("plain structs"))?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(path: &[u8], length: u64) -> HeldValue {
        HeldValue {
            path: TreePath::new(path).unwrap(),
            value: Some(Blake3::of(path)),
            length: Some(length),
            prefix: None,
        }
    }

    #[test]
    fn the_first_length_is_held_over_restarts_and_never_moves() {
        let home = tempfile::tempdir().unwrap();
        let mut cache = HeldCache::open(home.path()).unwrap();
        cache.keep(&held(b"var/log/a\xff", 10));
        cache.keep(&held(b"var/log/a\xff", 20));
        cache.save().unwrap();
        let again = HeldCache::open(home.path()).unwrap();
        assert_eq!(
            again.length_of(&TreePath::new(b"var/log/a\xff").unwrap()),
            Some(10)
        );
        assert_eq!(again.length_of(&TreePath::new(b"var/log/b").unwrap()), None);
    }

    #[test]
    fn a_cache_that_cannot_be_understood_is_an_empty_one() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("held.json"), "{\"version\":1,").unwrap();
        assert!(HeldCache::open(home.path()).unwrap().is_empty());
    }
}
