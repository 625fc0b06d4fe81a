//! Receives what was read and is not to be written yet; keeps it in a file without a name, and gives it back.
//!
//! A bake can write nothing before it has read everything, and a manifest is some hundred bytes an entry until then. The file
//! lies where the manifest will, takes a quarter of the room that is there at most, and is gone with the process, however
//! that ends. What does not go into it stays in memory.

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
    /// It may grow so far: the manifest itself has to find room beside it.
    most: AtomicU64,
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
        let file = made.map(File::from);
        let room = file
            .as_ref()
            .and_then(|file| rustix::fs::fstatvfs(file).ok());
        let room = room.map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize));
        SetAside {
            file,
            end: AtomicU64::new(0),
            most: AtomicU64::new(room / 4),
        }
    }
}

impl Aside for SetAside {
    fn put(&self, bytes: &[u8]) -> Option<u64> {
        let file = self.file.as_ref()?;
        let length = bytes.len() as u64;
        let offset = self.end.fetch_add(length, Ordering::Relaxed);
        if offset + length > self.most.load(Ordering::Relaxed) {
            return None;
        }
        if file.write_all_at(bytes, offset).is_err() {
            // Who has no room now shall not be asked for it again.
            self.most.store(0, Ordering::Relaxed);
            return None;
        }
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

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let place = tempfile::tempdir().unwrap();
        let mut aside = SetAside::beside(place.path());
        aside.most = AtomicU64::new(10);
        assert_eq!(aside.put(b"content"), Some(0));
        assert_eq!(aside.put(b"content"), None);
        let mut back = [0; 7];
        aside.read_at(0, &mut back).unwrap();
        assert_eq!(&back, b"content");
    }

    #[test]
    fn who_could_not_write_is_not_asked_again() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let aside = SetAside {
            file: Some(full),
            end: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
        };
        assert_eq!(aside.put(b"content"), None);
        assert_eq!(aside.most.into_inner(), 0);
    }
}
