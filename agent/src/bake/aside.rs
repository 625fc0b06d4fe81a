//! Receives what was read and is not to be written yet; keeps it in a file without a name, and gives it back.
//!
//! A bake can write nothing before it has read everything, and a manifest is some hundred bytes an entry until then. The file
//! lies where the manifest will, and is gone with the process, however that ends. Where there can be none, or there is no
//! room left, all of it stays in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use drift::manifest::Aside;
use rustix::fs::{Mode, OFlags};

/// What was set aside.
#[derive(Debug)]
pub(super) struct SetAside {
    file: Option<File>,
    /// Where the next bytes go.
    end: AtomicU64,
}

impl SetAside {
    /// Makes a file at this place; if that does not exist yet, in the nearest directory above it that does.
    pub(super) fn beside(output: &Path) -> Self {
        let absolute = std::path::absolute(output).unwrap_or_else(|_| output.to_path_buf());
        let there = absolute.ancestors().find(|place| place.is_dir());
        let made = there.and_then(|place| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::open(place, flags, Mode::RUSR | Mode::WUSR).ok()
        });
        SetAside {
            file: made.map(File::from),
            end: AtomicU64::new(0),
        }
    }
}

impl Aside for SetAside {
    fn put(&self, bytes: &[u8]) -> Option<u64> {
        let file = self.file.as_ref()?;
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        file.write_all_at(bytes, offset).ok()?;
        Some(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(buffer, offset),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_comes_back_and_leaves_no_name() {
        let place = tempfile::tempdir().unwrap();
        let aside = SetAside::beside(&place.path().join("not/there/yet"));
        let pieces = [&b"one"[..], b"", b"another"];
        let offsets = pieces.map(|piece| aside.put(piece).unwrap());
        for (piece, offset) in pieces.into_iter().zip(offsets).rev() {
            let mut back = vec![0; piece.len()];
            aside.read_at(offset, &mut back).unwrap();
            assert_eq!(back, piece);
        }
        let names = std::fs::read_dir(place.path()).unwrap();
        assert_eq!(names.count(), 0);
    }

    #[test]
    fn where_no_file_can_be_made_nothing_is_taken() {
        let aside = SetAside::beside(Path::new("/proc/self/nothing"));
        assert_eq!(aside.put(b"content"), None);
        assert!(aside.read_at(0, &mut [0]).is_err());
    }
}
