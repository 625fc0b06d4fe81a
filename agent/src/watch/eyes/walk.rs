//! A directory in; all at and below it in which something may be held, out.

use std::io;

use drift::TreePath;
use drift::rules::Rules;
use driftmark_kernel::names::Name;
use driftmark_kernel::{Dir, FileKind, Names, Scratch};

use super::table::{Key, Table};
use crate::scan::filesystems::{Filesystems, is_absent};

/// What a walk goes by.
#[derive(Clone, Copy)]
pub(in crate::watch) struct Ways<'a> {
    pub(in crate::watch) filesystems: &'a Filesystems,
    pub(in crate::watch) rules: &'a Rules,
}

/// How far a walk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// To the end.
    All,
    /// There was room for no more.
    Full,
}

/// Marks a directory, by its path, in the one that is called so.
type Met<'a> = dyn FnMut(&Dir, &TreePath, Option<Key>) -> io::Result<Option<Key>> + 'a;

impl Ways<'_> {
    /// Goes through `path` and what is below it: each directory comes before it is listed, so that what is made in it
    /// meanwhile is either listed or told. `met` gets it with its path and with what the one that it is in is called, and
    /// says what it is called itself; or nothing, where there is room for no more.
    ///
    /// # Errors
    /// The first thing that could not be entered or marked; the rest is gone through all the same. None of that is what is
    /// not there any more, and what is no directory.
    pub(super) fn walk(
        self,
        path: TreePath,
        above: Option<Key>,
        met: &mut Met<'_>,
    ) -> io::Result<Walked> {
        let (mut names, mut scratch) = (Names::new(), Scratch::default());
        let mut outcome = Ok(Walked::All);
        let mut waiting = vec![(path, above)];
        while let Some((path, above)) = waiting.pop() {
            if !self.rules.descend(&path) {
                continue;
            }
            let entered = self.filesystems.directory(&path).and_then(|mut directory| {
                let Some(key) = met(&directory, &path, above)? else {
                    return Ok(Walked::Full);
                };
                directory.names(&mut names, &mut scratch)?;
                for name in names.iter().filter(|name| is_directory(&directory, *name)) {
                    let below = path.join(name.name.to_bytes()).ok();
                    // Another file system of the image has its own marks.
                    let below = below.filter(|path| self.filesystems.mounted_at(path).is_none());
                    waiting.extend(below.map(|path| (path, Some(key))));
                }
                Ok(Walked::All)
            });
            match entered {
                Ok(Walked::All) if waiting.len() <= MOST_WAITING => {}
                Ok(_) => return outcome.and(Ok(Walked::Full)),
                Err(error) if is_absent(&error) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }
}

fn is_directory(directory: &Dir, name: Name<'_>) -> bool {
    let asked = || directory.stat_at(name.name).ok().map(|stat| stat.kind);
    name.kind.or_else(asked) == Some(FileKind::Directory)
}

/// Directories beside each other that are not entered yet. More are more than can be marked.
const MOST_WAITING: usize = Table::MOST;
