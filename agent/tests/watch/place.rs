//! A test in; the same test in a process with mounts of its own, and in it file systems of each kind.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Kinds of file systems that are watched as a whole.
pub(crate) const KINDS: [&str; 3] = ["ext4", "tmpfs", "overlay"];
const INSIDE: &str = "DRIFTMARK_OWN_MOUNTS";

/// Runs the test of this name on a fresh file system of each kind that this kernel has: by its kind, a directory beside it,
/// and its top.
pub(crate) fn in_each(name: &str, kinds: &[&str], test: impl Fn(&str, &Path, &Path)) {
    with_own_mounts(name, || {
        for kind in kinds {
            let home = tempfile::tempdir_in("/var/tmp").unwrap();
            if let Some(top) = mounted(kind, home.path()) {
                test(kind, home.path(), &top);
            }
        }
    });
}

/// Runs `test` where what it mounts is seen by nobody else, and goes with it: this program again, for the test of this
/// name alone.
fn with_own_mounts(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if !rustix::process::geteuid().is_root() {
        return skip("mounting needs root");
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]);
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture"]);
    let status = again.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "{name} in its own mounts: {status}");
}

/// Mounts a fresh file system in `home`; where its top is. None where this kernel has none of the kind.
fn mounted(kind: &str, home: &Path) -> Option<PathBuf> {
    let place = home.join(kind);
    let top = match kind {
        "overlay" => {
            ext4(home, &place)?;
            let [lower, upper, work, top] =
                ["lower", "upper", "work", "top"].map(|name| place.join(name));
            for directory in [&lower, &upper, &work, &top] {
                std::fs::create_dir(directory).unwrap();
            }
            let layers = format!(
                "lowerdir={},upperdir={},workdir={},nfs_export=on,index=on",
                lower.display(),
                upper.display(),
                work.display()
            );
            let mut mount = Command::new("mount");
            mount.args(["-t", "overlay", "overlay", "-o", &layers]);
            runs(mount.arg(&top)).then_some(top)
        }
        "ext4" => ext4(home, &place).map(|()| place),
        _ => {
            std::fs::create_dir(&place).unwrap();
            runs(Command::new("mount").args(["-t", kind, kind]).arg(&place)).then_some(place)
        }
    };
    if top.is_none() {
        skip(kind);
    }
    top
}

fn ext4(home: &Path, place: &Path) -> Option<()> {
    let disk = home.join(format!("{}.disk", place.file_name().unwrap().display()));
    std::fs::create_dir(place).unwrap();
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(256 << 20).unwrap();
    let mut make = Command::new("mkfs.ext4");
    let is_made = runs(make.args(["-q", "-F", "-i", "4096"]).arg(&disk));
    let mut mount = Command::new("mount");
    (is_made && runs(mount.args(["-o", "loop"]).arg(&disk).arg(place))).then_some(())
}

fn runs(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

fn skip(what: &str) {
    let is_allowed = std::env::var_os("DRIFTMARK_NO_SKIPPING").is_none();
    assert!(is_allowed, "it must not be skipped here: {what}");
    println!("skipped: {what}");
}
