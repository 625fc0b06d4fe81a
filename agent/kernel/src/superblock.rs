//! The first bytes of a partition in, the file system that it holds out: type, UUID, label, whether it was left clean.
//!
//! What `fstab` names is found by these. Hostile bytes: fixed offsets, no arithmetic on what they say.

/// How many bytes from the start of a partition are looked at: as far as the superblock of btrfs.
pub const LOOKED_AT: usize = 68 * 1024;

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The file system's type as mount(8) calls it, or what else it is: `swap`, `crypto_LUKS`, `LVM2_member`.
    pub kind: &'static str,
    /// What `UUID=` calls it; empty if it has none.
    pub uuid: String,
    /// What `LABEL=` calls it.
    pub label: Vec<u8>,
    /// Whether it was unmounted in order, as far as its first bytes tell.
    pub state: State,
}

/// How a file system was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Unmounted, or of a type that tells only when it is mounted.
    Clean,
    /// Its journal has to be replayed, or it was mounted when it was copied.
    Dirty,
}

impl Superblock {
    /// Looks at the beginning of a partition, of [`LOOKED_AT`] bytes or all that it has; none if nothing is known of it.
    pub fn of(bytes: &[u8]) -> Option<Superblock> {
        let at = |offset: usize, length: usize| bytes.get(offset..offset.checked_add(length)?);
        let has = |offset, magic: &[u8]| at(offset, magic.len()) == Some(magic);
        let plain = |kind, uuid: Option<&[u8]>, label: Option<&[u8]>| Superblock {
            kind,
            uuid: uuid.map(dashed).unwrap_or_default(),
            label: label.map(trimmed).unwrap_or_default(),
            state: State::Clean,
        };
        if has(0, b"LUKS\xba\xbe") {
            return Some(plain("crypto_LUKS", None, None));
        }
        if has(0, b"XFSB") {
            return Some(plain("xfs", at(32, 16), at(108, 12)));
        }
        if has(0, b"hsqs") {
            return Some(plain("squashfs", None, None));
        }
        if has(EXT + 56, &[0x53, 0xEF]) {
            return ext(at(EXT, 1024)?);
        }
        if has(1024, &[0xE2, 0xE1, 0xF5, 0xE0]) {
            return Some(plain("erofs", at(1024 + 48, 16), at(1024 + 64, 16)));
        }
        if has(BTRFS + 64, b"_BHRfS_M") {
            return Some(plain("btrfs", at(BTRFS + 32, 16), at(BTRFS + 299, 256)));
        }
        if has(1024, &[0x10, 0x20, 0xF5, 0xF2]) {
            return Some(plain("f2fs", None, None));
        }
        if has(4086, b"SWAPSPACE2") {
            return Some(plain("swap", at(1024 + 12, 16), None));
        }
        if (0..4).any(|sector| has(sector * 512, b"LABELONE")) {
            return Some(plain("LVM2_member", None, None));
        }
        if has(510, &[0x55, 0xAA]) {
            return fat(at(0, 512)?);
        }
        None
    }
}

/// ext2, ext3 and ext4, told apart as blkid does.
fn ext(superblock: &[u8]) -> Option<Superblock> {
    let word = |at: usize| {
        Some(u32::from_le_bytes(
            superblock.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    let (compat, incompat, ro_compat) = (word(0x5C)?, word(0x60)?, word(0x64)?);
    let is_ext4 = incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0;
    let has_journal = compat & EXT_HAS_JOURNAL != 0;
    let was_unmounted = superblock.get(0x3A)? & EXT_VALID != 0;
    Some(Superblock {
        kind: match (is_ext4, has_journal) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        },
        uuid: dashed(superblock.get(0x68..0x78)?),
        label: trimmed(superblock.get(0x78..0x88)?),
        state: if incompat & EXT_RECOVER != 0 || !was_unmounted {
            State::Dirty
        } else {
            State::Clean
        },
    })
}

/// FAT32, or FAT12 and FAT16.
fn fat(sector: &[u8]) -> Option<Superblock> {
    let (id, label) = match (sector.get(82..87)?, sector.get(54..57)?) {
        (b"FAT32", _) => (67, 71),
        (_, b"FAT") => (39, 43),
        _ => return None,
    };
    let id = u32::from_le_bytes(sector.get(id..id + 4)?.try_into().ok()?);
    Some(Superblock {
        kind: "vfat",
        uuid: format!("{:04X}-{:04X}", id >> 16, id & 0xFFFF),
        label: trimmed(sector.get(label..label + 11)?),
        state: State::Clean,
    })
}

/// A UUID as it is written; empty for one that is all zero.
fn dashed(uuid: &[u8]) -> String {
    if uuid.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (nth, byte) in uuid.iter().enumerate() {
        if matches!(nth, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A label up to its NUL, without the spaces that pad it.
fn trimmed(label: &[u8]) -> Vec<u8> {
    let end = label.iter().position(|byte| *byte == 0);
    label[..end.unwrap_or(label.len())]
        .trim_ascii_end()
        .to_vec()
}

const EXT: usize = 1024;
const BTRFS: usize = 64 * 1024;
const EXT_HAS_JOURNAL: u32 = 0x4;
const EXT_RECOVER: u32 = 0x4;
const EXT_VALID: u8 = 0x1;
/// filetype, recover, meta_bg.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
/// sparse_super, large_file, btree_dir.
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    const UUID: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

    #[test]
    fn what_the_tools_make_is_known_by_type_uuid_and_label() {
        let place = crate::lab::place();
        for (kind, make, uuid) in [
            ("ext2", format!("mkfs.ext2 -q -F -U {UUID} -L boot"), UUID),
            ("ext3", format!("mkfs.ext3 -q -F -U {UUID} -L boot"), UUID),
            ("ext4", format!("mkfs.ext4 -q -F -U {UUID} -L boot"), UUID),
            (
                "xfs",
                format!("mkfs.xfs -q -f -m uuid={UUID} -L boot"),
                UUID,
            ),
            ("btrfs", format!("mkfs.btrfs -q -f -U {UUID} -L boot"), UUID),
            (
                "vfat",
                "mkfs.vfat -i 12AB34CD -n BOOT".to_owned(),
                "12AB-34CD",
            ),
            ("swap", format!("mkswap -q -U {UUID}"), UUID),
        ] {
            let path = place.path().join(kind);
            let file = std::fs::File::create_new(&path).expect("create");
            file.set_len(400 << 20).expect("size");
            let mut words = make.split(' ');
            let mut command = Command::new(words.next().expect("a program"));
            match command.args(words).arg(&path).output() {
                Ok(output) if output.status.success() => {}
                outcome => {
                    println!("skipped: {kind}: {outcome:?}");
                    continue;
                }
            }
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path).expect("open");
            file.take(LOOKED_AT as u64)
                .read_to_end(&mut bytes)
                .expect("read");
            let found = Superblock::of(&bytes).expect(kind);
            assert_eq!((found.kind, found.uuid.as_str()), (kind, uuid));
            let label = if kind == "swap" { "" } else { "boot" };
            assert!(found.label.eq_ignore_ascii_case(label.as_bytes()), "{kind}");
            assert_eq!(found.state, State::Clean, "{kind}");
        }
    }

    #[test]
    fn an_ext4_with_a_journal_to_replay_is_dirty() {
        let mut bytes = vec![0; 4096];
        bytes[EXT + 56..EXT + 58].copy_from_slice(&[0x53, 0xEF]);
        for (state, incompat, expected) in [
            (1, 0x40, State::Clean),
            (1, 0x44, State::Dirty),
            (0, 0x40, State::Dirty),
            (2, 0x40, State::Dirty),
        ] {
            bytes[EXT + 0x3A] = state;
            bytes[EXT + 0x60] = incompat;
            let found = Superblock::of(&bytes).expect("ext4");
            assert_eq!((found.kind, found.state), ("ext4", expected));
        }
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        assert_eq!(Superblock::of(&[]), None);
        assert_eq!(Superblock::of(&[0; LOOKED_AT]), None);
        for length in 0..2048 {
            let _ = Superblock::of(&vec![0x53; length]);
        }
    }
}
