//! Files that are whole or not there: written beside their place, synced, renamed, and the directory synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file of this mode so that a crash leaves the old one or the new one.
///
/// # Errors
/// Whatever creating, writing, syncing or renaming gives; the old file is untouched then.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_with(path, mode, &|file| file.write_all(bytes))
}

/// The same, of bytes that are written piece by piece.
///
/// # Errors
/// The same.
pub fn write_with(
    path: &Path,
    mode: u32,
    bytes: &dyn Fn(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = directory.join(beside);
    let written = write_new(&beside, bytes, mode).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_new(
    path: &Path,
    bytes: &dyn Fn(&mut File) -> io::Result<()>,
    mode: u32,
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    // The mode above is masked by the umask, and an old file keeps its own.
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    bytes(&mut file)?;
    file.sync_all()
}
