//! The mounts that processes of another mount namespace see in, and those of the image's own; what hides something of the
//! image from them alone, out.
//!
//! Services have namespaces of their own as a matter of course, so what is nothing new is left out: what everybody sees, a
//! part of a file system at the place where it is anyway (`ProtectSystem=`, `ReadWritePaths=`), what hides without showing
//! anything (`InaccessiblePaths=`, an empty `tmpfs` of a unit), and what covers nothing that the image holds.

use std::path::Path;

use drift::TreePath;
use drift::entry::Kind;
use drift::manifest::ManifestError;
use driftmark_kernel::Mount;

use crate::baseline::Baseline;
use crate::scan::mounts::{Cover, covers};

/// Where systemd keeps the empty things with which it hides others: its own, and those that a container is given.
const INACCESSIBLE: [&[u8]; 2] = [b"/run/systemd/inaccessible", b"/run/host/inaccessible"];
/// Where it puts a `tmpfs` that is a service's own (`PrivateDevices=`, `ProtectHome=`, `PrivateTmp=`).
const OWN_TO_SERVICES: [&[u8]; 6] = [
    b"/dev",
    b"/home",
    b"/root",
    b"/run/user",
    b"/tmp",
    b"/var/tmp",
];

/// What is mounted over the image in `theirs` and is new to who sees `ours`. `is_service`: systemd has started whoever
/// sees it.
///
/// # Errors
/// A manifest that cannot be read.
pub(super) fn hidden(
    baseline: &Baseline,
    root: &Path,
    ours: &[Mount],
    theirs: Vec<Mount>,
    is_service: bool,
) -> Result<Vec<Cover>, ManifestError> {
    let mut new = theirs;
    new.retain(|mount| !is_nothing_new(mount, ours, is_service));
    let wanted = &baseline.manifest.header().filesystems;
    let mut hidden = Vec::new();
    for cover in covers(&new, root, wanted) {
        let rules = baseline.manifest.rules();
        let may_be_covered = rules.allowance(&cover.path, Kind::Directory).covered;
        if !may_be_covered && hides_something(baseline, &cover.path)? {
            hidden.push(cover);
        }
    }
    Ok(hidden)
}

fn is_nothing_new(mount: &Mount, ours: &[Mount], is_service: bool) -> bool {
    let shown = (mount.dev, mount.root.as_slice());
    let is_at_its_place =
        ours_at(ours, &mount.point).is_some_and(|(dev, root)| (dev, root.as_slice()) == shown);
    let is_seen_by_all = ours.iter().any(|other| {
        (other.dev, &other.root, &other.point) == (mount.dev, &mount.root, &mount.point)
    });
    let shows_nothing = INACCESSIBLE.iter().any(|place| {
        ours_at(ours, place).is_some_and(|(dev, root)| {
            let below = mount.root.strip_prefix(root.as_slice());
            dev == mount.dev && below.is_some_and(|below| below.starts_with(b"/"))
        })
    });
    let is_fresh = || mount.root == b"/" && ours.iter().all(|other| other.dev != mount.dev);
    let is_own = is_service
        && mount.fs_type == b"tmpfs"
        && OWN_TO_SERVICES.contains(&mount.point.as_slice())
        && is_fresh();
    is_at_its_place || is_seen_by_all || shows_nothing || is_own
}

/// Which file system is at this path, and which part of it, for who sees these mounts.
fn ours_at(ours: &[Mount], path: &[u8]) -> Option<((u32, u32), Vec<u8>)> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let below = |mount: &Mount| {
        let point = mount.point.strip_suffix(b"/").unwrap_or(&mount.point);
        let rest = path.strip_prefix(point)?;
        (rest.is_empty() || rest.starts_with(b"/")).then_some(rest.len())
    };
    let holders = ours.iter().filter_map(|mount| Some((below(mount)?, mount)));
    // Of several at one point the kernel's last is on top, which `min_by_key` would pass over.
    let (rest, mount) = holders.rev().min_by_key(|(rest, _)| *rest)?;
    let top = mount.root.strip_suffix(b"/").unwrap_or(&mount.root);
    let root = [top, &path[path.len() - rest..]].concat();
    let root = if root.is_empty() { b"/".to_vec() } else { root };
    Some((mount.dev, root))
}

/// Whether the image holds anything there, but for the empty directory that is to be mounted on.
fn hides_something(baseline: &Baseline, path: &TreePath) -> Result<bool, ManifestError> {
    let manifest = &baseline.manifest;
    for entry in manifest.entries_from(path) {
        let entry = entry?;
        if entry.path == *path && entry.node.kind() != Kind::Directory {
            return Ok(true);
        }
        if entry.path > *path {
            return Ok(entry.path.is_within(path));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Vec<Mount> {
        driftmark_kernel::mounts::parse(text.as_bytes()).unwrap()
    }

    const OURS: &str = "1 1 8:1 /@ / rw - ext4 /dev/sda1 rw\n\
        2 1 0:5 / /run rw - tmpfs tmpfs rw\n\
        3 1 8:2 / /srv rw - ext4 /dev/sda2 rw\n\
        4 3 8:3 / /srv rw - ext4 /dev/sda3 rw\n";

    #[test]
    fn where_a_path_lies_is_told_by_the_mount_on_top() {
        let ours = table(OURS);
        let table = [
            ("/", ((8, 1), "/@")),
            ("/usr", ((8, 1), "/@/usr")),
            ("/run/x", ((0, 5), "/x")),
            ("/run", ((0, 5), "/")),
            ("/runs", ((8, 1), "/@/runs")),
            ("/srv/a", ((8, 3), "/a")),
        ];
        for (path, (dev, root)) in table {
            let told = ours_at(&ours, path.as_bytes()).unwrap();
            assert_eq!(told, (dev, root.as_bytes().to_vec()), "{path}");
        }
    }

    #[test]
    fn what_services_see_as_a_matter_of_course_is_nothing_new() {
        // What, whether it is nothing new to a service, and to anybody.
        let mounts = [
            ("8:1 /@/usr /usr ro - ext4 /dev/sda1 rw", true, true),
            ("0:5 / /run rw - tmpfs tmpfs rw", true, true),
            (
                "0:5 /systemd/inaccessible/dir /root ro - tmpfs tmpfs rw",
                true,
                true,
            ),
            (
                "0:5 /host/inaccessible/dir /root ro - tmpfs tmpfs rw",
                true,
                true,
            ),
            (
                "0:5 /systemd/inaccessible-not/dir /root ro - tmpfs tmpfs rw",
                false,
                false,
            ),
            (
                "0:9 /systemd/inaccessible/dir /root ro - tmpfs tmpfs rw",
                false,
                false,
            ),
            ("0:7 / /root ro - tmpfs tmpfs rw", true, false),
            ("0:7 / /dev rw - tmpfs tmpfs rw", true, false),
            ("0:7 / /usr rw - tmpfs tmpfs rw", false, false),
            (
                "8:1 /@/tmp/evil /usr/bin/su ro - ext4 /dev/sda1 rw",
                false,
                false,
            ),
            ("8:1 /@/usr /bin ro - ext4 /dev/sda1 rw", false, false),
            ("8:2 / /srv rw - ext4 /dev/sda2 rw", true, true),
        ];
        let ours = table(OURS);
        for (line, for_services, for_anybody) in mounts {
            let mount = &table(&format!("9 1 {line}\n"))[0];
            assert_eq!(is_nothing_new(mount, &ours, true), for_services, "{line}");
            assert_eq!(is_nothing_new(mount, &ours, false), for_anybody, "{line}");
        }
    }
}
