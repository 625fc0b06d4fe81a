//! Receives what drifted, labelled; hands on which of it people see as one line for each package.
//!
//! An unattended upgrade is one line and not hundreds. Only the display is grouped, and only what an installation, an
//! upgrade or a removal would do: a file with the digest that the package has for it, in a version that the image does
//! not have, with nothing but its content changed, and no new privilege. Everything else keeps a line of its own, and
//! JSON has one for each drift in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drift::class::Severity;
use drift::entry::{Attribute, AttributeSet, Shown};
use drift::finding::DriftKind;
use drift::manifest::Package;

use super::DriftLine;

/// What is shown as lines on packages.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// One for each package, by name; the database that says so comes last.
    pub(super) groups: Vec<Transaction>,
    members: BTreeSet<usize>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    /// What was done.
    pub(super) what: What,
    /// Whose paths these are.
    name: String,
    /// The worst of them.
    pub(super) severity: Severity,
    /// How many drifts it stands for.
    pub(super) count: usize,
}

/// What was done to a package, versions as image and host have them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Installed { now: String },
    Upgraded { image: String, now: String },
    Removed { image: String },
    Database,
}

impl What {
    pub(super) fn word(&self) -> &'static str {
        match self {
            What::Installed { .. } => "package",
            What::Upgraded { .. } => "upgrade",
            What::Removed { .. } => "purge",
            What::Database => "database",
        }
    }
}

/// Control bytes escaped: names and versions are the host's.
impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &String| drift::escape(text.as_bytes());
        let name = shown(&self.name);
        match &self.what {
            What::Installed { now } => write!(f, "{name} {} installed", shown(now)),
            What::Upgraded { image, now } => {
                write!(f, "{name} {} → {}", shown(image), shown(now))
            }
            What::Removed { image } => write!(f, "{name} {} removed", shown(image)),
            What::Database => write!(f, "the package database itself, in {name}"),
        }
    }
}

/// What a package database keeps beside the packages' own files: each transaction writes here. Ends in `/` for all
/// that is below.
const DATABASES: [(&str, &[&str]); 4] = [
    (
        "/var/lib/dpkg",
        &[
            "/var/lib/dpkg/status",
            "/var/lib/dpkg/status-old",
            "/var/lib/dpkg/available",
            "/var/lib/dpkg/available-old",
            "/var/lib/dpkg/lock",
            "/var/lib/dpkg/lock-frontend",
            "/var/lib/dpkg/triggers/",
            "/var/lib/dpkg/updates/",
            "/var/lib/apt/extended_states",
        ],
    ),
    ("/lib/apk/db", &["/lib/apk/db/", "/usr/lib/apk/db/"]),
    (
        "/var/lib/rpm",
        &[
            "/var/lib/rpm/rpmdb.sqlite",
            "/var/lib/rpm/.rpm.lock",
            "/var/lib/dnf/history.sqlite",
        ],
    ),
    (
        "/usr/lib/sysimage/rpm",
        &[
            "/usr/lib/sysimage/rpm/rpmdb.sqlite",
            "/usr/lib/sysimage/rpm/.rpm.lock",
        ],
    ),
];
/// What dpkg keeps for one package: `info/NAME.list`, `info/NAME.postinst`, …
const DPKG_INFO: &str = "/var/lib/dpkg/info/";

impl Transactions {
    /// Groups what drifted; `packages` are the image's, `installed` says what the host has by name.
    pub(super) fn of(
        drifts: &[DriftLine],
        packages: &[Package],
        installed: &dyn Fn(&str) -> bool,
    ) -> Self {
        let mut gathered: BTreeMap<(String, What), (Severity, usize)> = BTreeMap::new();
        let mut members = BTreeSet::new();
        let mut gather = |nth: usize, name: &str, what: What| {
            let severity = &drifts[nth].severity;
            let (worst, count) = gathered
                .entry((name.to_owned(), what))
                .or_insert((severity.clone(), 0));
            *worst = worst.clone().max(severity.clone());
            *count += 1;
            members.insert(nth);
        };
        let mut touched: BTreeMap<String, What> = BTreeMap::new();
        for (nth, drift) in drifts.iter().enumerate() {
            if let Some((name, what)) = explained(drift, packages) {
                touched.insert(name.to_owned(), what.clone());
                gather(nth, name, what);
            }
        }
        // What a new version no longer has, and what a package that is gone had.
        for (nth, drift) in drifts.iter().enumerate() {
            let Some(package) = &drift.image_package else {
                continue;
            };
            if drift.kind != DriftKind::Removed || drift.host_package.is_some() {
                continue;
            }
            match touched.get(&package.name) {
                Some(what) => gather(nth, &package.name, what.clone()),
                None if !installed(&package.name) => {
                    let image = package.version.clone();
                    let what = What::Removed { image };
                    touched.insert(package.name.clone(), what.clone());
                    gather(nth, &package.name, what);
                }
                None => {}
            }
        }
        for (nth, drift) in drifts.iter().enumerate() {
            if let Some((name, what)) = of_database(drift, &touched) {
                gather(nth, &name, what);
            }
        }
        let mut groups: Vec<Transaction> = gathered
            .into_iter()
            .map(|((name, what), (severity, count))| Transaction {
                what,
                name,
                severity,
                count,
            })
            .collect();
        groups.sort_by_key(|group| group.what == What::Database);
        Transactions { groups, members }
    }

    /// Whether the drift at this place of the list is in a line on a package.
    pub(super) fn holds(&self, nth: usize) -> bool {
        self.members.contains(&nth)
    }

    /// How many drifts are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }
}

/// The package whose installation or upgrade would do just this.
fn explained<'d>(drift: &'d DriftLine, packages: &[Package]) -> Option<(&'d str, What)> {
    const CONTENT: AttributeSet = AttributeSet::of(&[
        Attribute::Size,
        Attribute::Content,
        Attribute::Target,
        Attribute::Links,
    ]);
    let host = drift.host_package.as_ref()?;
    let found = drift.found.as_ref()?;
    let is_plain = match drift.kind {
        DriftKind::Added => !gains(found),
        DriftKind::Changed => drift.changed.without(CONTENT).is_empty(),
        _ => false,
    };
    // A package has no digest of a directory or a link.
    if !is_plain || (found.kind == "file" && !host.matches) {
        return None;
    }
    let now = host.version.clone();
    let in_image: Vec<&Package> = packages
        .iter()
        .filter(|package| package.name == host.name)
        .collect();
    let what = match in_image.first() {
        None => What::Installed { now },
        Some(_) if in_image.iter().any(|package| package.version == now) => return None,
        Some(package) => What::Upgraded {
            image: package.version.clone(),
            now,
        },
    };
    Some((&host.name, what))
}

/// Whether this is a file that gives whoever runs it the rights of another.
fn gains(found: &Shown) -> bool {
    const SETUID_OR_SETGID: u16 = 0o6000;
    let runs_as_other = found.mode.bits() & SETUID_OR_SETGID != 0;
    found.kind == "file" && (runs_as_other || found.xattr.contains_key("security.capability"))
}

/// The line that a path of the database itself belongs to: its package's, if that was touched, or the database's.
fn of_database(drift: &DriftLine, touched: &BTreeMap<String, What>) -> Option<(String, What)> {
    let gains = drift.found.as_ref().is_some_and(gains);
    if touched.is_empty() || drift.kind == DriftKind::Covered || gains {
        return None;
    }
    if let Some(file) = drift.path.strip_prefix(DPKG_INFO) {
        let (name, _) = file.rsplit_once('.')?;
        let bare = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        let (name, what) = touched
            .iter()
            .find(|(touched, _)| *touched == name || bare(touched) == name)?;
        return Some((name.clone(), what.clone()));
    }
    let is_in = |place: &str| match place.strip_suffix('/') {
        Some(_) => drift.path.starts_with(place),
        None => drift.path == place || is_of_sqlite(place, &drift.path),
    };
    let (database, _) = DATABASES
        .iter()
        .find(|(_, places)| places.iter().any(|place| is_in(place)))?;
    Some(((*database).to_owned(), What::Database))
}

/// Whether a path is what SQLite puts beside a database.
fn is_of_sqlite(database: &str, path: &str) -> bool {
    let suffix = path.strip_prefix(database);
    database.ends_with(".sqlite") && matches!(suffix, Some("-wal" | "-shm"))
}

#[cfg(test)]
mod tests;
