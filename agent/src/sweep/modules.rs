//! `/proc/modules` and `/sys/module` in; which modules the kernel has loaded that no file of the image brings, out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use drift::TreePath;
use drift::entry::Kind;
use drift::manifest::ManifestError;

use crate::baseline::Baseline;

/// A kernel with every module there is loaded has less to tell.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// Where modules lie, and what their files are called.
const PLACES: [&[u8]; 2] = [b"/usr/lib/modules", b"/lib/modules"];
const ENDINGS: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.zst", b".ko.gz"];

/// The names of all that are loaded; none where this kernel loads no modules. One that is missing in either list is in it:
/// to be in one of them alone is a way to hide.
///
/// # Errors
/// A list cannot be read, or is not understood (`InvalidData`).
pub(super) fn loaded(proc: &Path, sys: &Path) -> io::Result<Option<BTreeSet<Vec<u8>>>> {
    let file = match File::open(proc.join("modules")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let lines = text.split(|byte| *byte == b'\n');
    let mut names: BTreeSet<Vec<u8>> = lines
        .filter_map(|line| line.split(|byte| *byte == b' ').next())
        .filter(|name| !name.is_empty())
        .map(one_spelling)
        .collect();
    for entry in std::fs::read_dir(sys.join("module")).into_iter().flatten() {
        let entry = entry?;
        let name = one_spelling(entry.file_name().as_bytes());
        // What is built in has none.
        if !names.contains(&name) && entry.path().join("initstate").exists() {
            names.insert(name);
        }
    }
    Ok(Some(names))
}

/// Takes away the names that a file of the image brings.
///
/// # Errors
/// A manifest that cannot be read.
pub(super) fn without_the_images(
    baseline: &Baseline,
    names: &mut BTreeSet<Vec<u8>>,
) -> Result<(), ManifestError> {
    for place in PLACES {
        let Ok(place) = TreePath::new(place) else {
            continue;
        };
        for entry in baseline.manifest.entries_from(&place) {
            let entry = entry?;
            if !entry.path.is_within(&place) {
                break;
            }
            if entry.node.kind() == Kind::File
                && let Some(name) = module_of(entry.path.name())
            {
                names.remove(&name);
            }
        }
    }
    Ok(())
}

/// The module that a file of this name brings.
fn module_of(file: &[u8]) -> Option<Vec<u8>> {
    let name = ENDINGS
        .iter()
        .find_map(|ending| file.strip_suffix(*ending))?;
    Some(one_spelling(name))
}

/// The kernel writes `_` where files have either.
fn one_spelling(name: &[u8]) -> Vec<u8> {
    name.iter()
        .map(|byte| if *byte == b'-' { b'_' } else { *byte })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_either_list_and_what_is_built_in_is_none() {
        let home = tempfile::tempdir().unwrap();
        let [proc, sys] = ["proc", "sys"].map(|name| home.path().join(name));
        assert_eq!(loaded(&proc, &sys).unwrap(), None);
        std::fs::create_dir(&proc).unwrap();
        let text =
            "nf_tables 323584 1 nft-x, Live 0x0000000000000000\nsnd-pcm 1 0 - Live 0x0 (OE)\n";
        std::fs::write(proc.join("modules"), text).unwrap();
        for (name, is_loaded) in [("nf_tables", true), ("kernel", false), ("hidden", true)] {
            let directory = sys.join("module").join(name);
            std::fs::create_dir_all(&directory).unwrap();
            if is_loaded {
                std::fs::write(directory.join("initstate"), "live\n").unwrap();
            }
        }
        let names = loaded(&proc, &sys).unwrap().unwrap();
        let expected = ["hidden", "nf_tables", "snd_pcm"].map(|name| name.as_bytes().to_vec());
        assert_eq!(names, BTreeSet::from(expected));
    }

    #[test]
    fn files_are_called_as_their_modules_in_either_spelling() {
        let table: [(&str, Option<&str>); 6] = [
            ("nf-tables.ko", Some("nf_tables")),
            ("ext4.ko.xz", Some("ext4")),
            ("a.ko.zst", Some("a")),
            ("a.ko.gz", Some("a")),
            ("modules.dep", None),
            ("a.ko.old", None),
        ];
        for (file, name) in table {
            let name = name.map(|name| name.as_bytes().to_vec());
            assert_eq!(module_of(file.as_bytes()), name, "{file}");
        }
    }
}
