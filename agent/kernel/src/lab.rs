//! A test in, a place of its own on a real file system out, with mounts that no one else sees.
//!
//! What needs a privilege that is not there says so and passes; CI runs where nothing is skipped.

use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

use crate::stat::FileKind;

/// What [`one_of_each`] makes: names and kinds.
pub(crate) const KINDS: [(&str, FileKind); 7] = [
    ("file", FileKind::File),
    ("directory", FileKind::Directory),
    ("symlink", FileKind::Symlink),
    ("char-device", FileKind::CharDevice),
    ("block-device", FileKind::BlockDevice),
    ("fifo", FileKind::Fifo),
    ("socket", FileKind::Socket),
];

/// A directory that goes with its guard, on a disk file system: /tmp is a tmpfs on many machines.
pub(crate) fn place() -> TempDir {
    tempfile::Builder::new()
        .prefix("driftmark-kernel-")
        .tempdir_in("/var/tmp")
        .expect("create a directory in /var/tmp")
}

/// Makes one thing of each kind in `dir`; devices (null, and one that does not exist) where that is allowed.
pub(crate) fn one_of_each(dir: &Path) {
    std::fs::write(dir.join("file"), b"content").expect("write file");
    std::fs::create_dir(dir.join("directory")).expect("create directory");
    std::os::unix::fs::symlink(dir.join("file"), dir.join("symlink")).expect("link");
    let mknod = |name, kind, dev| {
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::RUSR | Mode::WUSR, dev)
    };
    mknod("fifo", FileType::Fifo, 0).expect("make a fifo");
    mknod("socket", FileType::Socket, 0).expect("make a socket");
    let null = mknod(
        "char-device",
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    let disk = mknod(
        "block-device",
        FileType::BlockDevice,
        rustix::fs::makedev(259, 65_000),
    );
    if let Err(error) = null.and(disk) {
        skip(&format!("devices: {error}"));
    }
}

/// Says what is not tried here. Where nothing may be skipped (`DRIFTMARK_NO_SKIPPING`), that has failed.
pub(crate) fn skip(what: &str) {
    let is_allowed = std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none();
    assert!(is_allowed, "it must not be skipped here: {what}");
    println!("skipped: {what}");
}

/// Whether `kind` is one that [`one_of_each`] may have been refused.
pub(crate) fn is_device(kind: FileKind) -> bool {
    matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
}

/// Runs `test` in a [`place`], on a thread with a mount namespace of its own; what it mounts goes with it.
pub(crate) fn with_own_mounts(test: impl FnOnce(&Path) + Send) {
    // Removed from outside the namespace, where nothing is mounted in the way.
    let place = place();
    on_own_thread(|| {
        // SAFETY: file descriptors stay shared; only this thread's mounts, root and working directory part ways, and
        // the thread ends with the test.
        let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
        if let Err(error) = unshared {
            return skip(&format!("unshare the mount namespace: {error}"));
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)
            .expect("cut this namespace off from the machine's");
        test(place.path());
    });
}

/// Runs `test` on a thread that holds no capability, as a user's own would.
pub(crate) fn without_capabilities(test: impl FnOnce() + Send) {
    on_own_thread(|| {
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).expect("drop this thread's capabilities");
        test();
    });
}

/// Mounts an empty tmpfs over `point`.
pub(crate) fn mount_tmpfs(point: &Path) {
    rustix::mount::mount("tmpfs", point, "tmpfs", MountFlags::empty(), None)
        .expect("mount a tmpfs");
}

/// Mounts a fresh ext4 over `place`, on a loop device that the kernel lets go with the namespace.
pub(crate) fn mount_ext4(place: &Path) -> Result<(), &'static str> {
    mount_fresh("ext4", place)
}

/// Mounts a fresh file system of this type over `place`: ext4, xfs and btrfs on a loop device that the kernel lets go
/// with the namespace.
pub(crate) fn mount_fresh(kind: &str, place: &Path) -> Result<(), &'static str> {
    let (mkfs, mebibytes) = match kind {
        "ext4" => ("mkfs.ext4", 16),
        // The least that these take.
        "xfs" => ("mkfs.xfs", 320),
        "btrfs" => ("mkfs.btrfs", 128),
        _ => {
            mount_tmpfs(place);
            return Ok(());
        }
    };
    let image = place.join("image");
    let file = std::fs::File::create_new(&image).expect("create the image");
    file.set_len(mebibytes << 20).expect("size the image");
    // Over the directory that holds it, so one place is enough for both.
    run(Command::new(mkfs).arg("-q").arg(&image)).or(Err(mkfs))?;
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(place))
    .or(Err("mount -o loop"))
}

/// Runs a command that has to succeed; says what it needs where it does not.
pub(crate) fn run_or_skip(command: &mut Command) -> bool {
    let has_run = run(command).is_ok();
    if !has_run {
        skip(&format!("{command:?}"));
    }
    has_run
}

fn run(command: &mut Command) -> Result<(), ()> {
    let status = command.status().or(Err(()))?;
    status.success().then_some(()).ok_or(())
}

fn on_own_thread(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(test).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
