//! One path in, what the walk would meet there, and below it, out: no directory above it is listed.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use drift::TreePath;
use driftmark_kernel::boot;

use super::{At, Holding, Looked, Place, Ruled, Visit, Walk, tell, unreadable};
use crate::scan::filesystems::is_absent;

impl Walk<'_> {
    /// Tells `visit` what is at `path` alone. False where nothing is there.
    ///
    /// Not of what lies below a volatile directory, which a walk says nothing of.
    ///
    /// # Errors
    /// Whatever `visit` gives.
    pub(crate) fn at<E>(
        &self,
        path: &TreePath,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let is_top = path.is_root() || self.filesystems.mounted_at(path).is_some();
        let parent = match (is_top, path.parent()) {
            (false, Some(parent)) => parent,
            _ => return self.top(path, visit),
        };
        let (dir, holding) = match self.filesystems.directory_of(&parent) {
            Ok(found) => found,
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return visit(Visit::Gap(unreadable(path, &error))).map(|()| true),
        };
        let (dir, name) = match CString::new(path.name()) {
            Ok(name) => (Arc::new(dir), name),
            Err(_) => return Ok(false),
        };
        let place = Place {
            dir: &dir,
            name: &name,
            holding,
        };
        let Some(at) = At::of(&parent, &name) else {
            return Ok(false);
        };
        let scope = self.rules.scope();
        let rule = scope.first_match(path);
        match self.look(&at, place, None, (&scope, true), rule) {
            Looked::Directory(dir, holding) => directory(path, &dir, holding, visit).map(|()| true),
            looked => tell(looked, at, place, rule, visit),
        }
    }

    /// Tells `visit` what is at `path` and below it, in path order. False where nothing is there.
    ///
    /// # Errors
    /// Whatever `visit` gives.
    pub(crate) fn below<E>(
        &mut self,
        path: &TreePath,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Ok((dir, holding)) = self.filesystems.directory_of(path) else {
            return self.at(path, visit);
        };
        let scope = self.rules.scope();
        let ruled = Ruled::of(&scope, scope.first_match(path), path);
        let mut levels = Vec::new();
        self.enter(dir, path.clone(), holding, ruled, &mut levels, visit)?;
        self.through(&mut levels, visit)?;
        Ok(true)
    }

    /// The top of one of the file systems.
    fn top<E>(
        &self,
        path: &TreePath,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        match self.filesystems.directory_of(path) {
            Ok((dir, holding)) => directory(path, &dir, holding, visit)?,
            Err(error) => visit(Visit::Gap(unreadable(path, &error)))?,
        }
        Ok(true)
    }
}

fn directory<E>(
    path: &TreePath,
    dir: &driftmark_kernel::Dir,
    holding: Holding,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let looked_at = boot::realtime_ns();
    let stat: io::Result<_> = dir.stat();
    match stat {
        Ok(stat) => visit(Visit::Directory {
            path: path.clone(),
            dir,
            stat,
            looked_at,
            holding,
        }),
        Err(error) => visit(Visit::Gap(unreadable(path, &error))),
    }
}
