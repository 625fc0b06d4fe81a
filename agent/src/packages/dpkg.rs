//! Receives the directory of a dpkg database; hands on what its packages own.
//!
//! `status` has the versions and the digests of configuration files, `info/NAME.list` the paths, `info/NAME.md5sums`
//! the digests of all others (`dpkg-query(1)`, `deb-md5sums(5)`).

use std::collections::{BTreeSet, HashMap};
use std::io;

use drift::TreePath;
use drift::manifest::Package;
use driftmark_kernel::Dir;

use super::lines::Lines;
use super::{FileDigest, Reading, Wanted, hexadecimal, package};

/// What `status` says.
#[derive(Default)]
struct Status {
    /// Version by name, without architecture.
    versions: HashMap<String, String>,
    /// Those of which no more than configuration is left, by name.
    removed: BTreeSet<String>,
    /// What the lists of installed packages are called: `NAME` and `NAME:ARCHITECTURE`.
    lists: BTreeSet<Vec<u8>>,
    /// Digests of the configuration files that are wanted.
    conffiles: HashMap<TreePath, FileDigest>,
}

pub(super) fn read(database: &mut Dir, reading: &mut Reading<'_>) -> io::Result<()> {
    let status = status(database, reading)?;
    let info = database.open_dir(&b"info"[..])?;
    for list in &status.lists {
        let listed = String::from_utf8_lossy(list.strip_suffix(b".list").unwrap_or(list));
        let bare = listed.split(':').next().unwrap_or_default();
        let version = status.versions.get(bare).map_or("", String::as_str);
        let Some(package) = package(&listed, version) else {
            continue;
        };
        owned(&info, list, &package, &status, reading)?;
    }
    Ok(())
}

/// Claims what is in one package's list.
fn owned(
    info: &Dir,
    list: &[u8],
    package: &Package,
    status: &Status,
    reading: &mut Reading<'_>,
) -> io::Result<()> {
    // Of `NAME` and `NAME:ARCHITECTURE` one is there.
    let Some(mut lines) = Lines::open_if_there(info, list)? else {
        return Ok(());
    };
    let bare = package.name.split(':').next().unwrap_or_default();
    if !status.removed.contains(bare) {
        reading.installed(package);
    }
    let mut paths = Vec::new();
    while let Some(line) = lines.next(reading.budget)? {
        if !line.starts_with(b"/") || line == b"/." {
            continue;
        }
        if let Some(path) = reading.path(line) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Ok(());
    }
    let digests = match reading.wanted {
        Wanted::Everything => HashMap::new(),
        Wanted::These(_) => md5sums(info, list, reading)?,
    };
    for path in paths {
        let digest = status.conffiles.get(&path).or_else(|| digests.get(&path));
        let digest = digest.cloned();
        reading.claim(path, package, digest);
    }
    Ok(())
}

/// The digests of a package's wanted files; a package may have none.
fn md5sums(
    info: &Dir,
    list: &[u8],
    reading: &mut Reading<'_>,
) -> io::Result<HashMap<TreePath, FileDigest>> {
    const DIGITS: usize = 32;
    let stem = list.strip_suffix(b"list").unwrap_or(list);
    let mut digests = HashMap::new();
    let Some(mut lines) = Lines::open_if_there(info, &[stem, b"md5sums"].concat())? else {
        return Ok(digests);
    };
    while let Some(line) = lines.next(reading.budget)? {
        let Some((digest, path)) = line.split_at_checked(DIGITS) else {
            continue;
        };
        let path = path.strip_prefix(b"  ").and_then(|path| reading.path(path));
        if let (Some(path), Some(digest)) = (path, hexadecimal(digest)) {
            digests.insert(path, FileDigest::Md5(digest));
        }
    }
    Ok(digests)
}

/// Goes through the stanzas of `status`.
fn status(database: &Dir, reading: &mut Reading<'_>) -> io::Result<Status> {
    let mut lines = Lines::open(database, b"status")?;
    let mut status = Status::default();
    let mut stanza = Stanza::default();
    let mut in_conffiles = false;
    while let Some(line) = lines.next(reading.budget)? {
        if line.is_empty() {
            std::mem::take(&mut stanza).close(&mut status)?;
        }
        if let Some(listed) = line.strip_prefix(b" ").filter(|_| in_conffiles) {
            if let (Wanted::These(_), Some((path, digest))) = (reading.wanted, conffile(listed)) {
                reading
                    .path(path)
                    .map(|path| status.conffiles.insert(path, FileDigest::Md5(digest)));
            }
            continue;
        }
        in_conffiles = line.starts_with(b"Conffiles:");
        stanza.read(line);
    }
    stanza.close(&mut status)?;
    Ok(status)
}

#[derive(Default)]
struct Stanza {
    package: Option<String>,
    version: Option<String>,
    architecture: Option<String>,
    status: Option<String>,
}

impl Stanza {
    /// The first line of each field counts.
    fn read(&mut self, line: &[u8]) {
        let fields = [
            (&b"Package:"[..], &mut self.package),
            (b"Version:", &mut self.version),
            (b"Architecture:", &mut self.architecture),
            (b"Status:", &mut self.status),
        ];
        for (name, value) in fields {
            if let (None, Some(rest)) = (&value, line.strip_prefix(name)) {
                *value = Some(String::from_utf8_lossy(rest).trim().to_owned());
            }
        }
    }

    fn close(self, status: &mut Status) -> io::Result<()> {
        let (Some(package), Some(version)) = (self.package, self.version) else {
            return Ok(());
        };
        if status.versions.len() == Package::MAX_COUNT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        status.lists.insert(format!("{package}.list").into());
        if let Some(architecture) = self.architecture {
            let list = format!("{package}:{architecture}.list");
            status.lists.insert(list.into());
        }
        let state = self.status.unwrap_or_default();
        if state.ends_with(" config-files") || state.ends_with(" not-installed") {
            status.removed.insert(package.clone());
        }
        status.versions.insert(package, version);
        Ok(())
    }
}

/// ` /etc/x 0123…` and perhaps ` obsolete`; `newconffile` stands where there is no digest yet.
fn conffile(listed: &[u8]) -> Option<(&[u8], [u8; 16])> {
    let listed = listed.strip_suffix(b" obsolete").unwrap_or(listed);
    let at = listed.iter().rposition(|&byte| byte == b' ')?;
    Some((&listed[..at], hexadecimal(&listed[at + 1..])?))
}
