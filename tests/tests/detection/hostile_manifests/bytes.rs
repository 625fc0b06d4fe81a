//! Truncated, extended and bit-flipped: every part of the two files that a check believes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use super::{check, refused};
use crate::ground::{Ground, Run};

const PREAMBLE: usize = 40;
const BLOCK: usize = 64 * 1024;

/// Where the parts of a manifest lie, read from the manifest itself.
struct Parts {
    header: usize,
    entries: usize,
    /// What a check reads not at all, or only to name the package of what drifted.
    unread: usize,
    table: usize,
    side: usize,
}

impl Parts {
    fn of(bytes: &[u8]) -> Result<Self> {
        let number = |at: usize| -> Result<usize> {
            let eight = bytes
                .get(at..at + 8)
                .context("a preamble")?
                .try_into()
                .context("8 bytes")?;
            usize::try_from(u64::from_le_bytes(eight)).context("a length")
        };
        let (header, body) = (number(16)?, number(24)?);
        let mut rest = &bytes[PREAMBLE..];
        let numbers: Vec<usize> = (0..6).map(|_| varint(&mut rest)).collect();
        let entries = PREAMBLE + header;
        let table = entries + body;
        Ok(Parts {
            header,
            entries,
            unread: entries + numbers[3] + numbers[4],
            table,
            side: table + body.div_ceil(BLOCK) * 32,
        })
    }
}

fn varint(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Enough entries for several blocks, some with attributes.
fn ground() -> Result<Ground> {
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    ground.shell("", "mkdir tree; cd tree; for n in {1..3000}; do echo $n > file-with-a-rather-long-name-$n; done; setfattr -n user.note -v x file-with-a-rather-long-name-{1..50}")?;
    ground.bake_well("tree", "baked", None)?;
    Ok(ground)
}

fn write_and_check(ground: &Ground, path: &Path, bytes: &[u8]) -> Result<Run> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    check(ground)
}

#[test]
fn a_manifest_of_any_other_length_is_refused() -> Result<()> {
    if !possible("a manifest cut short") {
        return Ok(());
    }
    let ground = ground()?;
    let path = ground.outside("baked/image.manifest");
    let good = fs::read(&path).context("read the manifest")?;
    let parts = Parts::of(&good)?;
    ensure!(parts.table - parts.entries > 2 * BLOCK, "several blocks");
    let edges = [
        0,
        8,
        12,
        PREAMBLE,
        PREAMBLE + parts.header,
        parts.entries + BLOCK,
        parts.unread,
        parts.table,
        parts.side,
        good.len(),
    ];
    let around = edges
        .into_iter()
        .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]);
    let lengths = around
        .chain((0..good.len()).step_by(good.len() / 20))
        .filter(|&length| length < good.len());
    for length in lengths {
        let run = write_and_check(&ground, &path, &good[..length])?;
        refused(&run, "image.manifest")
            .with_context(|| format!("cut to {length} of {} bytes", good.len()))?;
    }
    for more in [&b"\0"[..], b"evil", &good] {
        let run = write_and_check(&ground, &path, &[&good, more].concat())?;
        refused(&run, "image.manifest").context("extended")?;
    }
    let run = write_and_check(&ground, &path, &good)?;
    ensure!(run.code == 0, "the whole one is good: {run:?}");
    Ok(())
}

#[test]
fn a_manifest_with_one_bit_flipped_is_refused_wherever_a_check_reads() -> Result<()> {
    if !possible("a flipped bit") {
        return Ok(());
    }
    let ground = ground()?;
    let path = ground.outside("baked/image.manifest");
    let good = fs::read(&path).context("read the manifest")?;
    let parts = Parts::of(&good)?;
    let every =
        |from: usize, to: usize, count: usize| (from..to).step_by(((to - from) / count).max(1));
    let read = (0..PREAMBLE)
        .chain(PREAMBLE..parts.entries)
        .chain(every(parts.entries, parts.unread, 40))
        .chain(every(parts.table, parts.side, 12));
    for (nth, at) in read.enumerate() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (nth % 8);
        let run = write_and_check(&ground, &path, &bytes)?;
        refused(&run, "").with_context(|| format!("bit {} of byte {at}", nth % 8))?;
    }
    // What a check does not read cannot mislead it: nothing is refused, or all is, and nothing else is said.
    let last_entries_block = (parts.unread - parts.entries).div_ceil(BLOCK) * BLOCK + parts.entries;
    for at in every(last_entries_block.min(parts.table), parts.table, 10).chain(every(
        parts.side,
        good.len(),
        10,
    )) {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        let run = write_and_check(&ground, &path, &bytes)?;
        ensure!(run.code == 0 || run.code == 65, "byte {at}: {run:?}");
    }
    Ok(())
}

#[test]
fn a_signature_with_one_bit_flipped_or_cut_short_is_refused() -> Result<()> {
    if !possible("a flipped bit of a signature") {
        return Ok(());
    }
    let ground = super::ground()?;
    let path = ground.outside("baked/image.manifest.sig");
    let good = fs::read(&path).context("read the signature")?;
    let meaning = |bytes: &[u8]| {
        let envelope = drift::signature::Envelope::from_json(bytes).ok()?;
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        Some((
            envelope.unverified_statement().to_vec(),
            value["signatures"][0]["sig"].clone(),
        ))
    };
    let truth = meaning(&good);
    ensure!(truth.is_some(), "the good one is read");
    for at in (0..good.len()).step_by(5) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 7);
        let run = write_and_check(&ground, &path, &bytes)?;
        // The name of the key is a hint that decides nothing.
        if meaning(&bytes) == truth {
            ensure!(run.code == 0, "byte {at} changes no meaning: {run:?}");
        } else {
            refused(&run, "").with_context(|| format!("byte {at}"))?;
        }
    }
    for length in (0..good.len()).step_by(29) {
        let run = write_and_check(&ground, &path, &good[..length])?;
        refused(&run, "image.manifest").with_context(|| format!("cut to {length} bytes"))?;
    }
    Ok(())
}
