//! Which package owns each path, by the package databases that lie in the tree itself (dpkg, apk, rpm).
//!
//! Read as the tree has it: no program of the image or host is run, no symbolic link is followed, nothing but regular
//! files is opened, and a database of another kind leaves its paths without an owner; a damaged one ends a bake, and on
//! a host there are no labels then. `bake` writes the owners into the manifest, which is signed; on a host they label
//! what drifted ([`Labels`]), which is not: whoever changes a file there can change the database too.

mod apk;
mod budget;
mod dpkg;
mod label;
mod lines;
mod owners;
mod rpm;
mod sqlite;
mod wal;

use std::collections::HashSet;
use std::io;

use drift::TreePath;
use drift::manifest::Package;
use driftmark_kernel::Dir;

use crate::scan::filesystems::{Filesystems, is_absent};

pub(crate) use budget::Budget;
pub use label::Labels;
pub(crate) use owners::Owners;

/// What is asked of the databases.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// The owner of every path: at bake.
    Everything,
    /// Owner and digest of these.
    These(&'a HashSet<TreePath>),
}

impl Wanted<'_> {
    fn has(self, path: &TreePath) -> bool {
        match self {
            Wanted::Everything => true,
            Wanted::These(paths) => paths.contains(path),
        }
    }
}

/// What a database says.
pub(crate) enum Said<'a> {
    /// This package is installed.
    Installed(&'a Package),
    /// And has this path.
    Owns(Claim<'a>),
}

/// One path that a database says is a package's.
pub(crate) struct Claim<'a> {
    path: TreePath,
    package: &'a Package,
    digest: Option<FileDigest>,
}

/// What a package brings at a path, as its database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileDigest {
    Md5([u8; 16]),
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

/// Why a tree's packages are not known.
#[derive(Debug, thiserror::Error)]
#[error("read the package database {database} of the tree")]
pub struct PackagesError {
    /// Where it lies.
    pub database: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Reads the databases of a tree for all that they own.
pub(crate) fn owners(filesystems: &Filesystems) -> Result<Owners, PackagesError> {
    let mut owners = Owners::default();
    let mut budget = Budget::until(None);
    claims(filesystems, Wanted::Everything, &mut budget, &mut |said| {
        if let Said::Owns(Claim { path, package, .. }) = said {
            owners.claim(&path, package);
        }
    })?;
    Ok(owners)
}

/// Tells `sink` every claim on what is wanted, in an order that depends on the tree alone.
fn claims(
    filesystems: &Filesystems,
    wanted: Wanted<'_>,
    budget: &mut Budget,
    sink: &mut dyn FnMut(Said<'_>),
) -> Result<(), PackagesError> {
    type Reader = fn(&mut Dir, &mut Reading<'_>) -> io::Result<()>;
    const DATABASES: [(&str, Reader); 5] = [
        ("var/lib/dpkg", dpkg::read),
        ("lib/apk/db", apk::read),
        ("usr/lib/apk/db", apk::read),
        ("var/lib/rpm", rpm::read),
        ("usr/lib/sysimage/rpm", rpm::read),
    ];
    let aliases = aliases(filesystems);
    let mut reading = Reading {
        wanted,
        aliases,
        budget,
        sink,
    };
    for (database, read) in DATABASES {
        let failed = |source| PackagesError { database, source };
        let place = TreePath::new(database.as_bytes()).expect("a plain path");
        // What is no directory, or led to by a link, is no database.
        let Ok(mut dir) = filesystems.directory(&place) else {
            continue;
        };
        match read(&mut dir, &mut reading) {
            Err(error) if !is_no_file(&error) => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

/// What a reader of one database needs beside it.
struct Reading<'a> {
    wanted: Wanted<'a>,
    aliases: Vec<(Vec<u8>, Vec<u8>)>,
    budget: &'a mut Budget,
    sink: &'a mut dyn FnMut(Said<'_>),
}

impl Reading<'_> {
    /// A path as the database spells it, where the tree has it; none if it cannot be one or is not wanted.
    fn path(&self, spelled: &[u8]) -> Option<TreePath> {
        let mut path = TreePath::new(spelled).ok()?;
        for (alias, target) in &self.aliases {
            let bytes = path.as_bytes();
            if let Some(rest) = bytes
                .strip_prefix(&alias[..])
                .filter(|rest| rest.first() == Some(&b'/'))
                && let Ok(led) = TreePath::new(&[target, rest].concat())
            {
                path = led;
                break;
            }
        }
        self.wanted.has(&path).then_some(path)
    }

    fn claim(&mut self, path: TreePath, package: &Package, digest: Option<FileDigest>) {
        (self.sink)(Said::Owns(Claim {
            path,
            package,
            digest,
        }));
    }

    fn installed(&mut self, package: &Package) {
        (self.sink)(Said::Installed(package));
    }
}

/// Directories at the root that are symbolic links on a merged-usr system, where databases still use the old names.
const MERGED: [&[u8]; 6] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"];

/// Old name → where it leads, for directories at the root that are links into it.
fn aliases(filesystems: &Filesystems) -> Vec<(Vec<u8>, Vec<u8>)> {
    let Ok(top) = filesystems.root().root() else {
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for name in MERGED {
        if let Ok(target) = top.read_link(name) {
            let target = target.strip_prefix(b"/").unwrap_or(&target).to_vec();
            if TreePath::new(&target).is_ok() {
                aliases.push((name.to_vec(), target));
            }
        }
    }
    aliases
}

/// A name and version as long as a manifest and a report may carry.
fn package(name: &str, version: &str) -> Option<Package> {
    let fits = |text: &str| !text.is_empty() && text.len() <= Package::MAX_BYTES;
    (fits(name) && fits(version)).then(|| Package {
        name: name.to_owned(),
        version: version.to_owned(),
    })
}

/// The bytes that so many pairs of hexadecimal digits spell.
fn hexadecimal<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// Whether an error of opening says that there is no regular file of this name, and not that it cannot be read.
fn is_no_file(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, InvalidFilename, InvalidInput};
    is_absent(error)
        || matches!(
            error.kind(),
            CrossesDevices | InvalidFilename | InvalidInput
        )
        || error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}

#[cfg(test)]
mod tests;
