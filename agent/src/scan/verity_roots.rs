//! Mounts of an image's file systems in, the dm-verity devices that they are mounted straight from out.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use drift::TreePath;
use drift::coverage::VerityRoot;
use drift::manifest::Filesystem;
use driftmark_kernel::Mount;
use driftmark_kernel::mapped::{self, Health, Verity};

use super::filesystems::{below, topmost_at};

/// What systemd mounts from a device of its own where an image has it (`usrhash=`), whatever the image's fstab says.
const USR: &[u8] = b"usr";

/// The dm-verity devices of the image's file systems and of `/usr`, by mount point. What is mounted from anything else,
/// a device stacked upon a verity device included, is not among them.
///
/// # Errors
/// Where one of them cannot be told.
pub(super) fn roots(
    mounts: &[Mount],
    root: &Path,
    own: &[Filesystem],
) -> Result<Vec<VerityRoot>, (TreePath, io::Error)> {
    roots_by(mounts, root, own, &mapped::verity_of)
}

fn roots_by(
    mounts: &[Mount],
    root: &Path,
    own: &[Filesystem],
    verity_of: &dyn Fn((u32, u32)) -> io::Result<Option<Verity>>,
) -> Result<Vec<VerityRoot>, (TreePath, io::Error)> {
    let usr = TreePath::new(USR).expect("a plain path");
    let mut points: Vec<TreePath> = own.iter().map(|own| own.mount_point.clone()).collect();
    points.extend([TreePath::root(), usr]);
    points.sort();
    points.dedup();
    let mut found = Vec::new();
    for point in points {
        let Some(mount) = mounted(mounts, root, &point) else {
            continue;
        };
        match verity_of(mount.dev) {
            Ok(None) => {}
            Ok(Some(verity)) => found.push(shown(point, &verity)),
            Err(error) => return Err((point, error)),
        }
    }
    Ok(found)
}

fn mounted<'m>(mounts: &'m [Mount], root: &Path, point: &TreePath) -> Option<&'m Mount> {
    if point.is_root() {
        return topmost_at(mounts, root);
    }
    let at = below(root, point);
    debug_assert!(
        at.as_os_str().as_bytes().starts_with(b"/"),
        "a root is canonical"
    );
    topmost_at(mounts, &at)
}

fn shown(mount_point: TreePath, verity: &Verity) -> VerityRoot {
    VerityRoot {
        mount_point,
        root_hash: verity
            .root_hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        algorithm: verity.algorithm.clone(),
        corrupted: verity.health == Health::Corrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 254:0 / / ro - ext4 /dev/mapper/root ro
2 1 0:5 / /proc rw - proc proc rw
3 1 254:1 / /usr ro - erofs /dev/mapper/usr ro
4 1 8:3 / /var rw - ext4 /dev/sda3 rw
5 1 254:2 / /opt ro - ext4 /dev/mapper/opt ro
6 5 8:4 / /opt rw - ext4 /dev/sda4 rw
7 1 254:3 / /mnt ro - ext4 /dev/mapper/other ro
";

    fn verity_of((major, minor): (u32, u32)) -> io::Result<Option<Verity>> {
        Ok((major == 254).then(|| Verity {
            algorithm: "sha256".to_owned(),
            root_hash: vec![minor as u8; 32],
            health: if minor == 1 {
                Health::Corrupted
            } else {
                Health::Verified
            },
        }))
    }

    fn own(point: &[u8]) -> Filesystem {
        Filesystem {
            mount_point: TreePath::new(point).expect("a path"),
            kind: "ext4".to_owned(),
        }
    }

    #[test]
    fn only_what_the_image_has_and_what_lies_on_top_counts() {
        let table = driftmark_kernel::mounts::parse(TABLE).expect("a mount table");
        let own = [own(b"var"), own(b"opt"), own(b"srv")];
        let found = roots_by(&table, Path::new("/"), &own, &verity_of).expect("all are told");
        let points: Vec<_> = found
            .iter()
            .map(|root| (root.mount_point.to_string(), root.corrupted))
            .collect();
        assert_eq!(points, [("/".to_owned(), false), ("/usr".to_owned(), true)]);
        assert_eq!(found[1].root_hash, "01".repeat(32));
        let elsewhere = roots_by(&table, Path::new("/mnt"), &[], &verity_of).expect("told");
        assert_eq!(elsewhere.len(), 1);
        assert_eq!(elsewhere[0].root_hash, "03".repeat(32));
    }

    #[test]
    fn a_device_that_cannot_be_asked_for_is_named() {
        let table = driftmark_kernel::mounts::parse(TABLE).expect("a mount table");
        let refused = |device| match device {
            (254, 1) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => verity_of(device),
        };
        let told = roots_by(&table, Path::new("/"), &[], &refused);
        assert_eq!(told.expect_err("refused").0.to_string(), "/usr");
    }
}
