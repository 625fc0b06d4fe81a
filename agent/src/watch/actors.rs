//! Actors of events in, who they are out: as one storm of events mostly has one of them, the last ones are remembered.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use drift::TreePath;
use drift::attribution::Attribution;
use driftmark_kernel::fanotify::{Actor, Mask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::attribution::{Promptness, Running, Witness};
use crate::scan::Look;

/// What was done to a path since it was last looked at, and by whom.
#[derive(Debug, Clone)]
pub(super) struct Touch {
    /// All of it.
    pub(super) what: Mask,
    /// Whoever did the last of it.
    pub(super) by: Option<Arc<Attribution>>,
    /// Whether the look before this one may have seen it already, and named somebody else.
    pub(super) may_be_told: bool,
}

/// After this the content is somebody's.
const WRITTEN: Mask = Mask::MODIFY.and(Mask::CREATE);

/// Processes that did something lately.
#[derive(Debug, Default)]
pub(super) struct Actors(HashMap<u32, Known>);

#[derive(Debug)]
struct Known {
    pidfd: OwnedFd,
    looked: (Promptness, Duration),
    who: Arc<Attribution>,
}

impl Actors {
    /// Processes that write at the same time.
    const MOST: usize = 64;
    /// For so long a process is believed to be what it was: it may have become another program that lies where nothing is
    /// watched.
    const LASTS: Duration = Duration::from_millis(100);

    /// Who an actor is; `looked` says how soon after its event that is asked, and when.
    pub(super) fn tell(
        &mut self,
        witness: &Witness,
        actor: Actor,
        looked: (Promptness, Duration),
        in_image: impl Fn(&Running) -> bool,
    ) -> Arc<Attribution> {
        let (promptness, now) = looked;
        if let Some(known) = self.0.get(&actor.pid)
            && known.looked.0 == promptness
            && now.saturating_sub(known.looked.1) < Actors::LASTS
            && is_alive(&known.pidfd)
        {
            // As long as it lives nobody else has its number.
            return Arc::clone(&known.who);
        }
        let who = Arc::new(witness.attribute(&actor, promptness, in_image));
        if let Ok(pidfd) = actor.pidfd {
            if self.0.len() >= Actors::MOST {
                self.0.clear();
            }
            let who = Arc::clone(&who);
            self.0.insert(actor.pid, Known { pidfd, looked, who });
        }
        who
    }

    /// A process has become another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.remove(&pid);
    }
}

fn is_alive(pidfd: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}

/// What was done where, since it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Touches(BTreeMap<TreePath, Touch>);

impl Touches {
    /// As many as [`super::settle::Settle`] remembers paths; of what comes until some were looked at nobody is named.
    const MOST: usize = super::settle::Settle::MOST;

    pub(super) fn note(&mut self, path: &TreePath, what: Mask, by: &Arc<Attribution>) {
        if let Some(touch) = self.0.get_mut(path) {
            // Whoever closes it last may have done nothing but inherit it: a program that is started meanwhile, say.
            if what != Mask::CLOSE_WRITE || !touch.what.has_any(WRITTEN) {
                touch.by = Some(Arc::clone(by));
            }
            touch.what = touch.what.and(what);
        } else if self.0.len() < Touches::MOST {
            let by = Some(Arc::clone(by));
            let touch = Touch {
                what,
                by,
                may_be_told: false,
            };
            self.0.insert(path.clone(), touch);
        }
    }

    /// Looks have ended, and all that had happened by then is noted.
    pub(super) fn may_be_told(&mut self, looks: &[Look]) {
        for look in looks {
            let touches = self.0.range_mut(&look.path..);
            let covered = touches.take_while(|(path, _)| look.covers(path));
            covered.for_each(|(_, touch)| touch.may_be_told = true);
        }
    }

    /// Takes what is about to be looked at.
    pub(super) fn take(&mut self, looks: &[Look]) -> BTreeMap<TreePath, Touch> {
        // In path order, and none within another: what lies below one comes right after it.
        let mut taken = BTreeMap::new();
        for look in looks {
            let covered: Vec<TreePath> = self
                .0
                .range(&look.path..)
                .map(|(path, _)| path)
                .take_while(|path| look.covers(path))
                .cloned()
                .collect();
            taken.extend(covered.iter().filter_map(|path| self.0.remove_entry(path)));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Reach;

    #[test]
    fn who_wrote_did_it_and_not_who_closed_it_last() {
        let path = TreePath::new(b"etc/conf").unwrap();
        let [writer, closer] = [(); 2].map(|()| Arc::new(Attribution::none()));
        let by = |deeds: &[(Mask, &Arc<Attribution>)]| {
            let mut touches = Touches::default();
            for (what, by) in deeds {
                touches.note(&path, *what, by);
            }
            let look = Look {
                path: path.clone(),
                reach: Reach::Itself,
            };
            let touch = touches.take(&[look]).remove(&path).unwrap();
            touch.by.unwrap()
        };
        let inherited = by(&[(Mask::MODIFY, &writer), (Mask::CLOSE_WRITE, &closer)]);
        assert!(Arc::ptr_eq(&inherited, &writer));
        let again = by(&[(Mask::MODIFY, &closer), (Mask::MODIFY, &writer)]);
        assert!(Arc::ptr_eq(&again, &writer));
        // All that a mapping ever causes.
        let mapped = by(&[(Mask::ATTRIB, &closer), (Mask::CLOSE_WRITE, &writer)]);
        assert!(Arc::ptr_eq(&mapped, &writer));
    }

    #[test]
    fn what_is_done_while_it_is_looked_at_may_be_told_already() {
        let at = |path: &str| TreePath::new(path.as_bytes()).unwrap();
        let look = |path: &str, reach| Look {
            path: at(path),
            reach,
        };
        let by = Arc::new(Attribution::none());
        let mut touches = Touches::default();
        for path in ["etc", "etc/conf", "usr", "usr/bin", "usr/bin/su"] {
            touches.note(&at(path), Mask::ATTRIB, &by);
        }
        touches.may_be_told(&[look("etc", Reach::Itself), look("usr/bin", Reach::Below)]);
        touches.note(&at("usr/bin/su"), Mask::ATTRIB, &by);
        let taken = touches.take(&[look("etc", Reach::Below), look("usr", Reach::Below)]);
        let told = taken.iter().filter(|(_, touch)| touch.may_be_told);
        let told: Vec<&TreePath> = told.map(|(path, _)| path).collect();
        assert_eq!(told, [&at("etc"), &at("usr/bin"), &at("usr/bin/su")]);
    }
}
