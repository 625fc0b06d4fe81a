//! Receives what drifted on a host; hands on what the host's own package database says about it.
//!
//! A label is for people: the database is the host's and unsigned, so nothing is decided by it. What it cannot tell, or
//! cannot tell within the limits here, has no label or one that does not match; a scan never fails by it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drift::finding::{Drift, DriftKind, HostPackage};
use drift::manifest::{Filesystem, Package};
use drift::{Blake3, TreePath};
use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::{Budget, Claim, FileDigest, Said, Wanted, claims};
use crate::scan::filesystems::Filesystems;
use crate::scan::mounts;

/// What the host's package database says about drifted paths.
#[derive(Debug, Default)]
pub struct Labels {
    owners: BTreeMap<TreePath, HostPackage>,
    installed: HashSet<String>,
}

/// Reading database and files ends after this, whatever is left then: an upgrade of a whole system takes seconds.
const TIME: Duration = Duration::from_secs(60);
/// Drifted files are read once more, for the digest that the database has, up to this many bytes together.
const CONTENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Large enough that a system call costs little.
const BUFFER_BYTES: usize = 64 * 1024;

/// A drifted path, as far as a label depends on it.
struct Question<'a> {
    path: &'a TreePath,
    /// The digest of what was found, if that is a regular file.
    content: Option<Blake3>,
}

impl Labels {
    /// Asks the databases of the tree at `root` about what drifted there. With no drift nothing is read.
    pub fn read<'a>(
        root: &Path,
        other: &[Filesystem],
        drifts: impl IntoIterator<Item = &'a Drift>,
        interrupt: &AtomicBool,
    ) -> Self {
        let of_files = |kind: &DriftKind| {
            matches!(
                kind,
                DriftKind::Added | DriftKind::Changed | DriftKind::Removed
            )
        };
        let asked = drifts.into_iter().filter(|drift| of_files(&drift.kind));
        let questions: Vec<Question<'_>> = asked
            .map(|drift| Question {
                path: &drift.path,
                content: drift.found.as_ref().and_then(|found| found.content),
            })
            .collect();
        if questions.is_empty() {
            return Labels::default();
        }
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let table = mounts::table(&root).unwrap_or_default();
        match Filesystems::open(&root, other, &table) {
            Ok(filesystems) => Self::answer(&filesystems, &questions, interrupt),
            Err(_) => Labels::default(),
        }
    }

    /// What is said about a path.
    pub fn of(&self, path: &TreePath) -> Option<&HostPackage> {
        self.owners.get(path)
    }

    /// Whether a package of this name is installed.
    pub fn is_installed(&self, name: &str) -> bool {
        self.installed.contains(name)
    }

    /// All that is said about paths.
    pub fn into_owners(self) -> BTreeMap<TreePath, HostPackage> {
        self.owners
    }

    fn answer(
        filesystems: &Filesystems,
        questions: &[Question<'_>],
        interrupt: &AtomicBool,
    ) -> Self {
        let until = Instant::now() + TIME;
        let paths: HashSet<TreePath> = questions
            .iter()
            .map(|question| question.path.clone())
            .collect();
        let mut owners: HashMap<TreePath, (Package, Option<FileDigest>)> = HashMap::new();
        let mut budget = Budget::until(Some(until));
        let wanted = Wanted::These(&paths);
        let mut installed = HashSet::new();
        let read = claims(filesystems, wanted, &mut budget, &mut |said| match said {
            Said::Installed(package) if installed.len() < Package::MAX_COUNT => {
                installed.insert(package.name.clone());
            }
            Said::Installed(_) => {}
            Said::Owns(Claim {
                path,
                package,
                digest,
            }) => {
                // The first in order, as at bake.
                match owners.entry(path) {
                    Entry::Vacant(entry) => {
                        entry.insert((package.clone(), digest));
                    }
                    Entry::Occupied(mut entry) if *package < entry.get().0 => {
                        entry.insert((package.clone(), digest));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        });
        if let Err(error) = read {
            tracing::warn!(error = %crate::log::Chain(&error), "drift is not labelled with the host's packages");
            return Labels::default();
        }
        let mut reading = Rereading {
            filesystems,
            interrupt,
            until,
            left: CONTENT_BYTES,
            buffer: vec![0; BUFFER_BYTES],
        };
        let mut labels = Labels {
            installed,
            ..Labels::default()
        };
        for question in questions {
            let Some((package, digest)) = owners.remove(question.path) else {
                continue;
            };
            let matches = digest
                .zip(question.content)
                .is_some_and(|(digest, content)| reading.agree(question.path, content, &digest));
            let Package { name, version } = package;
            labels.owners.insert(
                question.path.clone(),
                HostPackage {
                    name,
                    version,
                    matches,
                },
            );
        }
        labels
    }
}

/// Reads drifted files once more.
struct Rereading<'a> {
    filesystems: &'a Filesystems,
    interrupt: &'a AtomicBool,
    until: Instant,
    left: u64,
    buffer: Vec<u8>,
}

impl Rereading<'_> {
    /// Whether the very content that was found has the package's digest. What has changed since has not.
    fn agree(&mut self, path: &TreePath, found: Blake3, digest: &FileDigest) -> bool {
        let opened = path.parent().map(|parent| {
            let dir = self.filesystems.directory(&parent)?;
            dir.open_file(path.name())
        });
        match opened {
            Some(Ok(file)) => self.compare(&file, found, digest).unwrap_or(false),
            _ => false,
        }
    }

    fn compare(&mut self, mut file: &File, found: Blake3, digest: &FileDigest) -> io::Result<bool> {
        let mut again = blake3::Hasher::new();
        let mut hasher = Hasher::like(digest);
        loop {
            let count = match file.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                break;
            }
            self.left = self.left.saturating_sub(count as u64);
            let is_over = self.left == 0 || Instant::now() > self.until;
            if is_over || self.interrupt.load(Ordering::Relaxed) {
                return Ok(false);
            }
            again.update(&self.buffer[..count]);
            hasher.update(&self.buffer[..count]);
        }
        Ok(found == again.finalize().into() && hasher.finish() == *digest)
    }
}

enum Hasher {
    Md5(Md5),
    Sha1(ring::digest::Context),
    Sha256(Sha256),
}

impl Hasher {
    fn like(digest: &FileDigest) -> Self {
        match digest {
            FileDigest::Md5(_) => Hasher::Md5(Md5::new()),
            FileDigest::Sha1(_) => Hasher::Sha1(ring::digest::Context::new(
                &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            )),
            FileDigest::Sha256(_) => Hasher::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> FileDigest {
        match self {
            Hasher::Md5(hasher) => FileDigest::Md5(hasher.finalize().into()),
            Hasher::Sha1(hasher) => {
                let digest = hasher.finish();
                FileDigest::Sha1(digest.as_ref().try_into().expect("SHA-1 has 20 bytes"))
            }
            Hasher::Sha256(hasher) => FileDigest::Sha256(hasher.finalize().into()),
        }
    }
}
