//! Where a path comes from: its SHA-256 and the package that owns it. A scan never reads these.
//!
//! The package section is the list of packages (varint count, then name and version of each, sorted), then runs of entries
//! that follow each other and are of the same package: varint number in the list from 1, or 0 for none, and varint how many.

use std::collections::HashMap;

use crate::manifest::entries::Numbered;
use crate::manifest::layout::take_bytes;
use crate::manifest::pieces::Pieces;
use crate::manifest::record::put_bytes;
use crate::manifest::{BuildError, Contents, ManifestError, Source};
use crate::{Sha256, varint};

/// What the rest of the world knows a path by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// SHA-256 of a regular file.
    pub sha256: Option<Sha256>,
    /// The package that owns it.
    pub package: Option<Package>,
}

/// A package of the distribution, as its own database names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Package {
    /// Name, with the architecture where the database has it (`libc6:amd64`).
    pub name: String,
    /// Version.
    pub version: String,
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Package {
    /// The longest name or version that is held.
    pub const MAX_BYTES: usize = 256;
    /// More than distributions have.
    pub const MAX_COUNT: usize = u16::MAX as usize;
}

/// The packages of an image, and which entries are theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packages {
    list: Vec<Package>,
    runs: Vec<Run>,
}

/// Entries that follow each other and are of the same package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// The place of the first entry after them.
    end: u64,
    /// From 1; 0 for none.
    number: u16,
}

const BAD: ManifestError = ManifestError::Malformed("packages");
/// As many packages as can be numbered, each as long as it may be, and runs of 10 million entries.
pub(super) const MAX_SECTION_BYTES: u64 = 64 * 1024 * 1024;

impl Packages {
    /// All packages, sorted.
    pub fn list(&self) -> &[Package] {
        &self.list
    }

    /// All packages, sorted, without their entries.
    pub fn into_list(self) -> Vec<Package> {
        self.list
    }

    /// The package of an entry.
    pub(super) fn of(&self, numbered: &Numbered) -> Option<&Package> {
        let after = self.runs.partition_point(|run| run.end <= numbered.ordinal);
        let number = usize::from(self.runs.get(after)?.number);
        self.list.get(number.checked_sub(1)?)
    }

    /// Whether each has an entry.
    pub(super) fn are_all_used(&self) -> bool {
        let mut used = vec![false; self.list.len() + 1];
        self.runs
            .iter()
            .for_each(|run| used[usize::from(run.number)] = true);
        used.iter().skip(1).all(|&used| used)
    }

    pub(super) fn read<S: Source>(contents: &Contents<S>) -> Result<Self, ManifestError> {
        let sections = &contents.header.sections;
        if sections.packages > MAX_SECTION_BYTES {
            return Err(BAD);
        }
        let mut section = vec![0; sections.packages as usize];
        contents
            .blocks
            .copy(sections.packages_start(), &mut section)?;
        let mut rest = &section[..];
        let list = decode_list(&mut rest).ok_or(BAD)?;
        let runs = decode_runs(rest, list.len(), contents.header.entry_count).ok_or(BAD)?;
        Ok(Packages { list, runs })
    }
}

fn decode_list(rest: &mut &[u8]) -> Option<Vec<Package>> {
    let count = usize::try_from(varint::take(rest)?)
        .ok()
        .filter(|&count| count <= Package::MAX_COUNT)?;
    let mut list: Vec<Package> = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let bytes = take_bytes(rest, Package::MAX_BYTES)?;
            Some(std::str::from_utf8(bytes).ok()?.to_owned())
        };
        let package = Package {
            name: text()?,
            version: text()?,
        };
        if list.last().is_some_and(|last| *last >= package) {
            return None;
        }
        list.push(package);
    }
    Some(list)
}

/// Runs up to the end of the section and of the entries; a run ends where the next entry is not of its package.
fn decode_runs(mut rest: &[u8], packages: usize, entries: u64) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    while !rest.is_empty() {
        let number = u16::try_from(varint::take(&mut rest)?).ok()?;
        let before = runs.last();
        let start = before.map_or(0, |before| before.end);
        let count =
            varint::take(&mut rest).filter(|&count| count > 0 && count <= entries - start)?;
        let goes_on = before.is_some_and(|before| before.number == number);
        if goes_on || usize::from(number) > packages {
            return None;
        }
        runs.push(Run {
            end: start + count,
            number,
        });
    }
    let end = runs.last().map_or(0, |last| last.end);
    (end == entries).then_some(runs)
}

/// The SHA-256 of an entry's content.
pub(super) fn sha256<S: Source>(
    contents: &Contents<S>,
    numbered: &Numbered,
) -> Result<Option<Sha256>, ManifestError> {
    let Some(content) = numbered.content else {
        return Ok(None);
    };
    let start = contents.header.sections.sha256_start();
    let mut digest = [0; 32];
    contents.blocks.copy(start + content * 32, &mut digest)?;
    Ok(Some(Sha256::from_bytes(digest)))
}

/// Which package each entry is of, by numbers in the order of their first use.
#[derive(Default)]
pub(super) struct PackageNumbers {
    numbers: HashMap<Package, u16>,
    last: Option<(Package, u16)>,
    runs: Vec<Run>,
    entries: u64,
}

impl PackageNumbers {
    /// Adds the next entry.
    pub(super) fn push(&mut self, package: Option<&Package>) -> Result<(), BuildError> {
        let number = match (package, &self.last) {
            (None, _) => 0,
            (Some(package), Some((last, number))) if package == last => *number,
            (Some(package), _) => self.number(package)?,
        };
        self.entries += 1;
        let end = self.entries;
        match self.runs.last_mut() {
            Some(run) if run.number == number => run.end = end,
            _ => self.runs.push(Run { end, number }),
        }
        Ok(())
    }

    fn number(&mut self, package: &Package) -> Result<u16, BuildError> {
        let next = u16::try_from(self.numbers.len() + 1);
        let number = match (self.numbers.get(package), next) {
            (Some(number), _) => *number,
            (None, Err(_)) => return Err(BuildError::TooManyPackages),
            (None, Ok(next)) => {
                let long = |text: &&String| text.len() > Package::MAX_BYTES;
                if let Some(bad) = [&package.name, &package.version].into_iter().find(long) {
                    return Err(BuildError::BadName(bad.clone()));
                }
                self.numbers.insert(package.clone(), next);
                next
            }
        };
        self.last = Some((package.clone(), number));
        Ok(number)
    }

    /// The package section.
    pub(super) fn section(self) -> Result<Pieces, BuildError> {
        let mut sorted: Vec<(Package, u16)> = self.numbers.into_iter().collect();
        sorted.sort();
        let mut bytes = Vec::new();
        varint::put(&mut bytes, sorted.len() as u64);
        let mut places = vec![0; sorted.len() + 1];
        for ((package, number), place) in sorted.iter().zip(1..) {
            places[usize::from(*number)] = place;
            put_bytes(&mut bytes, package.name.as_bytes());
            put_bytes(&mut bytes, package.version.as_bytes());
        }
        let mut section = Pieces::default();
        let mut start = 0;
        for run in self.runs {
            varint::put(&mut bytes, places[usize::from(run.number)]);
            varint::put(&mut bytes, run.end - start);
            start = run.end;
            section.extend(&bytes);
            bytes.clear();
        }
        section.extend(&bytes);
        if section.length() > MAX_SECTION_BYTES {
            return Err(BuildError::TooLarge("list of packages"));
        }
        Ok(section)
    }
}
