//! A disk image in, raw or qcow2; its file systems out, mounted where nobody sees them.
//!
//! Each is mounted from a read-only loop device over its part of the file, and belongs to no path: whatever becomes of
//! this process, the kernel takes mounts and devices back. A journal that would have to be replayed first is refused,
//! since then what is on the disk is not what an instance sees.

mod volume;

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use drift::TreePath;
use drift::manifest::Filesystem;
use driftmark_kernel::partitions::{self, TableError};
use driftmark_kernel::superblock::State;
use driftmark_kernel::{LoopDevice, MountRefused, Tree};

use self::volume::{Volume, read_up_to};
use super::fstab::{self, Line};
use super::qcow2::{self, Qcow2Error};
use crate::bake::BakeError;
use crate::bake::glance::Glance;
use crate::scan::filesystems::Filesystems;

/// Why a disk image is not read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened or read.
    #[error("read it")]
    Read(#[from] io::Error),
    /// It is a directory, a socket, …
    #[error("it is neither a file nor a block device")]
    NotADisk,
    /// It is a disk image of a kind that is not read.
    #[error("it is a {0}: convert it with `qemu-img convert -O raw`")]
    Foreign(&'static str),
    /// It is a qcow2 that is not read.
    #[error(transparent)]
    Qcow2(#[from] Qcow2Error),
    /// Its partition table is not to be trusted.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No loop device can be had.
    #[error("attach a loop device: that needs root, and /dev/loop-control")]
    Loop(#[source] io::Error),
    /// No partition has this number.
    #[error("it has no partition {number}; it has: {there}")]
    NoSuchPartition {
        /// The number.
        number: u32,
        /// What is there.
        there: String,
    },
    /// No root was found.
    #[error("it has no root of a Linux (a file system with an os-release); it has: {there}")]
    NoRoot {
        /// What is there.
        there: String,
    },
    /// Several roots were found.
    #[error("it has several roots of a Linux: choose one with --partition N; it has: {there}")]
    SeveralRoots {
        /// What is there.
        there: String,
    },
    /// Nothing that could be mounted.
    #[error("{what} holds no file system that is known")]
    Unknown {
        /// Which.
        what: String,
    },
    /// A journal would have to be replayed first.
    #[error(
        "{what} was not unmounted cleanly, so an instance would see something else than what is on the disk: shut the machine down properly before its disk is copied, or replay the journal on a copy ({with})"
    )]
    Dirty {
        /// Which.
        what: String,
        /// How.
        with: &'static str,
    },
    /// A file system that cannot be mounted.
    #[error("mount {what}{advice}")]
    Mount {
        /// Which.
        what: String,
        /// What to do about it.
        advice: &'static str,
        /// Why not.
        #[source]
        source: MountRefused,
    },
    /// A file system of the fstab that is elsewhere.
    #[error(
        "{point} is {source_name} in the image's fstab, which is not on this disk: leave out what is elsewhere with `--filesystem none`, and name what is here with `--filesystem {point}`"
    )]
    NotOnDisk {
        /// Where it belongs.
        point: TreePath,
        /// What the fstab calls it.
        source_name: String,
    },
}

/// Opens the image in a disk: the root's file system, and those of its fstab.
pub(super) fn open(
    path: &Path,
    partition: Option<u32>,
    asked: &[PathBuf],
    interrupt: &AtomicBool,
) -> Result<(Filesystems, Vec<Filesystem>), BakeError> {
    let failed = |source| match source {
        DiskError::Qcow2(Qcow2Error::Interrupted) => BakeError::Interrupted,
        source => BakeError::Disk {
            path: path.to_owned(),
            source: Box::new(source),
        },
    };
    let disk = Disk::open(path, interrupt).map_err(failed)?;
    let root = disk.root(partition).map_err(failed)?;
    let root = Filesystems::of_tree(root);
    let wanted = fstab::others(Glance(&root), asked)?;
    let mut others = Vec::new();
    for line in &wanted {
        others.push(disk.other(line).map_err(failed)?);
    }
    let named = others.iter().map(|(filesystem, _)| filesystem.clone());
    let named = named.collect();
    Ok((root.with(others), named))
}

/// A raw disk with what its first bytes say.
struct Disk {
    file: File,
    volumes: Vec<Volume>,
}

impl Disk {
    fn open(path: &Path, interrupt: &AtomicBool) -> Result<Self, DiskError> {
        let file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotADisk);
        }
        let mut magic = [0; 8];
        let length = read_up_to(&file, 0, &mut magic)?;
        let magic = &magic[..length];
        let foreign = FOREIGN.iter().find(|(first, _)| magic.starts_with(first));
        if let Some((_, name)) = foreign {
            return Err(DiskError::Foreign(name));
        }
        let file = if magic.starts_with(qcow2::MAGIC) {
            qcow2::unpack(&file, interrupt)?
        } else {
            file
        };
        let length = (&file).seek(SeekFrom::End(0))?;
        let read = |at, buffer: &mut [u8]| file.read_exact_at(buffer, at);
        let volumes = match partitions::of(length, &read)? {
            None => vec![Volume::of(&file, None, 0, length)?],
            Some(partitions) => partitions
                .into_iter()
                .map(|partition| {
                    let (start, length) = (partition.start, partition.length);
                    Volume::of(&file, Some(partition), start, length)
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Disk { file, volumes })
    }

    /// The root's file system: the one that was asked for, the only one that has an os-release, or of several the one
    /// whose type says that it is a root.
    fn root(&self, number: Option<u32>) -> Result<Tree, DiskError> {
        if let Some(number) = number {
            let volume = self.volumes.iter().find(|volume| {
                let own = volume.partition.as_ref().map_or(0, |own| own.number);
                own == number
            });
            let volume = volume.ok_or_else(|| DiskError::NoSuchPartition {
                number,
                there: self.listing(&[]),
            })?;
            return self.root_of(volume);
        }
        let mut roots = Vec::new();
        let mut refused = Vec::new();
        for volume in self.volumes.iter().filter(|volume| volume.may_be_root()) {
            match self.root_of(volume) {
                Ok(tree) if has_os_release(&tree) => roots.push((volume, tree)),
                Ok(_) => {}
                Err(error) => refused.push(error),
            }
        }
        if roots.len() > 1 {
            let typed = |volume: &Volume| {
                let partition = volume.partition.as_ref();
                partition.is_some_and(|partition| partition.kind.is_linux_root())
            };
            if roots.iter().filter(|(volume, _)| typed(volume)).count() == 1 {
                roots.retain(|(volume, _)| typed(volume));
            }
        }
        match (roots.len(), refused.len()) {
            (1, _) => Ok(roots.remove(0).1),
            // Nothing was found, and only this one could not be looked into.
            (0, 1) => Err(refused.remove(0)),
            (0, _) => Err(DiskError::NoRoot {
                there: self.listing(&refused),
            }),
            _ => Err(DiskError::SeveralRoots {
                there: self.listing(&refused),
            }),
        }
    }

    /// The root of a volume; of a btrfs, the subvolume that holds it.
    fn root_of(&self, volume: &Volume) -> Result<Tree, DiskError> {
        let tree = self.mount(volume, None, &[])?;
        if volume.kind() != Some("btrfs") || has_os_release(&tree) {
            return Ok(tree);
        }
        let held = ROOT_SUBVOLUMES.iter().find_map(|option| {
            let held = self.mount(volume, None, &[option]).ok()?;
            has_os_release(&held).then_some(held)
        });
        Ok(held.unwrap_or(tree))
    }

    /// A file system of the fstab, with its type as an instance will have it.
    fn other(&self, line: &Line) -> Result<(Filesystem, Tree), DiskError> {
        let found = self.volumes.iter().find(|volume| volume.is(&line.source));
        let Some(volume) = found else {
            return Err(DiskError::NotOnDisk {
                point: line.point.clone(),
                source_name: if line.source.is_empty() {
                    "nothing".to_owned()
                } else {
                    line.source.clone()
                },
            });
        };
        let subvolume = line
            .options
            .iter()
            .find(|option| option.starts_with("subvol="))
            .map(|option| option.trim_end_matches('/').replace("subvol=/", "subvol="));
        let options: Vec<&str> = subvolume.as_deref().into_iter().collect();
        let kind = line.kind_on(volume);
        let tree = self.mount(volume, Some(kind), &options)?;
        let filesystem = Filesystem {
            mount_point: line.point.clone(),
            kind: kind.to_owned(),
        };
        Ok((filesystem, tree))
    }

    fn mount(
        &self,
        volume: &Volume,
        kind: Option<&str>,
        options: &[&str],
    ) -> Result<Tree, DiskError> {
        let kind = kind.or(volume.kind());
        let kind = kind.ok_or_else(|| DiskError::Unknown {
            what: volume.to_string(),
        })?;
        let dirty = || DiskError::Dirty {
            what: volume.to_string(),
            with: match kind {
                "ext2" | "ext3" | "ext4" => "`e2fsck -p`",
                _ => "mount and unmount it once",
            },
        };
        let state = volume.superblock.as_ref().map(|found| found.state);
        if state == Some(State::Dirty) {
            return Err(dirty());
        }
        let device = LoopDevice::attach(&self.file, volume.start, volume.length);
        let device = device.map_err(DiskError::Loop)?;
        // The same file system may be mounted on the machine that the image was copied from or is baked on.
        let nouuid: &[&str] = if kind == "xfs" { &["nouuid"] } else { &[] };
        let options = [options, nouuid].concat();
        Tree::mount(kind, device.path(), &options).map_err(|source| {
            match source.source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::ROFS) => dirty(),
                Some(rustix::io::Errno::NODEV) => DiskError::Mount {
                    what: volume.to_string(),
                    advice: ": this kernel does not have such file systems (modprobe may help); or leave the others of the fstab out with `--filesystem none`",
                    source,
                },
                _ => DiskError::Mount {
                    what: volume.to_string(),
                    advice: "",
                    source,
                },
            }
        })
    }

    /// What is on the disk, for people.
    fn listing(&self, refused: &[DiskError]) -> String {
        let volumes = self.volumes.iter().map(ToString::to_string);
        let refused = refused.iter().map(ToString::to_string);
        let all: Vec<String> = volumes.chain(refused).collect();
        if all.is_empty() {
            "no partition".to_owned()
        } else {
            all.join("; ")
        }
    }
}

fn has_os_release(tree: &Tree) -> bool {
    let has = |directories: &[&[u8]]| {
        let mut dir = tree.root()?;
        for name in directories {
            dir = dir.open_dir(*name)?;
        }
        dir.stat_at(c"os-release")
    };
    has(&[b"usr", b"lib"]).or_else(|_| has(&[b"etc"])).is_ok()
}

/// Where distributions that use btrfs keep the root, if it is not the default: Ubuntu, Debian, Fedora.
const ROOT_SUBVOLUMES: [&str; 3] = ["subvol=@", "subvol=@rootfs", "subvol=root"];
const FOREIGN: [(&[u8], &str); 4] = [
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "dynamic VHD"),
    (b"<<< ", "VDI"),
];
