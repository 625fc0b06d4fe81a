//! Receives the directory of an apk database; hands on what its packages own.
//!
//! `installed` has it all: stanzas with `P:` name, `V:` version, `F:` a directory, `R:` a file in it, `Z:` its digest
//! (apk-tools' `package.c`).

use std::io;

use drift::TreePath;
use drift::manifest::Package;
use driftmark_kernel::Dir;

use super::lines::Lines;
use super::{FileDigest, Reading};

pub(super) fn read(database: &mut Dir, reading: &mut Reading<'_>) -> io::Result<()> {
    let mut lines = Lines::open(database, b"installed")?;
    let mut package = Package {
        name: String::new(),
        version: String::new(),
    };
    let mut directory = Vec::new();
    let mut file: Option<TreePath> = None;
    while let Some(line) = lines.next(reading.budget)? {
        let (key, value) = line.split_at_checked(2).unwrap_or((line, b""));
        if let Some(path) = file.take() {
            match key {
                b"Z:" => reading.claim(path, &package, sha1(value)),
                // The mode and owner of the same file come before its digest.
                b"a:" => file = Some(path),
                _ => reading.claim(path, &package, None),
            }
        }
        match key {
            b"P:" => package.name = text(value),
            b"V:" => {
                package.version = text(value);
                reading.installed(&package);
            }
            b"F:" => {
                directory = value.to_vec();
                if let Some(path) = reading.path(value) {
                    reading.claim(path, &package, None);
                }
            }
            b"R:" => file = reading.path(&[&directory, &b"/"[..], value].concat()),
            _ => {}
        }
    }
    if let Some(path) = file {
        reading.claim(path, &package, None);
    }
    Ok(())
}

fn text(value: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(value).into_owned();
    while text.len() > Package::MAX_BYTES {
        text.pop();
    }
    text
}

/// `Q1` and base64 of SHA-1; older and newer forms are not known here.
fn sha1(value: &[u8]) -> Option<FileDigest> {
    let text = std::str::from_utf8(value.strip_prefix(b"Q1")?).ok()?;
    let bytes = drift::from_base64(text).ok()?;
    bytes.try_into().ok().map(FileDigest::Sha1)
}
