//! Receives what is open on an instance, hands on which of it people may see as one line for each package.
//!
//! What the host's package database says is the host's: whoever changed a file could change the database too. So it
//! groups what is printed and nothing else, and only where everything that can be checked agrees: the content is what
//! the database says that the package brings, only content differs, the file runs with nobody else's rights, the version
//! is not the image's, and the collector's own copy of the manifest does not know the path as somebody else's. Whatever
//! does not fit keeps a line of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use drift::TreePath;
use drift::entry::{Attribute, AttributeSet, Shown};
use drift::finding::{Drift, DriftId, DriftKind, HostPackage};
use drift::manifest::Package;
use serde::{Deserialize, Serialize};

use crate::instance::severity;
use crate::store::drifts::Opened;

/// What an installed package explains, if the host's word is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownTransaction {
    /// The package; none for the package database's own files.
    pub name: Option<String>,
    /// Its version in the image, from the collector's own copy of the manifest; none if the image has no such package.
    pub before: Option<String>,
    /// Its version on the host, by the host's own database.
    pub version: Option<String>,
    /// How many drifts that is.
    pub files: u64,
    /// The gravest of them.
    pub severity: String,
    /// The programs that did it, by the host's word, where its watch saw that: at most four.
    #[serde(default)]
    pub programs: Vec<String>,
    /// How far that can be trusted: `host database, unsigned`.
    pub trust: String,
}

/// What the image has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InImage {
    /// The entry.
    pub(super) shown: Shown,
    /// The package that owns it.
    pub(super) package: Option<Package>,
}

/// What is known of the image, from the collector's own copy of its manifest.
#[derive(Debug, Default)]
pub(super) struct Image {
    /// What it has at the paths that drifted.
    pub(super) at: HashMap<TreePath, InImage>,
    /// All its packages; none if the manifest cannot be read, and then nothing is grouped.
    pub(super) packages: Option<Vec<Package>>,
}

/// What is grouped.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// One line each.
    pub(super) lines: Vec<ShownTransaction>,
    members: HashSet<DriftId>,
}

/// By package and version; the database's own files come last.
type Key = (bool, Option<String>, Option<String>);

/// What becomes a line.
#[derive(Debug, Default)]
struct Gathered {
    before: Option<String>,
    rank: i64,
    files: u64,
    programs: BTreeSet<String>,
}

/// How many programs a line names.
const MOST_PROGRAMS: usize = 4;

impl Transactions {
    pub(super) fn of(open: &[Opened], image: &Image) -> Self {
        let Some(packages) = &image.packages else {
            return Transactions::default();
        };
        let mut gathered: BTreeMap<Key, Gathered> = BTreeMap::new();
        let mut members = HashSet::new();
        let mut gather = |open: &Opened, key: Key, before: Option<String>| {
            let line = gathered.entry(key).or_insert_with(|| Gathered {
                before,
                rank: open.rank,
                ..Gathered::default()
            });
            line.rank = line.rank.max(open.rank);
            line.files += 1;
            if line.programs.len() < MOST_PROGRAMS {
                line.programs.extend(open.drift.as_ref().and_then(program));
            }
            members.insert(open.id);
        };
        // An agent's word on what a package brings is one thing, the collector's own findings are another.
        let drifts = || {
            let whole = |open: &&Opened| !open.raised;
            open.iter()
                .filter(whole)
                .filter_map(|open| open.drift.as_ref().map(|drift| (open, drift)))
        };
        let mut touched: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();
        for (open, drift) in drifts() {
            let Some(host) = open.package.as_ref() else {
                continue;
            };
            if let Some(before) = explained(drift, host, image, packages) {
                touched.insert(host.name.clone(), (host.version.clone(), before.clone()));
                let key = (false, Some(host.name.clone()), Some(host.version.clone()));
                gather(open, key, before);
            }
        }
        for (open, drift) in drifts().filter(|(open, _)| open.package.is_none()) {
            if let Some((name, version, before)) = gone(drift, image, &touched) {
                gather(open, (false, Some(name), Some(version)), before);
            } else if !touched.is_empty() && is_database(drift) {
                gather(open, (true, None, None), None);
            }
        }
        let lines = gathered
            .into_iter()
            .map(|((_, name, version), line)| ShownTransaction {
                name,
                before: line.before,
                version,
                files: line.files,
                severity: severity(line.rank).to_string(),
                programs: line.programs.into_iter().collect(),
                trust: HostPackage::TRUST.to_owned(),
            })
            .collect();
        Transactions { lines, members }
    }

    /// Whether a drift is in one of the lines.
    pub(super) fn hold(&self, open: &Opened) -> bool {
        !open.raised && self.members.contains(&open.id)
    }
}

/// The program that did it.
fn program(drift: &Drift) -> Option<String> {
    let process = drift.attribution.as_ref()?.process.as_ref()?;
    Some(process.executable.as_ref()?.path.clone())
}

/// Whether the installation or upgrade of the package that is said to own a path would do just this: the version that
/// the image has of it, if any.
fn explained(
    drift: &Drift,
    host: &HostPackage,
    image: &Image,
    packages: &[Package],
) -> Option<Option<String>> {
    const CONTENT: AttributeSet =
        AttributeSet::of(&[Attribute::Size, Attribute::Content, Attribute::Links]);
    let found = drift.found.as_ref()?;
    let is_build_id = is_build_id(drift, found);
    if !is_plain(found) && !is_build_id {
        return None;
    }
    let there = image.at.get(&drift.path);
    let fits = match (&drift.kind, there) {
        // A package has no digest of a directory or a link.
        (DriftKind::Added, None) => host.matches || found.kind == "directory" || is_build_id,
        (DriftKind::Changed, Some(there)) => {
            let owned = there.package.as_ref();
            host.matches
                && drift.changed.without(CONTENT).is_empty()
                && owned.is_some_and(|package| package.name == host.name)
        }
        _ => false,
    };
    if !fits {
        return None;
    }
    let versions: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package.name == host.name)
        .map(|package| package.version.as_str())
        .collect();
    // The very version that the image has brings what the image has.
    if versions.contains(host.version.as_str()) {
        return None;
    }
    Some(versions.first().map(|version| (*version).to_owned()))
}

/// Whether a path is one of the links by which debuggers find a program: every package of an rpm distribution that has
/// programs has them, with other names in each version, and nothing is run by them.
fn is_build_id(drift: &Drift, found: &Shown) -> bool {
    found.kind == "symlink" && drift.path.as_bytes().starts_with(b"usr/lib/.build-id/")
}

/// A file or directory that gives nobody more than its owner's rights, and that not everybody may write.
fn is_plain(found: &Shown) -> bool {
    let mode = found.mode.bits();
    let kind = match &*found.kind {
        "file" => mode & 0o7000 == 0,
        "directory" => mode & 0o5000 == 0,
        _ => false,
    };
    kind && mode & 0o002 == 0 && !found.xattr.contains_key("security.capability")
}

/// What the new version of a package no longer has: the package, its version and the image's.
fn gone(
    drift: &Drift,
    image: &Image,
    touched: &BTreeMap<String, (String, Option<String>)>,
) -> Option<(String, String, Option<String>)> {
    if drift.kind != DriftKind::Removed {
        return None;
    }
    let package = image.at.get(&drift.path)?.package.as_ref()?;
    let (version, before) = touched.get(&package.name)?;
    Some((package.name.clone(), version.clone(), before.clone()))
}

/// Whether a path is the package database's own, written by every transaction. The scripts of packages lie there too:
/// they run as root, so they are no part of it.
fn is_database(drift: &Drift) -> bool {
    const DATA: [&str; 8] = [
        "list",
        "md5sums",
        "conffiles",
        "shlibs",
        "symbols",
        "triggers",
        "templates",
        "sha256sums",
    ];
    let plain = drift.found.as_ref().is_none_or(is_plain);
    let kind = matches!(
        drift.kind,
        DriftKind::Added | DriftKind::Changed | DriftKind::Removed
    );
    let Ok(path) = std::str::from_utf8(drift.path.as_bytes()) else {
        return false;
    };
    let is_data = match path.strip_prefix("var/lib/dpkg/") {
        Some(
            "status" | "status-old" | "available" | "available-old" | "lock" | "lock-frontend",
        ) => true,
        Some(below) => below
            .strip_prefix("info/")
            .and_then(|file| file.rsplit_once('.'))
            .is_some_and(|(_, ending)| DATA.contains(&ending)),
        None => {
            // SQLite's log and its index lie beside the database.
            let database = path
                .strip_suffix("-wal")
                .or_else(|| path.strip_suffix("-shm"));
            let path = database
                .filter(|database| database.ends_with(".sqlite"))
                .unwrap_or(path);
            [
                "var/lib/apt/extended_states",
                "lib/apk/db/installed",
                "usr/lib/apk/db/installed",
                "usr/lib/sysimage/rpm/rpmdb.sqlite",
                "usr/lib/sysimage/rpm/.rpm.lock",
                "var/lib/rpm/rpmdb.sqlite",
                "var/lib/rpm/.rpm.lock",
                "var/lib/dnf/history.sqlite",
            ]
            .contains(&path)
        }
    };
    kind && plain && is_data
}

#[cfg(test)]
mod tests;
