//! A part of a disk in; what is on it, and whether a fstab means it, out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use driftmark_kernel::{Partition, Superblock, superblock};

use crate::bake::source::fstab::Line;

/// A part of a disk that may hold a file system.
pub(super) struct Volume {
    /// None if the disk has no partitions.
    pub(super) partition: Option<Partition>,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) superblock: Option<Superblock>,
}

impl Volume {
    pub(super) fn of(
        file: &File,
        partition: Option<Partition>,
        start: u64,
        length: u64,
    ) -> io::Result<Self> {
        let looked_at = usize::try_from(length).unwrap_or(usize::MAX);
        let mut first = vec![0; looked_at.min(superblock::LOOKED_AT)];
        let read = read_up_to(file, start, &mut first)?;
        Ok(Volume {
            partition,
            start,
            length,
            superblock: Superblock::of(&first[..read]),
        })
    }

    pub(super) fn kind(&self) -> Option<&'static str> {
        self.superblock.as_ref().map(|found| found.kind)
    }

    pub(super) fn may_be_root(&self) -> bool {
        self.kind().is_some_and(|kind| ROOTS.contains(&kind))
    }

    /// Whether this is what a fstab calls by this name.
    pub(super) fn is(&self, source: &str) -> bool {
        let (key, value) = source.split_once('=').unwrap_or(("", source));
        let value = value.trim_matches('"');
        let (key, value) = match value.strip_prefix("/dev/disk/by-") {
            Some(link) => link.split_once('/').unwrap_or((key, value)),
            None => (key, value),
        };
        let found = self.superblock.as_ref();
        let partition = self.partition.as_ref();
        let is_named = |name: Option<&str>| {
            name.is_some_and(|name| !name.is_empty() && name.eq_ignore_ascii_case(value))
        };
        match &*key.to_ascii_lowercase() {
            "uuid" => is_named(found.map(|found| &*found.uuid)),
            "label" => found
                .is_some_and(|found| !found.label.is_empty() && found.label == value.as_bytes()),
            "partuuid" => is_named(partition.map(|own| &*own.uuid)),
            "partlabel" => partition.is_some_and(|own| !own.label.is_empty() && own.label == value),
            "" => partition.is_some_and(|own| first_disk_partition(value) == Some(own.number)),
            _ => false,
        }
    }
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.partition {
            Some(partition) => write!(f, "partition {}", partition.number)?,
            None => write!(f, "the whole disk")?,
        }
        write!(f, " ({}", crate::size(self.length))?;
        match &self.superblock {
            Some(found) => write!(f, ", {}", found.kind)?,
            None => write!(f, ", nothing that is known")?,
        }
        let label = self.partition.as_ref().map(|own| &*own.label);
        if let Some(label) = label.filter(|label| !label.is_empty()) {
            write!(f, ", {}", drift::escape(label.as_bytes()))?;
        }
        match self.kind() {
            Some("crypto_LUKS") => write!(f, ": open it with cryptsetup and bake with --root")?,
            Some("LVM2_member") => write!(f, ": activate it with vgchange and bake with --root")?,
            _ => {}
        }
        f.write_str(")")
    }
}

impl Line {
    /// The type as mountinfo will show it: the fstab's for those of the ext family, else what is there.
    pub(super) fn kind_on<'a>(&'a self, volume: &'a Volume) -> &'a str {
        let found = volume.kind().unwrap_or(&self.kind);
        if self.kind.starts_with("ext") && found.starts_with("ext") {
            &self.kind
        } else {
            found
        }
    }
}

/// The number in a kernel's name of a partition of the first disk.
fn first_disk_partition(device: &str) -> Option<u32> {
    let name = device.strip_prefix("/dev/")?;
    let number = FIRST_DISKS
        .iter()
        .find_map(|disk| name.strip_prefix(disk))?;
    number.parse().ok()
}

/// Reads as far as the file goes.
pub(super) fn read_up_to(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a root may be on.
const ROOTS: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "erofs", "squashfs"];
const FIRST_DISKS: [&str; 6] = ["sda", "vda", "xvda", "hda", "nvme0n1p", "mmcblk0p"];

#[cfg(test)]
mod tests {
    use driftmark_kernel::partitions::PartitionKind;
    use driftmark_kernel::superblock::State;

    use super::*;

    #[test]
    fn a_volume_is_known_by_every_name_that_a_fstab_may_use() {
        let mut volume = Volume {
            partition: Some(Partition {
                number: 2,
                start: 0,
                length: 0,
                kind: PartitionKind::Byte(0x83),
                uuid: "0fc63daf-8483-4772-8e79-3d69d8477de4".to_owned(),
                label: "boot part".to_owned(),
            }),
            start: 0,
            length: 0,
            superblock: Some(Superblock {
                kind: "ext4",
                uuid: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".to_owned(),
                label: b"boot".to_vec(),
                state: State::Clean,
            }),
        };
        for source in [
            "UUID=c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "UUID=\"C12A7328-f81f-11d2-ba4b-00a0c93ec93b\"",
            "/dev/disk/by-uuid/c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "LABEL=boot",
            "PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4",
            "PARTLABEL=\"boot part\"",
            "/dev/sda2",
            "/dev/nvme0n1p2",
        ] {
            assert!(volume.is(source), "{source}");
        }
        for source in [
            "",
            "UUID=",
            "LABEL=",
            "LABEL=boo",
            "/dev/sdb2",
            "/dev/sda",
            "/dev/sda3",
        ] {
            assert!(!volume.is(source), "{source}");
        }
        volume.superblock = None;
        for source in ["UUID=", "LABEL=", "UUID=x"] {
            assert!(!volume.is(source), "{source}");
        }
    }
}
