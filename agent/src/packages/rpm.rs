//! Receives the directory of an rpm database; hands on what its packages own.
//!
//! `rpmdb.sqlite` has a table `Packages` with one header a row, since rpm 4.16: RHEL 9, Amazon Linux 2023. The Berkeley
//! DB of older ones and ndb are passed over. The database may be in use: what its log has is newer.

mod header;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use driftmark_kernel::Dir;

use super::sqlite::{Database, ReadAt, column};
use super::{FileDigest, Package, Reading, hexadecimal, is_no_file, package};
use header::{Algorithm, Header};

/// A package of the database whose header is none.
#[derive(Debug, thiserror::Error)]
#[error("it has a header that is damaged")]
struct BadHeader;

pub(super) fn read(database: &mut Dir, reading: &mut Reading<'_>) -> io::Result<()> {
    let file = database.open_file(&b"rpmdb.sqlite"[..])?;
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let log = match database.open_file(&b"rpmdb.sqlite-wal"[..]) {
        Err(error) if is_no_file(&error) => None,
        log => Some(log?),
    };
    let of_file = reader(&file);
    let of_log = log.as_ref().map(reader);
    let of_log = of_log.as_ref().map(|log| log as &ReadAt<'_>);
    let database = Database::open(&of_file, of_log, reading.budget)?;
    let Some(mut rows) = database.table(b"Packages", reading.budget)? else {
        return Ok(());
    };
    while let Some(row) = rows.next(reading.budget)? {
        // hnum, blob
        let header = column(&row, 1).and_then(Header::read);
        let header = header.ok_or(io::Error::new(io::ErrorKind::InvalidData, BadHeader))?;
        claim(&header, reading)?;
    }
    Ok(())
}

fn reader(file: &File) -> impl Fn(u64, &mut [u8]) -> io::Result<()> {
    |at, buffer| file.read_exact_at(buffer, at)
}

fn claim(header: &Header<'_>, reading: &mut Reading<'_>) -> io::Result<()> {
    let Some(package) = package(&header.name(), &header.version()) else {
        return Ok(());
    };
    reading.installed(&package);
    let algorithm = header.algorithm();
    // What is remembered of each path: a hostile header has millions of them.
    let of_package = package.name.len() + package.version.len() + size_of::<Package>();
    for file in header.files() {
        reading
            .budget
            .take(file.directory.len() + file.name.len())?;
        if let Some(path) = reading.path(&[file.directory, file.name].concat()) {
            reading.budget.take(of_package)?;
            let digest = match algorithm {
                Algorithm::Sha256 => hexadecimal(file.digest).map(FileDigest::Sha256),
                Algorithm::Md5 => hexadecimal(file.digest).map(FileDigest::Md5),
                Algorithm::Other => None,
            };
            reading.claim(path, &package, digest);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
