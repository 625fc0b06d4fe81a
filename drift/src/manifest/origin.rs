//! Where a path comes from: its SHA-256 and the package that owns it. A scan never reads these.
//!
//! The package section is the list of packages (varint count, then name and version of each, sorted), then runs of entries
//! that follow each other and are of the same package: varint number in the list from 1, or 0 for none, and varint how many.

use std::collections::HashMap;

use crate::manifest::entries::Numbered;
use crate::manifest::layout::take_bytes;
use crate::manifest::pieces::{Aside, Pieces};
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

/// Entries that follow each other and are of the same package: the place of the first entry after them, and in the lowest
/// 16 bits the number of the package, from 1, or 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run(u64);

impl Run {
    fn new(end: u64, number: u16) -> Self {
        Run(end << 16 | u64::from(number))
    }

    fn end(self) -> u64 {
        self.0 >> 16
    }

    fn number(self) -> u16 {
        self.0 as u16
    }
}

const BAD: ManifestError = ManifestError::Malformed("packages");
/// As many packages as can be numbered, each as long as it may be, and all the runs that there can be.
pub(super) const MAX_SECTION_BYTES: u64 = 64 * 1024 * 1024;
/// Whoever asks for packages has 8 bytes of each in memory; the largest images have some hundred thousand.
const MAX_RUNS: usize = 4 * 1024 * 1024;

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
        let after = self
            .runs
            .partition_point(|run| run.end() <= numbered.ordinal);
        let number = usize::from(self.runs.get(after)?.number());
        self.list.get(number.checked_sub(1)?)
    }

    /// Whether each has an entry.
    pub(super) fn are_all_used(&self) -> bool {
        let mut used = vec![false; self.list.len() + 1];
        self.runs
            .iter()
            .for_each(|run| used[usize::from(run.number())] = true);
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
        let runs = decode_runs(rest, list.len(), contents.header.entry_count)?;
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
fn decode_runs(mut rest: &[u8], packages: usize, entries: u64) -> Result<Vec<Run>, ManifestError> {
    let mut runs: Vec<Run> = Vec::new();
    while !rest.is_empty() {
        if runs.len() == MAX_RUNS {
            return Err(ManifestError::Malformed(
                "its entries change from package to package too often",
            ));
        }
        let run = decode_run(&mut rest, runs.last().copied(), packages, entries);
        runs.push(run.ok_or(BAD)?);
    }
    let end = runs.last().map_or(0, |last| last.end());
    if end == entries { Ok(runs) } else { Err(BAD) }
}

fn decode_run(rest: &mut &[u8], before: Option<Run>, packages: usize, entries: u64) -> Option<Run> {
    let number = u16::try_from(varint::take(rest)?).ok()?;
    let start = before.map_or(0, Run::end);
    let count = varint::take(rest).filter(|&count| count > 0 && count <= entries - start)?;
    let goes_on = before.is_some_and(|before| before.number() == number);
    (!goes_on && usize::from(number) <= packages).then(|| Run::new(start + count, number))
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
        let count = self.runs.len();
        match self.runs.last_mut() {
            Some(run) if run.number() == number => *run = Run::new(end, number),
            _ if count == MAX_RUNS => {
                return Err(BuildError::TooLarge("list of packages"));
            }
            _ => self.runs.push(Run::new(end, number)),
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
    pub(super) fn section(self, aside: &dyn Aside) -> Result<Pieces, BuildError> {
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
            varint::put(&mut bytes, places[usize::from(run.number())]);
            varint::put(&mut bytes, run.end() - start);
            start = run.end();
            section.extend(&bytes, aside);
            bytes.clear();
        }
        section.extend(&bytes, aside);
        if section.length() > MAX_SECTION_BYTES {
            return Err(BuildError::TooLarge("list of packages"));
        }
        Ok(section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_runs_than_fit_memory_are_refused_by_that_reason() {
        let runs = |count: usize| [[0, 1], [1, 1]].into_iter().cycle().take(count).flatten();
        let most: Vec<u8> = runs(MAX_RUNS).collect();
        let decoded = decode_runs(&most, 1, MAX_RUNS as u64).unwrap();
        assert_eq!(decoded.len(), MAX_RUNS);
        let more: Vec<u8> = runs(MAX_RUNS + 1).collect();
        let refused = decode_runs(&more, 1, MAX_RUNS as u64 + 1).unwrap_err();
        assert!(refused.to_string().contains("too often"), "{refused}");
    }

    #[test]
    fn a_run_is_of_one_package_and_of_entries_that_there_are() {
        assert!(decode_runs(&[0, 1, 1, 2], 1, 3).is_ok());
        for (what, bytes) in [
            ("no entries", &[0, 0, 1, 3][..]),
            ("more entries than there are", &[0, 1, 1, 3]),
            ("fewer", &[0, 1, 1, 1]),
            ("a package that is not listed", &[0, 1, 2, 2]),
            ("twice the same", &[1, 1, 1, 2]),
            ("cut short", &[0, 1, 1]),
        ] {
            assert!(decode_runs(bytes, 1, 3).is_err(), "{what}");
        }
    }
}
