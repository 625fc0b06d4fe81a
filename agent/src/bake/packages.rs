//! Which package owns each path, from the package database in the tree (dpkg, apk).
//!
//! Read as the tree has it: no program of the image is run, no symbolic link is followed, and a database that cannot be
//! understood leaves its paths without an owner. An rpm database can only be read by rpm itself and is passed over.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::path::Path;

use drift::TreePath;
use drift::manifest::Package;
use driftmark_kernel::{Dir, Names, Tree};

use super::{BakeError, Owners};

/// The longest database file that is read: a hundred times that of a large image.
const MAX_DATABASE_BYTES: u64 = 256 * 1024 * 1024;
/// Directories at the root that are symbolic links on a merged-usr system, where databases still use the old names.
const MERGED: [&[u8]; 6] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"];

/// Reads the databases of the tree at `root`.
pub(super) fn owners(root: &Path) -> Result<Owners, BakeError> {
    let failed = |source| BakeError::Read {
        path: root.join("var/lib/dpkg"),
        source,
    };
    let top = Tree::open(root)
        .and_then(|tree| tree.root())
        .map_err(failed)?;
    let aliases = aliases(&top);
    let mut owners = Owners::new();
    if let Some(database) = open_below(&top, &[b"var", b"lib", b"dpkg"]) {
        dpkg(&database, &aliases, &mut owners).map_err(failed)?;
    }
    if let Some(database) = open_below(&top, &[b"lib", b"apk", b"db"]) {
        apk(&database, &aliases, &mut owners).map_err(failed)?;
    }
    Ok(owners)
}

/// Old name → where it leads, for directories at the root that are links into it.
fn aliases(top: &Dir) -> Vec<(Vec<u8>, Vec<u8>)> {
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

fn open_below(top: &Dir, names: &[&[u8]]) -> Option<Dir> {
    let (first, rest) = names.split_first()?;
    let mut dir = top.open_dir(*first).ok()?;
    for name in rest {
        dir = dir.open_dir(*name).ok()?;
    }
    Some(dir)
}

fn read(dir: &Dir, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    dir.open_file(name)?
        .take(MAX_DATABASE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn own(path: &[u8], package: &Package, aliases: &[(Vec<u8>, Vec<u8>)], owners: &mut Owners) {
    let Ok(mut path) = TreePath::new(path) else {
        return;
    };
    for (alias, target) in aliases {
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
    // A directory belongs to many packages, so the first in order of name has it: the same whoever asks.
    owners.entry(path).or_insert_with(|| package.clone());
}

/// `status` has the versions, `info/NAME.list` the paths.
fn dpkg(database: &Dir, aliases: &[(Vec<u8>, Vec<u8>)], owners: &mut Owners) -> io::Result<()> {
    let versions = match read(database, b"status") {
        Ok(status) => dpkg_versions(&status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(mut info) = database.open_dir(&b"info"[..]) else {
        return Ok(());
    };
    let mut names = Names::new();
    info.names(&mut names)?;
    names.sort();
    for listed in names.iter() {
        let Some(name) = listed.name.to_bytes().strip_suffix(b".list") else {
            continue;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let bare = name.split(':').next().unwrap_or_default();
        let Some(version) = versions.get(bare) else {
            continue;
        };
        let package = Package {
            name: name.clone(),
            version: version.clone(),
        };
        if package.name.len() > Package::MAX_BYTES || package.version.len() > Package::MAX_BYTES {
            continue;
        }
        for path in read(&info, listed.name.to_bytes())?.split(|&byte| byte == b'\n') {
            if path.starts_with(b"/") && path != b"/." {
                own(path, &package, aliases, owners);
            }
        }
    }
    Ok(())
}

fn dpkg_versions(status: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(status);
    let mut versions = HashMap::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        if let (Some(package), Some(version)) = (field("Package:"), field("Version:")) {
            versions.insert(package.to_owned(), version.to_owned());
        }
    }
    versions
}

/// `installed`: stanzas with `P:` name, `V:` version, `F:` directory, `R:` file in it.
fn apk(database: &Dir, aliases: &[(Vec<u8>, Vec<u8>)], owners: &mut Owners) -> io::Result<()> {
    let installed = match read(database, b"installed") {
        Ok(installed) => installed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut package = Package {
        name: String::new(),
        version: String::new(),
    };
    let mut directory: &[u8] = b"";
    for line in installed.split(|&byte| byte == b'\n') {
        match line.split_at_checked(2) {
            Some((b"P:", name)) => {
                package.name = String::from_utf8_lossy(&name[..name.len().min(Package::MAX_BYTES)])
                    .into_owned();
            }
            Some((b"V:", version)) => {
                package.version =
                    String::from_utf8_lossy(&version[..version.len().min(Package::MAX_BYTES)])
                        .into_owned();
            }
            Some((b"F:", path)) => {
                directory = path;
                own(path, &package, aliases, owners);
            }
            Some((b"R:", name)) => {
                own(&[directory, b"/", name].concat(), &package, aliases, owners);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkg_paths_are_found_where_merged_usr_has_them() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("var/lib/dpkg/info")).unwrap();
        std::os::unix::fs::symlink("usr/bin", at("bin")).unwrap();
        std::fs::write(
            at("var/lib/dpkg/status"),
            "Package: coreutils\nVersion: 9.1-1\n\nPackage: x\nVersion: 2\n",
        )
        .unwrap();
        std::fs::write(
            at("var/lib/dpkg/info/coreutils.list"),
            "/.\n/bin\n/bin/ls\n",
        )
        .unwrap();
        std::fs::write(at("var/lib/dpkg/info/x:amd64.list"), "/etc/x\n").unwrap();
        let owners = owners(root.path()).unwrap();
        let owner = |path: &str| {
            owners
                .get(&TreePath::new(path.as_bytes()).unwrap())
                .map(ToString::to_string)
        };
        assert_eq!(owner("/usr/bin/ls").as_deref(), Some("coreutils 9.1-1"));
        assert_eq!(owner("/etc/x").as_deref(), Some("x:amd64 2"));
        assert_eq!(owner("/bin/ls"), None);
    }
}
