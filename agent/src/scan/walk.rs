//! Walks an image's file systems in path order and says what is at each path.
//!
//! Directories are read whole, their names sorted, and each is entered right after it was visited. The walk keeps an
//! explicit stack: a tree may be as deep as it likes. A walk may be of a part of the paths alone: it then lists the
//! directories above its first path, without visiting them, and keeps no name that is not on the way. A path is put
//! together only for who asks for it.

mod at;
mod found;
mod place;
mod single;

use std::ffi::CStr;
use std::io;
use std::sync::Arc;

use drift::TreePath;
use drift::coverage::{Gap, GapReason};
use drift::rules::{Rule, Rules, Scope};
use driftmark_kernel::{Access, Between, Dir, FileKind, Names, Scratch, Stat, boot};

use super::filesystems::{Filesystems, Holding};

pub(crate) use at::At;
pub(crate) use found::{directory_entry, entry, gap, group, is_gone, other_entry, unreadable};
pub(crate) use place::{HeldPlace, Place};

/// What the walk meets at a path.
pub(crate) enum Visit<'w> {
    /// A regular file, by what its directory says of it: still to be opened and read.
    File {
        at: At<'w>,
        place: Place<'w>,
        /// The rule that counts there.
        rule: Option<&'w Rule>,
    },
    /// A directory, open: [`directory_entry`] gives all that is held of it.
    Directory {
        path: TreePath,
        dir: &'w Dir,
        stat: Stat,
        /// A moment before that was looked at, nanoseconds since 1970.
        looked_at: i64,
        holding: Holding,
    },
    /// Anything else: [`other_entry`] gives all that is held of it.
    Other {
        at: At<'w>,
        stat: Stat,
        /// A moment before that was looked at, nanoseconds since 1970.
        looked_at: i64,
        place: Place<'w>,
    },
    /// Something that cannot be looked at, and nothing below it.
    Gap(Gap),
}

impl Visit<'_> {
    /// Whether something was met at this path.
    pub(crate) fn is_at(&self, path: &TreePath) -> bool {
        match self {
            Visit::File { at, .. } | Visit::Other { at, .. } => at.is(path),
            Visit::Directory { path: met, .. } => met == path,
            Visit::Gap(_) => false,
        }
    }
}

/// A walk over file systems, led by the rules: below a volatile rule nothing is looked at.
pub(crate) struct Walk<'a> {
    filesystems: &'a Filesystems,
    rules: &'a Rules,
    start: Option<&'a TreePath>,
    end: Option<&'a TreePath>,
    /// Buffers of directories that were gone through.
    spare: Vec<Names>,
    scratch: Scratch,
}

/// A directory that is being gone through.
struct Level<'a> {
    dir: Arc<Dir>,
    path: TreePath,
    names: Names,
    next: usize,
    holding: Holding,
    /// The rules that may count at its names.
    scope: Scope<'a>,
    /// Whether a file system of the image belongs at one of its names.
    has_mount_points: bool,
}

impl<'a> Level<'a> {
    fn place<'d>(&'d self, name: &'d CStr) -> Place<'d> {
        Place {
            dir: &self.dir,
            name,
            holding: self.holding,
        }
    }

    /// What may count at its names: rules, and whether a file system of the image belongs at one.
    fn around(&self) -> (&Scope<'a>, bool) {
        (&self.scope, self.has_mount_points)
    }

    /// The rule that counts at one of its names.
    fn rule(&self, at: &At<'_>) -> Option<&'a Rule> {
        match self.scope.is_empty() {
            true => None,
            false => self.scope.first_match(at.path()),
        }
    }

    /// Whether one of its names, none of which is beyond the one that leads to `end`, is `end` itself.
    fn is_at_end(&self, end: Option<&TreePath>, name: &CStr) -> bool {
        end.is_some_and(|end| end.is_joined_of(&self.path, name.to_bytes()))
    }
}

/// What the rules say of a directory.
struct Ruled<'a> {
    /// Whether anything of it is held.
    is_held: bool,
    /// Those that may count below it; none where nothing below it is held.
    below: Option<Scope<'a>>,
}

impl<'a> Ruled<'a> {
    fn of(scope: &Scope<'a>, rule: Option<&Rule>, directory: &TreePath) -> Self {
        Ruled {
            is_held: !is_below_volatile(rule, directory),
            below: scope.descend(directory).then(|| scope.below(directory)),
        }
    }
}

/// What a name of a directory turned out to be.
enum Looked {
    Directory(Dir, Holding),
    File,
    Other(Stat, i64),
    Gap(Gap),
    /// It went, or nothing is held of it.
    Nothing,
}

/// What a name that is no directory of the tree is, told. Whether there was anything to tell.
fn tell<E>(
    looked: Looked,
    at: At<'_>,
    place: Place<'_>,
    rule: Option<&Rule>,
    visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    match looked {
        Looked::File => visit(Visit::File { at, place, rule })?,
        Looked::Other(stat, looked_at) => visit(Visit::Other {
            at,
            stat,
            looked_at,
            place,
        })?,
        Looked::Gap(gap) => visit(Visit::Gap(gap))?,
        Looked::Directory(..) | Looked::Nothing => return Ok(false),
    }
    Ok(true)
}

impl<'a> Walk<'a> {
    pub(crate) fn new(filesystems: &'a Filesystems, rules: &'a Rules) -> Self {
        Walk {
            filesystems,
            rules,
            start: None,
            end: None,
            spare: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Only the paths from `start` on, and those before `end`. A gap above `start` is told here too.
    pub(crate) fn between(
        mut self,
        start: Option<&'a TreePath>,
        end: Option<&'a TreePath>,
    ) -> Self {
        (self.start, self.end) = (start, end);
        self
    }

    /// Tells `visit` what is at each path, in path order, until it breaks off.
    ///
    /// # Errors
    /// A root that cannot be opened, and whatever `visit` gives.
    pub(crate) fn run<E>(
        &mut self,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<io::Result<()>, E> {
        let root = match self.filesystems.root().root() {
            Ok(root) => root,
            Err(error) => return Ok(Err(error)),
        };
        let mut levels = Vec::new();
        match self.start {
            None => {
                let (path, scope) = (TreePath::root(), self.rules.scope());
                let ruled = Ruled::of(&scope, scope.first_match(&path), &path);
                self.enter(root, path, Holding::All, ruled, &mut levels, visit)?;
            }
            Some(start) => self.resume(root, start, &mut levels, visit)?,
        }
        self.through(&mut levels, visit)?;
        Ok(Ok(()))
    }

    /// Goes through what is left of these directories, and through what they lead to.
    fn through<E>(
        &mut self,
        levels: &mut Vec<Level<'a>>,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.get(level.next) else {
                self.leave(levels);
                continue;
            };
            level.next += 1;
            let Some(at) = At::of(&level.path, name.name) else {
                visit(Visit::Gap(gap(&level.path, GapReason::TooDeep, "")))?;
                self.leave(levels);
                continue;
            };
            if level.is_at_end(self.end, name.name) {
                break;
            }
            let place = level.place(name.name);
            let rule = level.rule(&at);
            match self.look(&at, place, name.kind, level.around(), rule) {
                Looked::Directory(dir, holding) => {
                    let path = at.into_path();
                    let ruled = Ruled::of(&level.scope, rule, &path);
                    self.enter(dir, path, holding, ruled, levels, visit)?;
                }
                looked => {
                    tell(looked, at, place, rule, visit)?;
                }
            }
        }
        Ok(())
    }

    /// Lists the directories above `start`, each from the name on that leads there.
    fn resume<E>(
        &mut self,
        root: Dir,
        start: &TreePath,
        levels: &mut Vec<Level<'a>>,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut dir, mut path, mut holding) = (root, TreePath::root(), Holding::All);
        let mut scope = self.rules.scope();
        let mut components = start.components().peekable();
        while let Some(component) = components.next() {
            if !scope.descend(&path) {
                return Ok(());
            }
            scope = scope.below(&path);
            match self.list(dir, path, holding, scope.clone()) {
                Ok(level) => levels.push(level),
                Err(gap) => return visit(Visit::Gap(gap)),
            }
            let level = levels.last_mut().expect("it was pushed");
            level.next = level.names.position_of(component);
            if components.peek().is_none() {
                return Ok(());
            }
            let next = level.names.get(level.next);
            let Some(name) = next.filter(|name| name.name.to_bytes() == component) else {
                return Ok(());
            };
            level.next += 1;
            let Some(at) = At::of(&level.path, name.name) else {
                return Ok(());
            };
            let (place, rule) = (level.place(name.name), level.rule(&at));
            match self.look(&at, place, name.kind, level.around(), rule) {
                Looked::Directory(found, held) => {
                    (dir, path, holding) = (found, at.into_path(), held);
                }
                Looked::Gap(gap) => return visit(Visit::Gap(gap)),
                Looked::File | Looked::Other(..) | Looked::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    /// A directory that says that a name is a regular file or a directory is believed, where nothing can be mounted over
    /// it: what it really is, the open that follows finds out.
    fn look(
        &self,
        at: &At<'_>,
        place: Place<'_>,
        listed: Option<FileKind>,
        (scope, has_mount_points): (&Scope<'_>, bool),
        rule: Option<&Rule>,
    ) -> Looked {
        if has_mount_points {
            if let Some((tree, holding)) = self.filesystems.mounted_at(at.path()) {
                return match tree.root() {
                    Ok(dir) => Looked::Directory(dir, holding),
                    Err(error) => Looked::Gap(unreadable(at.path(), &error)),
                };
            }
            if self.filesystems.is_missing(at.path()) {
                return Looked::Gap(gap(at.path(), GapReason::FilesystemMissing, ""));
            }
        }
        let below_volatile = rule.is_some() && is_below_volatile(rule, at.path());
        if place.dir.access() == Access::PrivateClone {
            match listed {
                Some(FileKind::File | FileKind::Directory)
                    if below_volatile && !scope.descend(at.path()) =>
                {
                    return Looked::Nothing;
                }
                Some(FileKind::File) if !below_volatile => return Looked::File,
                Some(FileKind::Directory) => {
                    if let Ok(dir) = place.dir.open_dir(place.name) {
                        return Looked::Directory(dir, place.holding);
                    }
                }
                _ => {}
            }
        }
        let looked_at = boot::realtime_ns();
        let stat = match place.stat() {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return Looked::Nothing,
            Err(error) => return Looked::Gap(unreadable(at.path(), &error)),
        };
        if place.dir.crosses(&stat) {
            return if below_volatile {
                Looked::Nothing
            } else {
                Looked::Gap(gap(at.path(), GapReason::UnderMount, ""))
            };
        }
        match stat.kind {
            FileKind::Directory if below_volatile && !scope.descend(at.path()) => Looked::Nothing,
            FileKind::Directory => match place.dir.open_dir(place.name) {
                Ok(dir) => Looked::Directory(dir, place.holding),
                Err(error) if is_gone(&error) => Looked::Nothing,
                Err(error) => Looked::Gap(unreadable(at.path(), &error)),
            },
            _ if below_volatile => Looked::Nothing,
            FileKind::File => Looked::File,
            _ => Looked::Other(stat, looked_at),
        }
    }

    /// Visits a directory and makes it the one that is gone through next.
    fn enter<E>(
        &mut self,
        dir: Dir,
        path: TreePath,
        holding: Holding,
        ruled: Ruled<'a>,
        levels: &mut Vec<Level<'a>>,
        visit: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if ruled.is_held {
            let looked_at = boot::realtime_ns();
            let visited = match dir.stat() {
                Ok(stat) => Visit::Directory {
                    path: path.clone(),
                    dir: &dir,
                    stat,
                    looked_at,
                    holding,
                },
                Err(error) => return visit(Visit::Gap(unreadable(&path, &error))),
            };
            visit(visited)?;
        }
        let Some(below) = ruled.below else {
            return Ok(());
        };
        match self.list(dir, path, holding, below) {
            Ok(level) => levels.push(level),
            Err(gap) => visit(Visit::Gap(gap))?,
        }
        Ok(())
    }

    fn list(
        &mut self,
        mut dir: Dir,
        path: TreePath,
        holding: Holding,
        scope: Scope<'a>,
    ) -> Result<Level<'a>, Gap> {
        let mut names = self.spare.pop().unwrap_or_default();
        // A part may begin and end in the midst of a directory of any size.
        let between = Between {
            first: self.start.and_then(|start| name_towards(&path, start)),
            last: self.end.and_then(|end| name_towards(&path, end)),
        };
        if let Err(error) = dir.names_between(between, &mut names, &mut self.scratch) {
            return Err(unreadable(&path, &error));
        }
        names.sort();
        Ok(Level {
            has_mount_points: self.filesystems.has_mount_points_in(&path),
            dir: Arc::new(dir),
            path,
            names,
            next: 0,
            holding,
            scope,
        })
    }

    fn leave(&mut self, levels: &mut Vec<Level<'a>>) {
        self.spare.extend(levels.pop().map(|level| level.names));
    }
}

/// The name in a directory by which a path lies below it; none of one that does not.
fn name_towards<'p>(directory: &TreePath, path: &'p TreePath) -> Option<&'p [u8]> {
    if !path.is_within(directory) {
        return None;
    }
    path.components().nth(directory.components().count())
}

/// Whether the rule that counts at a path is a volatile one of a directory above: nothing here is held.
fn is_below_volatile(rule: Option<&Rule>, path: &TreePath) -> bool {
    rule.is_some_and(|rule| rule.reaches_from_above(path))
}
