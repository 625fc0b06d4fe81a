//! A file system whose directories are marked one by one: what its events call them is compared, and never opened.
//!
//! Invariant: a directory is marked before it is listed, and what comes into one is gone through as soon as that is told.
//! Where the marks are not in step with the tree (events were lost, or one comes of a directory that is not known), that
//! is said ([`Directories::is_out_of_step`]): then all begins again.

use std::io;
use std::os::fd::AsFd as _;

use drift::TreePath;
use driftmark_kernel::fanotify::{Event, Mask, Place, Watch, called};

use super::table::{Key, Table};
use super::walk::{Walked, Ways};
use super::whole::named;

/// A queue, and the directories that it is about.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) watch: Watch,
    table: Table,
    /// Not all could be marked, and that was said.
    is_partial: bool,
    /// Whether all has to begin again.
    pub(super) is_out_of_step: bool,
}

impl Directories {
    /// Marks what is below `mount_point`, and says what of it could not be.
    pub(super) fn open(
        watch: Watch,
        mount_point: &TreePath,
        ways: Ways<'_>,
    ) -> (Self, Option<String>) {
        let mut all = Directories {
            watch,
            table: Table::default(),
            is_partial: false,
            is_out_of_step: false,
        };
        let left_out = match all.mark(ways, mount_point.clone(), None) {
            Ok(Walked::All) => None,
            Ok(Walked::Full) => Some(format!("no more than {} of them", Table::MOST)),
            Err(error) => Some(format!("not all of them: {error}")),
        };
        all.is_partial = left_out.is_some();
        (all, left_out)
    }

    /// Where a name of an event is.
    pub(super) fn locate(&mut self, place: &Place<'_>) -> Option<TreePath> {
        let key = self.table.key(place.directory.form, place.directory.bytes);
        let directory = self.table.path(key);
        self.is_out_of_step |= directory.is_none();
        named(directory?, place.name)
    }

    /// Takes in that a directory came, went, or became another's. What came is marked with all that is below it.
    pub(super) fn follow(&mut self, event: &Event<'_>, ways: Ways<'_>) {
        let went = Mask::DELETE.and(Mask::RENAME).and(Mask::MOVED_FROM);
        let came = Mask::CREATE.and(Mask::RENAME).and(Mask::MOVED_TO);
        if let Some(object) = &event.object
            && event.what.has_any(went)
        {
            let key = self.table.key(object.form, object.bytes);
            self.table.leave(key);
        }
        let place = match event.what.has(Mask::RENAME) {
            true => &event.to,
            false => &event.place,
        };
        if let Some(place) = place
            && event.what.has_any(came)
            && let Some(path) = self.locate(place)
        {
            let above = self.table.key(place.directory.form, place.directory.bytes);
            match self.mark(ways, path, Some(above)) {
                Ok(Walked::All) => {}
                Ok(Walked::Full) | Err(_) => self.is_out_of_step |= !self.is_partial,
            }
        }
    }

    /// Nothing is queued any more.
    pub(super) fn has_read_all(&mut self) {
        self.table.forget();
    }

    fn mark(&mut self, ways: Ways<'_>, path: TreePath, above: Option<Key>) -> io::Result<Walked> {
        let Directories { watch, table, .. } = self;
        ways.walk(path, above, &mut |directory, path, above| {
            if table.len() >= Table::MOST {
                return Ok(None);
            }
            watch.watch_directory(directory.as_fd())?;
            let (form, bytes) = called(directory.as_fd())?;
            let key = table.key(form, &bytes);
            match above {
                Some(above) => table.put(key, above, path.name()),
                None => table.begin(key, path.clone()),
            }
            Ok(Some(key))
        })
    }
}
