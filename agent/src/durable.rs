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
    let new = |beside: &Path| {
        let file = write_new(beside, bytes, mode)?;
        file.sync_all()
    };
    replace(path, &new)?;
    File::open(directory(path))?.sync_all()
}

/// Writes a file that is worth nothing after a crash: whole for whoever reads it on this boot, and not waited for.
///
/// # Errors
/// Whatever creating, writing or renaming gives; the old file is untouched then.
pub fn write_for_this_boot(
    path: &Path,
    mode: u32,
    bytes: &dyn Fn(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    replace(path, &|beside| write_new(beside, bytes, mode).map(drop))
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Has a file written beside its place, and puts it there.
fn replace(path: &Path, new: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = directory(path).join(beside);
    let written = new(&beside).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn write_new(
    path: &Path,
    bytes: &dyn Fn(&mut File) -> io::Result<()>,
    mode: u32,
) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    // The mode above is masked by the umask, and an old file keeps its own.
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    bytes(&mut file)?;
    Ok(file)
}
