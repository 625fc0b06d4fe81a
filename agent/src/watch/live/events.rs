//! Events as they are read in; changes of paths, and who made them, out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use drift::TreePath;
use drift::attribution::{Attribution, Origin};
use drift::compare::judge_execution;
use drift::finding::Drift;
use driftmark_kernel::fanotify::{Actor, Buffer, Event, Mask, Place, Watch};
use driftmark_kernel::{FileKind, Stat};

use super::{Live, READS_IN_A_ROW, Told, now};
use crate::scan::filesystems::within;
use crate::watch::attribution::{Promptness, Running, is_loader};
use crate::watch::eyes::At;
use crate::watch::settle::Change;
use crate::watch::starts::Starts;

/// A name was made, removed or became another.
const NAMES: Mask = Mask::CREATE
    .and(Mask::DELETE)
    .and(Mask::RENAME)
    .and(Mask::MOVED_FROM)
    .and(Mask::MOVED_TO);
/// What is said of an inode, whatever name it was done through.
const OF_INODES: Mask = Mask::MODIFY.and(Mask::CLOSE_WRITE).and(Mask::ATTRIB);

impl Live<'_> {
    /// Takes what is queued; how many events that were.
    ///
    /// # Errors
    /// A sentence: a queue cannot be read.
    pub(super) fn read(&mut self) -> Result<usize, String> {
        let mut buffer = Buffer::default();
        let (mut count, mut is_all) = (0, true);
        let began = now();
        if self
            .starts
            .as_ref()
            .is_some_and(|starts| starts.next <= began)
        {
            self.read_starts();
        }
        for eye in 0..self.eyes.all.len() {
            let mut reads = 0;
            loop {
                let read = self.read_once(eye, None, &mut buffer);
                let some = read.map_err(|error| format!("events cannot be read: {error}"))?;
                count += some;
                reads += 1;
                self.eyes.all[eye].has_been_read(some);
                if some == 0 {
                    break;
                }
                if reads == READS_IN_A_ROW {
                    is_all = false;
                    break;
                }
            }
        }
        if is_all {
            self.around.seen.all(began);
        }
        Ok(count)
    }

    /// What an ignored directory was renamed to may be held: everything is marked anew, without what is ignored.
    pub(super) fn renew(&mut self) {
        self.is_to_renew = false;
        let mut buffer = Buffer::default();
        for (eye, before) in self.eyes.renew() {
            while self
                .read_once(eye, Some(&before), &mut buffer)
                .is_ok_and(|some| some > 0)
            {}
            // Not sooner: what is queued in the one before outlives this agent as long as it is not read.
            self.eyes.all[eye].keep(&self.around.order.keeper);
        }
    }

    fn read_once(
        &mut self,
        eye: usize,
        other: Option<&Watch>,
        buffer: &mut Buffer,
    ) -> std::io::Result<usize> {
        let mut count = 0;
        let Some(watch) = other.or(self.eyes.all[eye].watch()) else {
            return Ok(self.read_names(eye));
        };
        let Some(events) = watch.read(buffer)? else {
            return Ok(0);
        };
        // Whoever did any of it was started before.
        self.read_starts();
        for event in events {
            count += 1;
            match event {
                Ok(event) => self.take(eye, event),
                Err(error) => {
                    tracing::warn!(%error, "an event is not understood");
                    self.is_in_doubt = true;
                }
            }
        }
        Ok(count)
    }

    /// What happened where nobody is known to have done it.
    fn read_names(&mut self, eye: usize) -> usize {
        let (mut count, nobody) = (0, Arc::new(Attribution::none()));
        while count < READS_IN_A_ROW
            && let Some((path, what)) = self.eyes.all[eye].next_name(self.ways)
        {
            count += 1;
            let is_held = !self.ways.rules.below_volatile(&path);
            if is_held && !self.eyes.is_beneath_another(eye, &path) {
                self.changed(path, change_of(what), what, &nobody);
            }
        }
        if self.eyes.all[eye].has_lost_names() {
            self.blind();
        }
        count
    }

    fn blind(&mut self) {
        let (from, until) = (self.around.seen.until(), now());
        (self.around.tell)(Told::Blind { from, until });
    }

    fn take(&mut self, eye: usize, event: Event<'_>) {
        if event.is_overflow() {
            // What is ignored may be held by now, without a word about that.
            self.is_to_renew = true;
            self.eyes.all[eye].has_lost();
            return self.blind();
        }
        self.eyes.all[eye].follow(&event, self.ways);
        if event.what.has(Mask::FS_ERROR) {
            tracing::warn!(fault = ?event.fault, "a file system met an error");
            self.is_in_doubt = true;
        }
        let ends = [&event.from, &event.to];
        let places: Vec<At> = match (&event.place, ends) {
            (Some(place), [None, None]) => self.at(eye, place).into_iter().collect(),
            (_, ends) => ends
                .into_iter()
                .flatten()
                .filter_map(|place| self.at(eye, place))
                .collect(),
        };
        if event.place.is_none() && event.from.is_none() && event.to.is_none() {
            return self.nameless(eye, event, None);
        }
        let rules = self.ways.rules;
        let is_held = |at: &&At| !at.is_free && !rules.below_volatile(&at.path);
        if event.what.has_any(Mask::RENAME.and(Mask::MOVED_TO))
            && event.what.has(Mask::ON_DIRECTORY)
            && places.iter().any(|at| is_held(&at))
        {
            self.is_to_renew = true;
        }
        if !event.what.has_any(Mask::RENAME) {
            let free = places.iter().filter(|at| at.is_free);
            free.filter_map(|at| at.directory.as_ref())
                .for_each(|directory| self.eyes.all[eye].ignore(directory));
        }
        let change = change_of(event.what);
        let what = event.what;
        let (held, free): (Vec<At>, Vec<At>) = places.into_iter().partition(|at| is_held(&at));
        if held.is_empty() {
            // It may have another name that is.
            if event.what.has_any(OF_INODES) {
                self.nameless(eye, event, free.into_iter().next());
            }
            return;
        }
        let by = self.actor(event.actor, promptness(self.eyes.all[eye].is_late()));
        for At { path, .. } in held {
            self.changed(path, change, what, &by);
        }
    }

    /// Of an inode, and of no name that is held: its number of names is another one, or it was changed through a name that
    /// is gone, or is none of the image's.
    fn nameless(&mut self, eye: usize, event: Event<'_>, at: Option<At>) {
        let found = event
            .object
            .as_ref()
            .map(|object| self.eyes.all[eye].find(object));
        let (stat, path) = match (found, at) {
            (Some(Ok(Some(found))), _) => found,
            (Some(Err(_)), _) => return self.is_in_doubt = true,
            // Where an inode cannot be opened, the name that it was changed through tells how many it has.
            (
                _,
                Some(At {
                    directory: None,
                    path,
                    ..
                }),
            ) => match self.ways.filesystems.look_up(&path) {
                Ok(stat) => (stat, path),
                Err(_) => return,
            },
            _ => return,
        };
        let is_it = |found: Stat| (found.dev, found.ino) == (stat.dev, stat.ino);
        let is_held = !self.ways.rules.below_volatile(&path)
            && !self.eyes.is_beneath_another(eye, &path)
            && self.ways.filesystems.look_up(&path).is_ok_and(is_it);
        if is_held {
            // Whether its other names are as they should be, the look finds out.
            let promptness = promptness(self.eyes.all[eye].is_late());
            let (what, by) = (event.what, self.actor(event.actor, promptness));
            self.changed(path, Change::Done, what, &by);
        } else if stat.nlink > 1 && stat.kind != FileKind::Directory {
            // Which names it has, only a pass can tell.
            self.is_in_doubt = true;
        }
    }

    fn changed(&mut self, path: TreePath, change: Change, what: Mask, by: &Arc<Attribution>) {
        self.touches.note(&path, what, by);
        self.settle.changed(path, change, now());
    }

    /// Where a name lies now; none where it is not the image's.
    fn at(&mut self, eye: usize, place: &Place<'_>) -> Option<At> {
        match self.eyes.all[eye].locate(place, self.ways) {
            Ok(found) => found.filter(|at| !self.eyes.is_beneath_another(eye, &at.path)),
            Err(error) => {
                tracing::debug!(%error, "where an event happened cannot be told");
                self.is_in_doubt = true;
                None
            }
        }
    }

    fn actor(&mut self, actor: Actor, promptness: Promptness) -> Arc<Attribution> {
        let (around, programs) = (self.around, &self.programs);
        let filesystems = self.ways.filesystems;
        let in_image = |running: &Running| {
            let Some(path) = within(&around.order.root, running.path()) else {
                return false;
            };
            running.lies_at(filesystems, &path)
                && (programs.borrow_mut())
                    .has(&around.order.baseline, &path)
                    .unwrap_or(false)
        };
        let looked = (promptness, now());
        self.actors.tell(&self.witness, actor, looked, in_image)
    }

    /// Takes in which programs were started.
    pub(super) fn read_starts(&mut self) {
        let Some(starts) = &mut self.starts else {
            return;
        };
        let (around, actors, witness) = (self.around, &mut self.actors, &mut self.witness);
        let mut strangers: Vec<(TreePath, Actor, u64)> = Vec::new();
        let programs = self.programs.get_mut();
        let promptness = promptness(starts.is_late);
        let read = starts.read(&mut self.started, &mut |actor, path| {
            actors.forget(actor.pid);
            let inside = within(&around.order.root, path);
            // What cannot be read is not known to be the image's, now.
            let mut is_the_images =
                |path| programs.has(&around.order.baseline, path).unwrap_or(false);
            let origin = match &inside {
                Some(path) if is_the_images(path) => Origin::Image,
                // Beside a tree that is not this host's own: its loaders are the host's.
                None if is_loader(path) => return,
                _ => Origin::Foreign,
            };
            witness.ran(&actor, path, origin);
            let Some(path) = inside.filter(|_| origin == Origin::Foreign) else {
                return;
            };
            if self.strangers.is_news(&path, now()) {
                strangers.push((path, actor, 1));
            } else if self.strangers.is_contained(&path) {
                around.container_starts.fetch_add(1, Ordering::Relaxed);
            } else if let Some((_, _, count)) = strangers.iter_mut().find(|new| new.0 == path) {
                *count += 1;
            }
        });
        match read {
            Ok(0) => {}
            Ok(_) => starts.next = now() + Starts::REST,
            Err(error) => {
                tracing::warn!(%error, "which programs are started is not known any more");
                self.starts = None;
            }
        }
        for (path, actor, count) in strangers {
            self.executed(&path, (actor, promptness), count);
        }
    }

    /// Tells of a program that is not the image's, and was started so many times. What a container runs is its own image's:
    /// that is counted.
    fn executed(&mut self, path: &TreePath, (actor, promptness): (Actor, Promptness), count: u64) {
        let by = self.actor(actor, promptness);
        let container = by.process.as_ref().and_then(|by| by.container.as_ref());
        if container.is_some_and(|container| container.runtime.is_some()) {
            let starts = &self.around.container_starts;
            starts.fetch_add(count, Ordering::Relaxed);
            self.strangers.contained(path);
            return;
        }
        let drift = Drift {
            attribution: Some(Box::new(Attribution::clone(&by))),
            ..judge_execution(path)
        };
        (self.around.tell)(Told::Executed(Box::new(drift)));
    }
}

fn promptness(is_late: bool) -> Promptness {
    match is_late {
        true => Promptness::Late,
        false => Promptness::AtOnce,
    }
}

/// What an event makes of a name.
fn change_of(what: Mask) -> Change {
    if what.has(Mask::ON_DIRECTORY) && what.has_any(NAMES) {
        // It comes, or goes, with all that is in it.
        return Change::Below;
    }
    let is_written = what.has(Mask::MODIFY) && !what.has(Mask::CLOSE_WRITE);
    if is_written && !what.has_any(NAMES) {
        Change::Writing
    } else {
        Change::Done
    }
}
