//! Where something is: a name in a directory, and the path of both, put together once it is asked for.

use std::cell::OnceCell;
use std::ffi::CStr;

use drift::TreePath;

/// A name of a directory that is being gone through.
#[derive(Debug)]
pub(crate) struct At<'w> {
    directory: &'w TreePath,
    name: &'w CStr,
    path: OnceCell<TreePath>,
}

impl<'w> At<'w> {
    /// None where the two make no path: it would be too long.
    pub(super) fn of(directory: &'w TreePath, name: &'w CStr) -> Option<Self> {
        directory.can_join(name.to_bytes()).then(|| At {
            directory,
            name,
            path: OnceCell::new(),
        })
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &'w TreePath {
        self.directory
    }

    /// The name in it.
    pub(crate) fn name(&self) -> &'w CStr {
        self.name
    }

    /// Whether that is the path of both.
    pub(crate) fn is(&self, path: &TreePath) -> bool {
        path.is_joined_of(self.directory, self.name.to_bytes())
    }

    /// The path of both.
    pub(crate) fn path(&self) -> &TreePath {
        self.path.get_or_init(|| self.joined())
    }

    /// The same, to keep.
    pub(crate) fn into_path(mut self) -> TreePath {
        self.path.take().unwrap_or_else(|| self.joined())
    }

    fn joined(&self) -> TreePath {
        let joined = self.directory.join(self.name.to_bytes());
        joined.expect("it was seen that the two make a path")
    }
}
