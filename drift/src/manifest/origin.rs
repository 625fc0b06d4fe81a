//! Where a path comes from: its SHA-256 and the package that owns it. A scan never reads these.

use crate::entry::Node;
use crate::manifest::entries::Numbered;
use crate::manifest::layout::take_bytes;
use crate::manifest::{Contents, ManifestError, Source};
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
    /// Numbers of packages take two bytes, 0 being none.
    pub const MAX_COUNT: usize = u16::MAX as usize;
}

const BAD: ManifestError = ManifestError::Malformed("packages");

pub(super) fn read<S: Source>(
    contents: &Contents<S>,
    numbered: &Numbered,
    packages: &[Package],
) -> Result<Origin, ManifestError> {
    let sections = &contents.header.sections;
    let mut origin = Origin::default();
    if matches!(numbered.entry.node, Node::File { .. }) {
        let mut digest = [0; 32];
        contents.blocks.copy(
            sections.sha256_start() + numbered.file_ordinal * 32,
            &mut digest,
        )?;
        origin.sha256 = Some(Sha256::from_bytes(digest));
    }
    let numbers_start = sections
        .packages
        .checked_sub(contents.header.entry_count * 2)
        .ok_or(BAD)?;
    let mut number = [0; 2];
    contents.blocks.copy(
        sections.packages_start() + numbers_start + numbered.ordinal * 2,
        &mut number,
    )?;
    let number = u16::from_le_bytes(number);
    if number > 0 {
        origin.package = Some(packages.get(usize::from(number) - 1).ok_or(BAD)?.clone());
    }
    Ok(origin)
}

/// The list of packages: varint count, then name and version of each, sorted.
pub(super) fn packages<S: Source>(contents: &Contents<S>) -> Result<Vec<Package>, ManifestError> {
    let sections = &contents.header.sections;
    let length = contents
        .header
        .entry_count
        .checked_mul(2)
        .and_then(|numbers| sections.packages.checked_sub(numbers));
    let length = length
        .filter(|&length| length <= MAX_LIST_BYTES)
        .ok_or(BAD)?;
    let mut list = vec![0; length as usize];
    contents.blocks.copy(sections.packages_start(), &mut list)?;
    decode_list(&list).ok_or(BAD)
}

/// As many packages as can be numbered, each as long as it may be.
const MAX_LIST_BYTES: u64 = (Package::MAX_COUNT * (Package::MAX_BYTES + 2) * 2) as u64;

fn decode_list(mut rest: &[u8]) -> Option<Vec<Package>> {
    let count = usize::try_from(varint::take(&mut rest)?)
        .ok()
        .filter(|&count| count <= Package::MAX_COUNT)?;
    let mut list: Vec<Package> = Vec::new();
    for _ in 0..count {
        let mut text = || {
            Some(
                std::str::from_utf8(take_bytes(&mut rest, Package::MAX_BYTES)?)
                    .ok()?
                    .to_owned(),
            )
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
    rest.is_empty().then_some(list)
}
