//! What happened, as the bits that the kernel puts it in.

use std::fmt;

/// A set of events: asked for, or happened. Events of one process about one object are merged while they wait, so one
/// record may say several things, in no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mask(pub u64);

impl Mask {
    /// A file's content was written, cut or extended.
    pub const MODIFY: Mask = Mask(libc::FAN_MODIFY);
    /// Owner, mode, times, link count or an extended attribute: which of them is not told. File flags (`chattr`) never.
    pub const ATTRIB: Mask = Mask(libc::FAN_ATTRIB);
    /// What was open for writing was closed; with a mapping, when the last of it goes.
    pub const CLOSE_WRITE: Mask = Mask(libc::FAN_CLOSE_WRITE);
    /// A name was made.
    pub const CREATE: Mask = Mask(libc::FAN_CREATE);
    /// A name was removed.
    pub const DELETE: Mask = Mask(libc::FAN_DELETE);
    /// A name became another, with both of them in one event (Linux 5.17).
    pub const RENAME: Mask = Mask(libc::FAN_RENAME);
    /// The old name of a renamed thing, where both cannot be had in one event.
    pub const MOVED_FROM: Mask = Mask(libc::FAN_MOVED_FROM);
    /// The new name of a renamed thing, where both cannot be had in one event.
    pub const MOVED_TO: Mask = Mask(libc::FAN_MOVED_TO);
    /// A file was opened to be run: the program, its interpreter, and a script as well as its interpreter.
    pub const OPEN_EXEC: Mask = Mask(libc::FAN_OPEN_EXEC);
    /// The same, waiting for an answer.
    pub const OPEN_EXEC_PERM: Mask = Mask(libc::FAN_OPEN_EXEC_PERM);
    /// The queue was full: events were lost from here on.
    pub const OVERFLOW: Mask = Mask(libc::FAN_Q_OVERFLOW);
    /// The file system met an error of its own (Linux 5.16; ext4 tells).
    pub const FS_ERROR: Mask = Mask(libc::FAN_FS_ERROR);
    /// Something was mounted in the watched mount namespace (Linux 6.14). No crate has it.
    pub const MOUNTED: Mask = Mask(0x0100_0000);
    /// Something was unmounted or moved away in the watched mount namespace (Linux 6.14). No crate has it.
    pub const UNMOUNTED: Mask = Mask(0x0200_0000);
    /// Asked for: directories too. Happened: it was a directory.
    pub const ON_DIRECTORY: Mask = Mask(libc::FAN_ONDIR);
    /// Asked for at a directory: what happens to the things in it too.
    pub const ON_CHILDREN: Mask = Mask(libc::FAN_EVENT_ON_CHILD);

    /// Whether all of `other` is in this.
    pub fn has(self, other: Mask) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this.
    pub fn has_any(self, other: Mask) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Mask) -> Mask {
        Mask(self.0 | other.0)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = WORDS.iter().filter(|(mask, _)| self.has(*mask));
        f.write_str("Mask(")?;
        for (index, (_, word)) in words.enumerate() {
            write!(f, "{}{word}", if index == 0 { "" } else { " " })?;
        }
        let known = WORDS.iter().fold(Mask(0), |all, (mask, _)| all.and(*mask));
        match self.0 & !known.0 {
            0 => f.write_str(")"),
            rest => write!(f, " {rest:#x})"),
        }
    }
}

const WORDS: [(Mask, &str); 16] = [
    (Mask::MODIFY, "modify"),
    (Mask::ATTRIB, "attrib"),
    (Mask::CLOSE_WRITE, "close-write"),
    (Mask::CREATE, "create"),
    (Mask::DELETE, "delete"),
    (Mask::RENAME, "rename"),
    (Mask::MOVED_FROM, "moved-from"),
    (Mask::MOVED_TO, "moved-to"),
    (Mask::OPEN_EXEC, "open-exec"),
    (Mask::OPEN_EXEC_PERM, "open-exec-perm"),
    (Mask::OVERFLOW, "overflow"),
    (Mask::FS_ERROR, "fs-error"),
    (Mask::MOUNTED, "mounted"),
    (Mask::UNMOUNTED, "unmounted"),
    (Mask::ON_DIRECTORY, "on-directory"),
    (Mask::ON_CHILDREN, "on-children"),
];
