//! A disk's first sectors in, its partitions out: GPT (UEFI 2.10, chapter 5) and MBR with logical partitions.
//!
//! Read here and not by the kernel, because a disk image is a file, and what the kernel would make of it are devices that
//! are left behind. Hostile bytes: everything is bounded, and a table that is not sound is an error and never half read.

use std::fmt;
use std::io;

/// One partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As it is counted in device names, from 1; logical ones from 5.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// What it is said to be.
    pub kind: PartitionKind,
    /// What `PARTUUID=` calls it.
    pub uuid: String,
    /// What `PARTLABEL=` calls it; empty in an MBR.
    pub label: String,
}

/// What a table says that a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// A GPT's type.
    Guid(Guid),
    /// An MBR's type.
    Byte(u8),
}

/// A GUID as a GPT stores it: the first three fields little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

/// Why a disk's table is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The disk cannot be read.
    #[error("read the partition table")]
    Read(#[from] io::Error),
    /// It breaks the rules of its format.
    #[error("the {table} is damaged: {problem}")]
    Damaged {
        /// GPT or MBR.
        table: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Fills the buffer from this offset of the disk.
pub type ReadAt<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'a;

/// The partitions of a disk of this many bytes, in the order of their numbers; none if it has no table.
///
/// # Errors
/// It cannot be read, or its table is damaged.
pub fn of(length: u64, read: &ReadAt<'_>) -> Result<Option<Vec<Partition>>, TableError> {
    let mut sector = [0; MBR_SECTOR];
    if length < 2 * MBR_SECTOR as u64 {
        return Ok(None);
    }
    read(0, &mut sector)?;
    for sector_bytes in [512, 4096] {
        if let Some(partitions) = gpt(length, sector_bytes, read)? {
            return Ok(Some(partitions));
        }
    }
    if sector[510..] != [0x55, 0xAA] {
        return Ok(None);
    }
    let slots = slots(&sector);
    if slots.iter().any(|slot| slot.kind == PROTECTIVE) {
        return Err(damaged("GPT", "its MBR announces it, and it is not there"));
    }
    mbr(length, &sector, &slots, read)
}

fn damaged(table: &'static str, problem: &'static str) -> TableError {
    TableError::Damaged { table, problem }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// None if there is no GPT with sectors of this size.
fn gpt(
    length: u64,
    sector_bytes: u64,
    read: &ReadAt<'_>,
) -> Result<Option<Vec<Partition>>, TableError> {
    if length < 2 * sector_bytes {
        return Ok(None);
    }
    let mut header = vec![0; sector_bytes as usize];
    read(sector_bytes, &mut header)?;
    if &header[..8] != b"EFI PART" {
        return Ok(None);
    }
    let header_bytes = u32_at(&header, 12) as usize;
    if !(GPT_HEADER..=header.len()).contains(&header_bytes) {
        return Err(damaged("GPT", "its header has no possible length"));
    }
    let expected = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32(&header[..header_bytes]) != expected {
        return Err(damaged("GPT", "its header's checksum is wrong"));
    }
    let (at, count, each) = (
        u64_at(&header, 72),
        u32_at(&header, 80),
        u32_at(&header, 84),
    );
    if count > MAX_SLOTS || !(128..=4096).contains(&each) || !each.is_power_of_two() {
        return Err(damaged("GPT", "it has too many entries, or too long ones"));
    }
    let start = at.checked_mul(sector_bytes);
    let table_bytes = u64::from(count) * u64::from(each);
    let Some(start) = start.filter(|start| fits(*start, table_bytes, length)) else {
        return Err(damaged("GPT", "its entries are not on the disk"));
    };
    let mut entries = vec![0; table_bytes as usize];
    read(start, &mut entries)?;
    if crc32(&entries) != u32_at(&header, 88) {
        return Err(damaged("GPT", "its entries' checksum is wrong"));
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(each as usize)) {
        let guid = |at: usize| Guid(entry[at..at + 16].try_into().expect("sixteen bytes"));
        if guid(0).0 == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let sectors = last.checked_sub(first).and_then(|rest| rest.checked_add(1));
        let range = sectors.and_then(|sectors| {
            let (start, bytes) = (
                first.checked_mul(sector_bytes)?,
                sectors.checked_mul(sector_bytes)?,
            );
            (start > 0 && fits(start, bytes, length)).then_some((start, bytes))
        });
        let Some((start, bytes)) = range else {
            return Err(damaged("GPT", "a partition is not on the disk"));
        };
        let name = entry[56..128].chunks_exact(2);
        let name = name.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let label = char::decode_utf16(name.take_while(|&unit| unit != 0))
            .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        partitions.push(Partition {
            number,
            start,
            length: bytes,
            kind: PartitionKind::Guid(guid(0)),
            uuid: guid(16).to_string(),
            label,
        });
    }
    Ok(Some(partitions))
}

/// One of the four slots of an MBR or EBR.
struct Slot {
    boot: u8,
    kind: u8,
    first: u32,
    sectors: u32,
}

fn slots(sector: &[u8; MBR_SECTOR]) -> [Slot; 4] {
    std::array::from_fn(|nth| {
        let slot = &sector[446 + 16 * nth..][..16];
        Slot {
            boot: slot[0],
            kind: slot[4],
            first: u32_at(slot, 8),
            sectors: u32_at(slot, 12),
        }
    })
}

/// None if the boot sector is one of a file system and not of a disk.
fn mbr(
    length: u64,
    sector: &[u8; MBR_SECTOR],
    slots: &[Slot; 4],
    read: &ReadAt<'_>,
) -> Result<Option<Vec<Partition>>, TableError> {
    let used = |slot: &&Slot| slot.kind != 0;
    if slots.iter().any(|slot| !matches!(slot.boot, 0 | 0x80))
        || !slots.iter().any(|slot| used(&slot))
    {
        return Ok(None);
    }
    let is_extended = |slot: &&Slot| EXTENDED.contains(&slot.kind);
    if slots.iter().filter(is_extended).count() > 1 {
        return Err(damaged("MBR", "it has several extended partitions"));
    }
    let disk = u32_at(sector, 440);
    let mut partitions = Vec::new();
    for (number, slot) in (1..).zip(slots).filter(|(_, slot)| used(slot)) {
        if EXTENDED.contains(&slot.kind) {
            logical(length, disk, u64::from(slot.first), &mut partitions, read)?;
        } else {
            partitions.push(slot.partition(number, 0, disk, length)?);
        }
    }
    partitions.sort_by_key(|partition| partition.number);
    Ok(Some(partitions))
}

/// Follows the chain of an extended partition, which only ever leads onwards.
fn logical(
    length: u64,
    disk: u32,
    extended: u64,
    partitions: &mut Vec<Partition>,
    read: &ReadAt<'_>,
) -> Result<(), TableError> {
    let mut here = extended;
    for number in FIRST_LOGICAL..FIRST_LOGICAL + MAX_LOGICAL {
        let mut sector = [0; MBR_SECTOR];
        let start = here * MBR_SECTOR as u64;
        if !fits(start, MBR_SECTOR as u64, length) {
            return Err(damaged("MBR", "a logical partition is not on the disk"));
        }
        read(start, &mut sector)?;
        if sector[510..] != [0x55, 0xAA] {
            return Err(damaged("MBR", "a logical partition has no signature"));
        }
        let [own, next, ..] = slots(&sector);
        if own.kind != 0 {
            partitions.push(own.partition(number, here, disk, length)?);
        }
        if next.kind == 0 {
            return Ok(());
        }
        let onwards = extended + u64::from(next.first);
        if onwards <= here {
            return Err(damaged("MBR", "its logical partitions lead back"));
        }
        here = onwards;
    }
    Err(damaged("MBR", "it has too many logical partitions"))
}

impl Slot {
    fn partition(
        &self,
        number: u32,
        base: u64,
        disk: u32,
        length: u64,
    ) -> Result<Partition, TableError> {
        let start = (base + u64::from(self.first)) * MBR_SECTOR as u64;
        let bytes = u64::from(self.sectors) * MBR_SECTOR as u64;
        if self.first == 0 || bytes == 0 || !fits(start, bytes, length) {
            return Err(damaged("MBR", "a partition is not on the disk"));
        }
        Ok(Partition {
            number,
            start,
            length: bytes,
            kind: PartitionKind::Byte(self.kind),
            uuid: format!("{disk:08x}-{number:02x}"),
            label: String::new(),
        })
    }
}

fn fits(start: u64, bytes: u64, length: u64) -> bool {
    start.checked_add(bytes).is_some_and(|end| end <= length)
}

/// CRC-32 of ISO 3309, bit by bit: a table has a few kilobytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TEXT_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (nth, at) in TEXT_ORDER.into_iter().enumerate() {
            if matches!(nth, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl PartitionKind {
    /// Whether the Discoverable Partitions Specification calls it the root of a Linux.
    pub fn is_linux_root(self) -> bool {
        let PartitionKind::Guid(guid) = self else {
            return false;
        };
        LINUX_ROOTS.contains(&guid.to_string().as_str())
    }
}

const MBR_SECTOR: usize = 512;
/// The shortest header of a GPT.
const GPT_HEADER: usize = 92;
/// Partitioning tools make 128, and nobody makes more than this.
const MAX_SLOTS: u32 = 1024;
/// The type of the one partition that covers a GPT.
const PROTECTIVE: u8 = 0xEE;
/// CHS, LBA and Linux' own.
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
const FIRST_LOGICAL: u32 = 5;
/// As many as the kernel takes.
const MAX_LOGICAL: u32 = 252;
/// x86-64, aarch64, riscv64, s390x, ppc64le, x86.
const LINUX_ROOTS: [&str; 6] = [
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    "5eead9a9-fe09-4a1e-a1d7-520d00531306",
    "c31c45e6-3f39-412e-80fb-4809c4980599",
    "44479540-f297-41b2-9af7-d131d5f0458a",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &[u8]) -> Result<Option<Vec<Partition>>, TableError> {
        of(disk.len() as u64, &|at, buffer: &mut [u8]| {
            let at = usize::try_from(at).expect("a small disk");
            let bytes = disk.get(at..at + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    /// A disk of 64 sectors with one partition from sector 40 to 49.
    fn gpt_disk() -> Vec<u8> {
        let mut disk = vec![0; 64 * 512];
        let mut entry = [0; 128];
        entry[..16].copy_from_slice(&[
            0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84,
            0xb7, 0x09,
        ]);
        entry[16..32].copy_from_slice(&[7; 16]);
        entry[32..40].copy_from_slice(&40_u64.to_le_bytes());
        entry[40..48].copy_from_slice(&49_u64.to_le_bytes());
        entry[56..60].copy_from_slice(b"r\0t\0");
        disk[1024 + 128..1024 + 256].copy_from_slice(&entry);
        seal(&mut disk);
        disk
    }

    fn seal(disk: &mut [u8]) {
        let entries = crc32(&disk[1024..1024 + 4 * 128]);
        let header = &mut disk[512..512 + 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[16..20].fill(0);
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&4_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&entries.to_le_bytes());
        let sum = crc32(header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    fn mbr_disk(slots: &[(usize, u8, u32, u32)]) -> Vec<u8> {
        let mut disk = vec![0; 64 * 512];
        disk[440..444].copy_from_slice(&0x0011_2233_u32.to_le_bytes());
        for &(at, kind, first, sectors) in slots {
            disk[at + 4] = kind;
            disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
            let end = at / 512 * 512 + 510;
            disk[end..end + 2].copy_from_slice(&[0x55, 0xAA]);
        }
        disk
    }

    #[test]
    fn a_gpt_is_read_with_its_types_and_names() {
        let partitions = read(&gpt_disk()).unwrap().unwrap();
        let [root] = &partitions[..] else {
            panic!("{partitions:?}")
        };
        assert_eq!(
            (root.number, root.start, root.length),
            (2, 40 * 512, 10 * 512)
        );
        assert_eq!(root.label, "rt");
        assert_eq!(root.uuid, "07070707-0707-0707-0707-070707070707");
        assert!(root.kind.is_linux_root());
    }

    #[test]
    fn a_gpt_with_any_flipped_bit_of_header_or_entries_is_refused() {
        for at in (520..604).chain(1024..1536) {
            let mut disk = gpt_disk();
            disk[at] ^= 4;
            assert!(read(&disk).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_sealed_gpt_whose_partition_is_not_on_the_disk_is_refused() {
        for (first, last) in [
            (40, 64),
            (49, 40),
            (0, 3),
            (u64::MAX, u64::MAX),
            (1, u64::MAX),
        ] {
            let mut disk = gpt_disk();
            disk[1024 + 128 + 32..][..8].copy_from_slice(&first_bytes(first));
            disk[1024 + 128 + 40..][..8].copy_from_slice(&first_bytes(last));
            seal(&mut disk);
            assert!(read(&disk).is_err(), "{first} to {last}");
        }
    }

    fn first_bytes(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    #[test]
    fn an_mbr_is_read_with_its_logical_partitions() {
        let disk = mbr_disk(&[
            (446, 0x83, 4, 8),
            (462, 0x05, 20, 40),
            (20 * 512 + 446, 0x83, 2, 6),
            (20 * 512 + 462, 0x05, 10, 10),
            (30 * 512 + 446, 0x82, 1, 2),
        ]);
        let partitions = read(&disk).unwrap().unwrap();
        let told: Vec<_> = partitions
            .iter()
            .map(|partition| {
                (
                    partition.number,
                    partition.start / 512,
                    partition.length / 512,
                )
            })
            .collect();
        assert_eq!(told, [(1, 4, 8), (5, 22, 6), (6, 31, 2)]);
        assert_eq!(partitions[1].uuid, "00112233-05");
    }

    #[test]
    fn an_mbr_that_leads_back_or_off_the_disk_is_refused() {
        for slots in [
            &[(446, 0x83, 4, 61)][..],
            &[(446, 0x83, 0, 1)],
            &[(446, 0x05, 90, 1)],
            &[(446, 0x05, 20, 40), (20 * 512 + 462, 0x05, 0, 10)],
            &[(446, 0xEE, 1, 63)],
        ] {
            assert!(read(&mbr_disk(slots)).is_err(), "{slots:?}");
        }
    }

    #[test]
    fn what_has_no_table_has_none() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[0; 100]).unwrap().is_none());
        assert!(read(&vec![0; 4096 * 4]).unwrap().is_none());
        let mut boot_sector = mbr_disk(&[(446, 0x72, 4, 8)]);
        boot_sector[446] = 0x6f;
        assert!(read(&boot_sector).unwrap().is_none());
    }
}
