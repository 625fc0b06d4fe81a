//! A test in; the same test in a process with mounts of its own, and in it file systems of each kind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Nothing takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Kinds of file systems that are watched as a whole.
pub(crate) const KINDS: [&str; 6] = [
    "ext4",
    "xfs",
    "btrfs",
    "btrfs-subvolume",
    "tmpfs",
    "overlay",
];
/// Kinds whose directories are watched one by one.
pub(crate) const BY_DIRECTORY: [&str; 2] = ["overlay-without-handles", "fuse"];
/// Kinds where nothing but names is told: the last is any without the right to watch.
pub(crate) const BY_NAME: [&str; 1] = ["ext4-without-rights"];
const MOUNTS: [&str; 3] = ["--mount", "--propagation", "private"];
const INSIDE: &str = "DRIFTMARK_OWN_MOUNTS";

/// Runs the test of this name on a fresh file system of each kind that this kernel has: by its kind, a directory beside it,
/// and its top.
pub(crate) fn in_each(name: &str, kinds: &[&str], test: impl Fn(&str, &Path, &Path)) {
    with_own(name, &MOUNTS, || {
        kinds.iter().for_each(|kind| on_fresh(kind, &test));
    });
}

/// The same on a tmpfs, for a user who is nobody outside: all that is left is a few watches of inotify.
pub(crate) fn as_nobody(name: &str, watches: usize, test: impl Fn(&Path, &Path)) {
    with_own(
        name,
        &[&["--user", "--map-root-user"], &MOUNTS[..]].concat(),
        || {
            let limit = "/proc/sys/user/max_inotify_watches";
            std::fs::write(limit, watches.to_string()).unwrap();
            on_fresh("tmpfs", |_, home, top| test(home, top));
        },
    );
}

/// The same, all of them at once: most of the time goes by with waiting.
pub(crate) fn in_all(name: &str, kinds: &[&str], test: impl Fn(&str, &Path, &Path) + Sync) {
    with_own(name, &MOUNTS, || {
        std::thread::scope(|scope| {
            for kind in kinds {
                scope.spawn(|| on_fresh(kind, &test));
            }
        });
    });
}

fn on_fresh(kind: &str, test: impl Fn(&str, &Path, &Path)) {
    let (home, began) = (tempfile::tempdir_in("/var/tmp").unwrap(), Instant::now());
    if let Some(top) = mounted(kind, home.path()) {
        test(kind, home.path(), &top);
        println!("{kind}: {:.1} s", began.elapsed().as_secs_f64());
    }
    // Else the directory cannot be removed.
    for point in mounts_below(home.path()).into_iter().rev() {
        assert!(runs(Command::new("umount").arg("--lazy").arg(point)));
    }
    home.close().unwrap();
}

/// Where something is mounted, in the order that it was mounted in.
fn mounts_below(place: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(PathBuf::from);
    points.filter(|point| point.starts_with(place)).collect()
}

/// Runs `test` where what it mounts is seen by nobody else, and goes with it: this program again, in namespaces of its own,
/// for the test of this name alone.
fn with_own(name: &str, namespaces: &[&str], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if !rustix::process::geteuid().is_root() {
        return skip("mounting needs root");
    }
    let mut again = Command::new("unshare");
    again.args(namespaces);
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture", "--include-ignored"]);
    let status = again.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{name} in its own namespaces: {status}");
}

/// Mounts a fresh file system in `home`; where its top is. None where this kernel has none of the kind.
fn mounted(kind: &str, home: &Path) -> Option<PathBuf> {
    let place = home.join(kind);
    std::fs::create_dir(&place).unwrap();
    let top = match kind {
        "overlay" => {
            on_disk("ext4", &place).and_then(|()| overlay(&place, "nfs_export=on,index=on"))
        }
        "overlay-without-handles" => {
            on_disk("ext4", &place).and_then(|()| overlay(&place, "index=off"))
        }
        "fuse" => bound(&place),
        "ext4-without-rights" => on_disk("ext4", &place).map(|()| {
            give_up_the_right_to_watch();
            place
        }),
        "btrfs-subvolume" => subvolume(&place),
        "tmpfs" => mount(&["-t", kind, kind], &place).then_some(place),
        _ => on_disk(kind, &place).map(|()| place),
    };
    if top.is_none() {
        skip(kind);
    }
    top
}

/// A fresh file system of this kind on a disk of its own.
fn on_disk(kind: &str, place: &Path) -> Option<()> {
    let (arguments, mebibytes): (&[&str], u64) = match kind {
        "ext4" => (&["-F", "-i", "4096"], 256),
        // The least that these take.
        "xfs" => (&[], 320),
        _ => (&["-m", "single"], 128),
    };
    let disk = place.with_extension("disk");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(mebibytes << 20).unwrap();
    let mut make = Command::new(format!("mkfs.{kind}"));
    let is_made = runs(make.arg("-q").args(arguments).arg(&disk));
    (is_made && mount(&["-o", "loop", disk.to_str().unwrap()], place)).then_some(())
}

/// An overlay of two directories in `place`.
fn overlay(place: &Path, options: &str) -> Option<PathBuf> {
    let [lower, upper, work, top] = ["lower", "upper", "work", "top"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work, &top] {
        std::fs::create_dir(directory).unwrap();
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={},{options}",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount(&["-t", "overlay", "overlay", "-o", &layers], &top).then_some(top)
}

/// A btrfs of which a subvolume is mounted, with others beside it and in it.
fn subvolume(place: &Path) -> Option<PathBuf> {
    on_disk("btrfs", place)?;
    let root = place.join("@");
    let made = [root.clone(), place.join("root"), root.join("nested")];
    let made = made.iter().all(|path| {
        let mut make = Command::new("btrfs");
        runs(make.args(["-q", "subvolume", "create"]).arg(path))
    });
    let disk = place.with_extension("disk");
    let layers = ["-o", "loop,subvol=@", disk.to_str().unwrap()];
    let is_let_go = made && runs(Command::new("umount").arg(place));
    (is_let_go && mount(&layers, place)).then(|| place.to_owned())
}

/// A directory of this machine as a process serves it.
fn bound(place: &Path) -> Option<PathBuf> {
    let (behind, top) = (place.join("behind"), place.join("top"));
    std::fs::create_dir(&behind).unwrap();
    std::fs::create_dir(&top).unwrap();
    // It goes with the thread that has started it.
    let mut bind = Command::new("setpriv");
    bind.args(["--pdeathsig", "KILL", "bindfs", "-f"]);
    bind.arg(&behind).arg(&top).spawn().ok()?;
    let began = Instant::now();
    while mounts_below(&top).is_empty() {
        if began.elapsed() > SOON {
            return None;
        }
        std::thread::yield_now();
    }
    Some(top)
}

/// What this thread starts from now on cannot watch file systems, nor clone mounts.
fn give_up_the_right_to_watch() {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    for set in [
        &mut sets.effective,
        &mut sets.permitted,
        &mut sets.inheritable,
    ] {
        set.remove(rustix::thread::CapabilitySet::SYS_ADMIN);
    }
    rustix::thread::set_capabilities(None, sets).unwrap();
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    runs(Command::new("mount").args(arguments).arg(place))
}

fn runs(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

pub(crate) fn skip(what: &str) {
    let is_allowed = std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none();
    assert!(is_allowed, "it must not be skipped here: {what}");
    println!("skipped: {what}");
}
