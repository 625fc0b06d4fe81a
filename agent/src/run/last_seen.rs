//! Receives until when all was seen; hands it on to the next start of the same boot, whatever ended this one.
//!
//! Beside the status socket, which is memory and gone with the boot. By it a start that comes after another says for how long
//! nothing was seen.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use super::boot_id;

/// Until when a watch has seen all, kept for the next one.
#[derive(Debug)]
pub(super) struct LastSeen {
    /// None where it cannot be kept: the next start does not know then for how long it was blind.
    file: Option<File>,
    boot: String,
    /// What an agent before this one has noted; whoever has told of it takes it.
    pub(super) by_another: Option<Duration>,
}

impl LastSeen {
    pub(super) fn open(status_socket: &Path) -> Self {
        let directory = status_socket.parent().unwrap_or(Path::new("/run"));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("last-seen"));
        let (file, boot) = (file.ok(), boot_id());
        let by_another = file.as_ref().and_then(|file| {
            let mut text = [0; LENGTH];
            file.read_exact_at(&mut text, 0).ok()?;
            parsed(&text, &boot)
        });
        LastSeen {
            file,
            boot,
            by_another,
        }
    }

    pub(super) fn note(&self, until: Duration) {
        if let Some(file) = &self.file {
            let text = format!("{:36.36} {:020}\n", self.boot, until.as_nanos());
            // A disk that takes nothing is told of elsewhere.
            let _ = file.write_all_at(text.as_bytes(), 0);
        }
    }
}

/// An id of a boot, a space, nanoseconds since boot, a line feed.
const LENGTH: usize = 36 + 1 + 20 + 1;

/// None for what another boot has noted.
fn parsed(text: &[u8], boot: &str) -> Option<Duration> {
    let text = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (of_boot, until) = text.split_once(' ')?;
    let until = until.parse().ok().map(Duration::from_nanos)?;
    (of_boot == boot).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_start_notes_the_next_one_knows_and_no_other_boot_nor_a_damaged_file() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("agent.sock");
        let first = LastSeen::open(&socket);
        assert_eq!(first.by_another, None);
        for nanoseconds in [u64::MAX, 1, 123_456_789_012] {
            first.note(Duration::from_nanos(nanoseconds));
            let next = LastSeen::open(&socket);
            assert_eq!(next.by_another, Some(Duration::from_nanos(nanoseconds)));
        }
        let text = std::fs::read(home.path().join("last-seen")).unwrap();
        assert_eq!(text.len(), LENGTH);
        assert_eq!(parsed(&text, "another boot"), None);
        for (nth, byte) in [(0, b'!'), (36, b'-'), (40, b'x'), (57, b' ')] {
            let mut damaged = text.clone();
            damaged[nth] = byte;
            assert_eq!(parsed(&damaged, &boot_id()), None, "byte {nth}");
        }
    }
}
