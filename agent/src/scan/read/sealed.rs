//! A file that was read in, all that is held of it out, if it held still meanwhile.

use std::fs::File;
use std::io;

use drift::TreePath;
use drift::entry::{FileFlags, Measurement, Node, Xattrs};
use drift::observation::Found;
use drift::report::HeldPrefix;
use driftmark_kernel::{Stat, flags, xattrs};

use super::{By, Content, Read, Wants};
use crate::scan::filesystems::Holding;
use crate::scan::walk::{entry, group};

/// A file that held still while it was read.
pub(super) struct Sealed {
    pub(super) stat: Stat,
    pub(super) content: Content,
    pub(super) xattrs: Xattrs,
    pub(super) flags: FileFlags,
    pub(super) verity: Option<Measurement>,
    pub(super) by: By,
    pub(super) shape: Option<Result<(), String>>,
}

/// What was read of a file that was hashed elsewhere; none if it changed meanwhile.
///
/// # Errors
/// What the file system gives.
pub(in crate::scan) fn seal(
    path: TreePath,
    file: &File,
    before: &Stat,
    holding: Holding,
    content: Content,
) -> io::Result<Option<Read>> {
    let sealed = Sealed::of(file, before, holding, content)?;
    Ok(sealed.map(|sealed| sealed.found(path, holding, &Wants::default())))
}

impl Sealed {
    /// What else is held of a file, once its content was read; none if it changed meanwhile.
    pub(super) fn of(
        file: &File,
        before: &Stat,
        holding: Holding,
        content: Content,
    ) -> io::Result<Option<Self>> {
        let (xattrs, flags) = match holding {
            Holding::All => (
                Xattrs::held(xattrs::of(file)?),
                FileFlags::from_raw(flags::of(file)?.unwrap_or(0)),
            ),
            Holding::ContentOnly => (Xattrs::NONE, FileFlags::NONE),
        };
        let stat = Stat::of(file)?;
        let same = (before.size, before.mtime, before.ctime) == (stat.size, stat.mtime, stat.ctime)
            && content.length == stat.size;
        Ok(same.then_some(Sealed {
            stat,
            content,
            xattrs,
            flags,
            verity: None,
            by: By::Reading,
            shape: None,
        }))
    }

    pub(super) fn found(self, path: TreePath, holding: Holding, wants: &Wants) -> Read {
        let Sealed {
            stat,
            content,
            xattrs,
            flags,
            verity,
            by,
            shape,
        } = self;
        let node = Node::File {
            size: content.length,
            content: content.blake3,
            verity: verity.map(Box::new),
        };
        let held_prefix = wants.held.map(|length| HeldPrefix {
            length,
            digest: content.held,
        });
        let found = Found {
            entry: entry(path, &stat, holding, node, xattrs, flags),
            group: group(&stat),
            prefix: content.prefix,
            held_prefix,
            shape,
        };
        Read::Found {
            found,
            sha256: content.sha256,
            stat,
            by,
        }
    }
}
