//! The mount table in; a gate at all that programs can be run from out, and what is not guarded.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use driftmark_kernel::fanotify::Gate;
use driftmark_kernel::{Mount, Stat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::Ending;
use crate::scan::mounts::table;

/// What is mounted at the root and below it.
pub(super) struct Places<'a> {
    root: &'a Path,
    changes: OwnedFd,
    guarded: Vec<Place>,
    limits: Vec<String>,
}

/// A file system. Nothing of it is held: whoever unmounts it is done with it.
struct Place {
    device: (u32, u32),
    mount: u64,
}

/// Where containers come and go there are hundreds.
const MOST: usize = 64;
/// More are not named one by one.
const MOST_LIMITS: usize = 16;
/// The mount table is read this often at most.
const REST: Duration = Duration::from_secs(1);
/// The inode of a btrfs subvolume's top.
const SUBVOLUME: u64 = 256;

/// What the kernel reads by itself. On any other one, opening a file for the gate may wait for another machine, or for a
/// process that waits for this one.
const LOCAL: [&[u8]; 24] = [
    b"bcachefs",
    b"btrfs",
    b"cramfs",
    b"devtmpfs",
    b"erofs",
    b"exfat",
    b"ext2",
    b"ext3",
    b"ext4",
    b"f2fs",
    b"hfsplus",
    b"iso9660",
    b"jfs",
    b"msdos",
    b"nilfs2",
    b"ntfs3",
    b"overlay",
    b"ramfs",
    b"rootfs",
    b"squashfs",
    b"tmpfs",
    b"udf",
    b"vfat",
    b"xfs",
];
/// What holds nothing that anybody can run.
const WITHOUT_FILES: [&[u8]; 19] = [
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"efivarfs",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nsfs",
    b"proc",
    b"pstore",
    b"rpc_pipefs",
    b"securityfs",
    b"sysfs",
    b"tracefs",
];

impl<'a> Places<'a> {
    pub(super) fn new(root: &'a Path, changes: OwnedFd) -> Self {
        Places {
            root,
            changes,
            guarded: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// What is not guarded, a sentence each.
    pub(super) fn limits(&self) -> Vec<String> {
        self.limits.clone()
    }

    /// Waits until mounts may have changed; false once it is over, whoever says so.
    pub(super) fn wait(&self, own: &Ending, other: &Ending) -> bool {
        let rest = Timespec {
            tv_sec: REST.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let mut polled = [
            PollFd::new(&own.wake, PollFlags::IN),
            PollFd::new(&other.wake, PollFlags::IN),
            PollFd::new(&self.changes, PollFlags::PRI),
        ];
        let [endings @ .., _] = &mut polled;
        let _ = poll(endings, Some(&rest));
        let _ = poll(&mut polled, None);
        !own.is_over() && !other.is_over()
    }

    /// Guards what was mounted since. Says whether there is anything else to tell now.
    pub(super) fn have_changed(&mut self, gate: &Gate) -> bool {
        let before = self.limits.clone();
        match table(self.root) {
            Ok(mounted) => {
                self.guard(gate, &mounted);
            }
            Err(error) => self.limits = vec![format!("what is mounted cannot be read: {error}")],
        }
        self.limits != before
    }

    /// Guards what is mounted. Says whether the root's own file system is among it.
    pub(super) fn guard(&mut self, gate: &Gate, mounted: &[Mount]) -> bool {
        let is_mounted = |place: &Place| {
            let is_its = |mount: &Mount| (mount.id, mount.dev) == (place.mount, place.device);
            mounted.iter().any(is_its)
        };
        self.guarded.retain(is_mounted);
        self.limits.clear();
        let root = self.root.as_os_str().as_bytes();
        let mut below: Vec<&Mount> = mounted
            .iter()
            .filter(|mount| {
                Path::new(std::ffi::OsStr::from_bytes(&mount.point)).starts_with(self.root)
            })
            .filter(|mount| mount.runs_programs() && !WITHOUT_FILES.contains(&&*mount.fs_type))
            .collect();
        // All of a file system, if a mount shows that.
        below.sort_by_key(|mount| mount.root != b"/");
        let mut is_root_guarded = false;
        for mount in below {
            match self.guard_one(gate, mount) {
                Ok(()) => is_root_guarded |= mount.point == root,
                Err(because) => self.limits.push(format!(
                    "programs in {} ({}) are not refused: {because}",
                    drift::escape(&mount.point),
                    drift::escape(&mount.fs_type)
                )),
            }
        }
        // Several mounts may lie over each other.
        self.limits.sort();
        self.limits.dedup();
        let more = self.limits.len().saturating_sub(MOST_LIMITS);
        if more > 0 {
            self.limits.truncate(MOST_LIMITS);
            self.limits
                .push(format!("nor are those in {more} other places"));
        }
        is_root_guarded
    }

    fn guard_one(&mut self, gate: &Gate, mount: &Mount) -> Result<(), String> {
        if self.guarded.iter().any(|place| place.device == mount.dev) {
            return Ok(());
        }
        if !LOCAL.contains(&&*mount.fs_type) {
            return Err("opening a file may wait for somebody else there".into());
        }
        if self.guarded.len() == MOST {
            return Err("there are more file systems than are guarded".into());
        }
        let failed = |error: std::io::Error| error.to_string();
        let point = Path::new(std::ffi::OsStr::from_bytes(&mount.point));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let top =
            rustix::fs::open(point, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let stat = Stat::of(&top).map_err(failed)?;
        let is_subvolume = mount.fs_type == b"btrfs" && stat.ino == SUBVOLUME;
        // A part of what another machine, or this container's host, has as a whole: that one would wait for this agent.
        if mount.root != b"/" && !is_subvolume {
            return Err("it is a part of a file system that others have more of".into());
        }
        if stat.dev != mount.dev && !is_subvolume {
            return Err("the agent sees another file system there".into());
        }
        gate.guard(top.as_fd()).map_err(failed)?;
        self.guarded.push(Place {
            device: mount.dev,
            mount: mount.id,
        });
        Ok(())
    }
}
