//! The image's file systems in; a mark on each, the best that it allows, and where its events happened, out.
//!
//! What is best is found out by trying, from above: [`whole`], [`directories`] one by one ([`table`] knows where these
//! are), [`names`] alone. What is seen less is a sentence each.

mod directories;
mod kept;
mod names;
mod table;
mod walk;
mod whole;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use drift::{Blake3, TreePath};
use driftmark_kernel::fanotify::{Event, Handle, Holder, Mask, Place, Shows, Sight, Watch};
use driftmark_kernel::{Mount, Stat, Tree};

use self::directories::Directories;
use self::names::Names;
pub(super) use self::walk::Ways;
use self::whole::Whole;
use crate::scan::filesystems::{below, topmost_at};
use crate::supervise::Keeper;

/// One watched file system: a queue of its own, as a queue may refuse to hold two kinds of them.
#[derive(Debug)]
pub(super) struct Eye {
    mount_point: TreePath,
    sees: Sees,
}

#[derive(Debug)]
enum Sees {
    Whole(Whole),
    Directories(Directories),
    Names(Names),
}

/// What is watched, and what is not.
#[derive(Debug, Default)]
pub(super) struct Eyes {
    pub(super) all: Vec<Eye>,
    /// What is seen less, a sentence each.
    pub(super) limits: Vec<String>,
    /// Whether nothing has happened unseen since an agent before this one ended, but for what its queues had no room for.
    pub(super) is_resumed: bool,
}

/// A name that an event is about.
#[derive(Debug)]
pub(super) struct At {
    /// The directory that it is in, open without rights on its content, where it can be opened.
    pub(super) directory: Option<Arc<OwnedFd>>,
    pub(super) path: TreePath,
    /// Nothing that lies in that directory is held.
    pub(super) is_free: bool,
}

/// What eyes are opened with.
pub(super) struct Opening<'a> {
    pub(super) ways: Ways<'a>,
    /// The root of the tree on this host.
    pub(super) root: &'a Path,
    pub(super) mounts: &'a [Mount],
    /// Written to when there is something to read that no queue of [`Eye::watch`] has.
    pub(super) wake: &'a Arc<OwnedFd>,
    /// Where queues are kept over a restart.
    pub(super) keeper: &'a Keeper,
    /// What is held.
    pub(super) manifest: Blake3,
}

impl Eyes {
    /// Marks every file system of the image, or goes on with the marks of an agent before this one.
    pub(super) fn open(with: &Opening<'_>) -> Eyes {
        let mut eyes = Eyes {
            is_resumed: true,
            ..Eyes::default()
        };
        let top = TreePath::root();
        let filesystems = with.ways.filesystems;
        for (mount_point, tree) in
            std::iter::once((&top, filesystems.root())).chain(filesystems.others())
        {
            let mount = topmost_at(with.mounts, &below(with.root, mount_point));
            let opened = Eye::open(tree, mount_point, mount, with);
            eyes.is_resumed &= opened.as_ref().is_ok_and(|(eye, _)| eye.is_late());
            let limits = match opened {
                Ok((eye, limit)) => {
                    eyes.all.push(eye);
                    limit
                        .into_iter()
                        .chain(mount.and_then(made_elsewhere))
                        .collect()
                }
                Err(because) => vec![format!("not watched: {because}")],
            };
            let limits = limits.into_iter();
            eyes.limits
                .extend(limits.map(|limit| format!("between scans {mount_point} is {limit}")));
        }
        eyes
    }

    /// What the service manager keeps of it.
    pub(super) fn kept_as(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter_map(|eye| match &eye.sees {
            Sees::Whole(whole) => Some(whole.kept_as.as_str()),
            Sees::Directories(_) | Sees::Names(_) => None,
        })
    }

    /// Marks everything anew, and gives what was marked before: what these still have is theirs to tell. Whatever was
    /// ignored is seen again.
    pub(super) fn renew(&mut self) -> Vec<(usize, Watch)> {
        let eyes = self.all.iter_mut().enumerate();
        let before = eyes.filter_map(|(nth, eye)| match &mut eye.sees {
            Sees::Whole(whole) => Some((nth, whole.renew()?)),
            // There nothing is ignored.
            Sees::Directories(_) | Sees::Names(_) => None,
        });
        before.collect()
    }

    /// Whether another file system of the image lies over this path of one.
    pub(super) fn is_beneath_another(&self, eye: usize, path: &TreePath) -> bool {
        let own = &self.all[eye].mount_point;
        let others = self.all.iter().map(|other| &other.mount_point);
        others
            .filter(|other| *other != own && other.is_within(own))
            .any(|other| path.is_within(other))
    }

    /// Whether what is marked one by one is not what should be: then all has to begin again.
    pub(super) fn are_out_of_step(&self) -> bool {
        self.all.iter().any(|eye| match &eye.sees {
            Sees::Whole(_) => false,
            Sees::Directories(directories) => directories.is_out_of_step,
            Sees::Names(names) => names.is_out_of_step,
        })
    }
}

impl Eye {
    /// With what is seen less.
    fn open(
        tree: &Tree,
        mount_point: &TreePath,
        mount: Option<&Mount>,
        with: &Opening<'_>,
    ) -> io::Result<(Eye, Option<String>)> {
        let holder = Holder::of(tree, shows(mount))?;
        let path = below(with.root, mount_point);
        let kept_as = kept::name(with, &path);
        let kept = kept::taken_back(with, &kept_as, &path);
        let is_late = kept.is_some();
        let (sight, watch) = match kept.map_or_else(queue, Ok) {
            Ok(watch) => (watch.watch_filesystem(holder.as_fd()), Some(watch)),
            Err(because) => (Sight::None { because }, None),
        };
        let said = sight.to_string();
        let (sees, limit) = match (sight, watch) {
            (Sight::Whole { .. }, Some(watch)) => {
                let mut whole = Whole::new(watch, holder, kept_as);
                whole.is_late = is_late;
                if !is_late {
                    with.keeper.keep(&whole.kept_as, &whole.watch);
                }
                (Sees::Whole(whole), None)
            }
            (Sight::Directories { .. }, Some(watch)) => {
                let (all, left_out) = Directories::open(watch, mount_point, with.ways);
                (Sees::Directories(all), Some(less(&said, LESS, left_out)))
            }
            _ => {
                let opened = Names::open(with.root, mount_point, with.ways, Arc::clone(with.wake));
                let (names, left_out) = opened?;
                (Sees::Names(names), Some(less(&said, LEAST, left_out)))
            }
        };
        let mount_point = mount_point.clone();
        Ok((Eye { mount_point, sees }, limit))
    }

    /// The queue that its events are read from, if it has one that tells who did it.
    pub(super) fn watch(&self) -> Option<&Watch> {
        match &self.sees {
            Sees::Whole(whole) => Some(&whole.watch),
            Sees::Directories(directories) => Some(&directories.watch),
            Sees::Names(_) => None,
        }
    }

    /// Whether what is queued happened while nobody read.
    pub(super) fn is_late(&self) -> bool {
        matches!(&self.sees, Sees::Whole(whole) if whole.is_late)
    }

    /// Has the service manager keep what it has now.
    pub(super) fn keep(&self, keeper: &Keeper) {
        if let Sees::Whole(whole) = &self.sees {
            keeper.keep(&whole.kept_as, &whole.watch);
        }
    }

    /// The next thing that happened, and where, of which nobody knows who did it.
    pub(super) fn next_name(&mut self, ways: Ways<'_>) -> Option<(TreePath, Mask)> {
        match &mut self.sees {
            Sees::Names(names) => names.next(ways),
            Sees::Whole(_) | Sees::Directories(_) => None,
        }
    }

    /// Whether what [`Eye::next_name`] tells is not all, since this was last asked.
    pub(super) fn has_lost_names(&mut self) -> bool {
        match &mut self.sees {
            Sees::Names(names) => names.has_lost(),
            Sees::Whole(_) | Sees::Directories(_) => false,
        }
    }

    /// Events were lost.
    pub(super) fn has_lost(&mut self) {
        if let Sees::Directories(directories) = &mut self.sees {
            directories.is_out_of_step = true;
        }
    }

    /// Takes in what an event makes of the marks, before anything else is done about it.
    pub(super) fn follow(&mut self, event: &Event<'_>, ways: Ways<'_>) {
        if let Sees::Directories(directories) = &mut self.sees
            && event.what.has(Mask::ON_DIRECTORY)
        {
            directories.follow(event, ways);
        }
    }

    /// It was read, and `count` events came: none where nothing is queued any more.
    pub(super) fn has_been_read(&mut self, count: usize) {
        match &mut self.sees {
            Sees::Whole(whole) => {
                whole.forget();
                whole.is_late &= count > 0;
            }
            Sees::Directories(directories) if count == 0 => directories.has_read_all(),
            Sees::Directories(_) | Sees::Names(_) => {}
        }
    }

    /// Where a name of an event lies now; none where it is not to be found any more, or lies outside.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn locate(&mut self, place: &Place<'_>, ways: Ways<'_>) -> io::Result<Option<At>> {
        match &mut self.sees {
            Sees::Whole(whole) => whole.locate(&self.mount_point, place, ways),
            Sees::Directories(directories) => Ok(directories.locate(place).map(|path| At {
                directory: None,
                path,
                // Such directories are not marked.
                is_free: false,
            })),
            Sees::Names(_) => Ok(None),
        }
    }

    /// What an event is about, by one of its names, where it can be opened.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn find(&self, object: &Handle<'_>) -> io::Result<Option<(Stat, TreePath)>> {
        match &self.sees {
            Sees::Whole(whole) => whole.find(&self.mount_point, object),
            Sees::Directories(_) | Sees::Names(_) => Ok(None),
        }
    }

    /// Has a busy directory in which nothing is held wake nobody.
    pub(super) fn ignore(&self, directory: &OwnedFd) {
        if let Sees::Whole(whole) = &self.sees {
            whole.ignore(directory);
        }
    }
}

/// What marks on directories do not show.
const LESS: &str = "not what is done to a file through a name outside of them, nor which programs are started from there, \
     nor who filled a directory that is new";
/// What names alone do not show.
const LEAST: &str = "its directories are watched by inotify: not who did it, nor what is done to a file through a name \
     outside of them, nor which programs are started from there";

fn less(said: &str, less: &str, left_out: Option<String>) -> String {
    match left_out {
        None => format!("{said} ({less})"),
        Some(left_out) => format!("{said} ({less}; {left_out})"),
    }
}

/// What happens to a file system by others than this host.
fn made_elsewhere(mount: &Mount) -> Option<String> {
    const SHARED: [&[u8]; 9] = [
        b"fuse",
        b"nfs",
        b"nfs4",
        b"cifs",
        b"smb3",
        b"9p",
        b"ceph",
        b"virtiofs",
        b"afs",
    ];
    let kind = mount.fs_type.split(|byte| *byte == b'.').next()?;
    let name = String::from_utf8_lossy(kind);
    let sentence = format!("not watched for what is not done through its mount, as it is {name}");
    SHARED.contains(&kind).then_some(sentence)
}

/// For all but programs, which have a queue of their own.
fn queue() -> io::Result<Watch> {
    Ok(of_changes(Watch::open()?))
}

fn of_changes(watch: Watch) -> Watch {
    let changes = Mask(watch.asks().0 & !Mask::OPEN_EXEC.0);
    watch.asking(changes)
}

/// A subvolume is a part of its file system, although the mount table calls it by its own path or not.
pub(super) fn shows(mount: Option<&Mount>) -> Shows {
    match mount {
        Some(mount) if mount.root == b"/" && mount.fs_type != b"btrfs" => Shows::All,
        _ => Shows::Part,
    }
}
