//! What the kernel really says, on real file systems.

mod gate;
mod mounts;
mod mutations;
mod parts;
mod queue;
mod records;
mod ring;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Buffer, Event, Holder, Located, Mask, NoPidfd, Place, Shows, Sight, Watch};
use crate::{Tree, lab};

/// The descriptors of this process are counted: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many processes this one holds a descriptor of.
fn pidfds() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("own descriptors");
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.as_os_str().to_string_lossy().contains("pidfd"))
        .count()
}

/// A file system that is watched as a whole, and its events with paths.
struct World {
    root: PathBuf,
    watch: Watch,
    holder: Holder,
    buffer: Buffer,
}

/// An event, with what its handles lead to.
#[derive(Debug)]
struct Seen {
    what: Mask,
    pid: u32,
    pidfd: Result<OwnedFd, NoPidfd>,
    path: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

impl World {
    /// Watches the file system that `root` is the top of.
    fn around(root: &Path, shows: Shows) -> World {
        let watch = Watch::open().expect("a group");
        World::with(watch, root, shows)
    }

    fn with(watch: Watch, root: &Path, shows: Shows) -> World {
        let tree = Tree::private_clone(root).expect("clone");
        let holder = Holder::of(&tree, shows).expect("hold");
        match watch.watch_filesystem(holder.as_fd()) {
            Sight::Whole { .. } => {}
            other => panic!("{other}"),
        }
        World {
            root: root.to_owned(),
            watch,
            holder,
            buffer: Buffer::default(),
        }
    }

    /// Everything that is queued.
    fn seen(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(events) = self.watch.read(&mut self.buffer).expect("read") {
            for event in events {
                let event = event.expect("what the kernel says is understood");
                all.push(seen(&self.holder, event));
            }
        }
        all
    }
}

fn seen(holder: &Holder, event: Event<'_>) -> Seen {
    let path = |place: Option<Place<'_>>| place.map(|place| spelled_out(holder, &place));
    Seen {
        what: event.what,
        pid: event.actor.pid,
        pidfd: event.actor.pidfd,
        path: path(event.place),
        from: path(event.from),
        to: path(event.to),
    }
}

fn spelled_out(holder: &Holder, place: &Place<'_>) -> String {
    let name = String::from_utf8_lossy(place.name);
    match holder.locate(&place.directory).expect("locate") {
        Located::Here { path, .. } => {
            let directory = String::from_utf8_lossy(&path).into_owned();
            match (&*directory, &*name) {
                ("", name) => name.to_owned(),
                (_, ".") => directory,
                _ => format!("{directory}/{name}"),
            }
        }
        Located::Gone => format!("(gone)/{name}"),
        Located::Elsewhere => format!("(elsewhere)/{name}"),
    }
}

/// Runs `test` in each file system that is watched as a whole: directories `place/KIND`, and what is mounted there.
fn in_each(test: impl Fn(&str, &Path) + Send + Sync) {
    let _alone = alone();
    for kind in ["ext4", "xfs", "btrfs", "tmpfs", "overlay"] {
        lab::with_own_mounts(|place| {
            let mounted = match kind {
                "overlay" => overlay(place, "nfs_export=on,index=on"),
                kind => lab::mount_fresh(kind, place).map(|()| place.to_owned()),
            };
            match mounted {
                Ok(root) => test(kind, &root),
                Err(what) => lab::skip(&format!("{kind}: {what}")),
            }
        });
    }
}

/// An overlay of two directories of an ext4, with these options.
fn overlay(place: &Path, options: &str) -> Result<PathBuf, &'static str> {
    lab::mount_ext4(place)?;
    let [lower, upper, work, root] =
        ["lower", "upper", "work", "root"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work, &root] {
        std::fs::create_dir(directory).expect("create a layer");
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={},{options}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let mut mount = std::process::Command::new("mount");
    mount
        .args(["-t", "overlay", "overlay", "-o", &layers])
        .arg(&root);
    match mount.status() {
        Ok(status) if status.success() => Ok(root),
        _ => Err("mount -t overlay"),
    }
}
