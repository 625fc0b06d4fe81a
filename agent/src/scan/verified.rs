//! What was verified before, so that a quick pass can trust what has not moved since.
//!
//! It lies only in the direction of more work: a mark is kept for an entry that was found to be as the manifest says,
//! and it is believed only on the same boot and the same mounts, by a clock that was not set back, for an inode whose
//! `ctime` is older by more than [`SETTLED_NANOSECONDS`] than the moment it was read.
//!
//! ```text
//! magic      8 bytes, "drftsee3"
//! manifest   32 bytes, its BLAKE3; boot id: length (1 byte) and bytes; mounts: count (2 bytes), 8 bytes each
//! latest     8 bytes, nanoseconds since 1970
//! key        16 bytes
//! portraits  count (4 bytes); for each: its first ordinal and that after its last, 8 bytes each; bits: 1 it has looks, 2 it is
//!            linked (1 byte); its looks, else zeros (32 bytes)
//! marks      8 bytes for each entry: SipHash-2-4 by the key of device, inode, ctime; zero where there is none
//! digest     32 bytes, BLAKE3 of all before
//! ```
//! All numbers are little-endian. The key is drawn anew whenever marks begin anew, and is root's alone: nobody can look for
//! a ctime whose mark is that of another, and by chance one of 2^64 is.

mod beside;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read, Write};

use drift::Blake3;
use drift::manifest::Part;
use driftmark_kernel::Stat;

use super::portrait::Portrait;

/// A change within the kernel's clock tick of the reading may have the same `ctime` as the reading saw.
const SETTLED_NANOSECONDS: i64 = 20_000_000;

const MAGIC: &[u8; 8] = b"drftsee3";
const MARK_BYTES: usize = 8;
const DIGEST_BYTES: u64 = 32;
/// So many marks are written, and read, at once.
const MARKS_AT_ONCE: usize = 8 * 1024;

/// Marks of entries that were found to be as the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    context: Context,
    /// The latest moment that a mark was made, nanoseconds since 1970.
    latest: i64,
    key: Key,
    /// By the entry's ordinal.
    marks: Vec<Mark>,
    /// A full pass goes on beside, and these were not begun anew since it began.
    full_began: bool,
    /// How parts looked when their entries were last gone through. With other parts they are of no use.
    portraits: Vec<Portrait>,
}

/// What marks depend on: with any other they are worth nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The manifest that entries were verified against.
    pub manifest: Option<Blake3>,
    /// The boot on which they were.
    pub boot_id: String,
    /// The mounts that the image's file systems were seen through: one that was unmounted may have been changed
    /// without a trace. Before Linux 6.8 a number may be used again once it is free.
    pub mounts: Vec<u64>,
}

/// What an entry looked like when it was verified and nothing had to be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mark(u64);

/// What marks are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Key(u64, u64);

/// A part with the marks of its entries, and how it looked when these were last gone through, if that is known.
pub(super) struct Share<'v> {
    pub(super) part: Part,
    pub(super) marks: Marks<'v>,
    pub(super) portrait: Option<Portrait>,
}

/// The marks of the entries of one part.
pub(super) struct Marks<'v> {
    key: Key,
    first: u64,
    marks: &'v mut [Mark],
}

impl Verified {
    /// Forgets everything that was not verified in this context, by a clock that went on since; makes room for as many
    /// entries as the manifest has.
    pub fn prepare(&mut self, context: Context, entries: u64, now: i64) {
        if self.context != context || now < self.latest {
            *self = Verified {
                context,
                latest: now,
                key: Key::drawn(),
                ..Verified::default()
            };
        }
        self.marks.resize(entries as usize, Mark::default());
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.marks.iter().all(|mark| *mark == Mark::default())
    }

    /// Notes that marks were made of what was read until this moment.
    pub(super) fn read_until(&mut self, read_at: i64) {
        self.latest = self.latest.max(read_at);
    }

    /// How parts looked. A pass that draws them anew begins with nothing, and keeps what it drew once it has told all that
    /// it found: another may pass over what looks like that.
    pub(super) fn take_portraits(&mut self) -> Vec<Portrait> {
        std::mem::take(&mut self.portraits)
    }

    /// Keeps how parts looked, and nothing of any other.
    pub(super) fn keep(&mut self, mut portraits: Vec<Portrait>) {
        portraits.sort_unstable_by_key(|portrait| portrait.ordinals.start);
        self.portraits = portraits;
    }

    /// All that is known, to be shared out among the parts of the manifest in their order, with how these looked.
    pub(super) fn shared_out(
        &mut self,
        parts: Vec<Part>,
        portraits: &[Portrait],
    ) -> Vec<Share<'_>> {
        let key = self.key;
        let mut rest = self.marks.as_mut_slice();
        let share = |part: Part| {
            let length = part.ordinals.end - part.ordinals.start;
            let there = rest.len().min(length as usize);
            let (marks, others) = std::mem::take(&mut rest).split_at_mut(there);
            rest = others;
            let first = part.ordinals.start;
            let portrait = portraits
                .binary_search_by_key(&first, |portrait| portrait.ordinals.start)
                .map(|nth| &portraits[nth]);
            let portrait = portrait.ok().filter(|one| one.ordinals == part.ordinals);
            Share {
                portrait: portrait.filter(|_| there as u64 == length).cloned(),
                marks: Marks { key, first, marks },
                part,
            }
        };
        parts.into_iter().map(share).collect()
    }

    /// Marks of what was judged when all parts were done.
    pub(super) fn all(&mut self) -> Marks<'_> {
        Marks {
            key: self.key,
            first: 0,
            marks: &mut self.marks,
        }
    }

    /// Writes what [`Verified::read`] reads, piece by piece: there are many marks.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        self.pieces(&mut |bytes| {
            hasher.update(bytes);
            to.write_all(bytes)
        })?;
        to.write_all(hasher.finalize().as_bytes())
    }

    /// The digest of all that would be written: where it is what it was, there is nothing to write.
    pub fn digest(&self) -> Blake3 {
        let mut hasher = blake3::Hasher::new();
        let hashed = self.pieces(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        });
        debug_assert!(hashed.is_ok(), "hashing does not fail");
        hasher.finalize().into()
    }

    fn pieces(&self, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        put(&self.head())?;
        let mut bytes = Vec::with_capacity(MARKS_AT_ONCE * MARK_BYTES);
        for marks in self.marks.chunks(MARKS_AT_ONCE) {
            bytes.clear();
            for mark in marks {
                bytes.extend_from_slice(&mark.0.to_le_bytes());
            }
            put(&bytes)?;
        }
        Ok(())
    }

    fn head(&self) -> Vec<u8> {
        let Context {
            manifest,
            boot_id,
            mounts,
        } = &self.context;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(manifest.unwrap_or(Blake3::of(b"")).as_bytes());
        bytes.push(boot_id.len() as u8);
        bytes.extend_from_slice(boot_id.as_bytes());
        bytes.extend_from_slice(&(mounts.len() as u16).to_le_bytes());
        bytes.extend(mounts.iter().flat_map(|mount| mount.to_le_bytes()));
        bytes.extend_from_slice(&self.latest.to_le_bytes());
        bytes.extend_from_slice(&self.key.0.to_le_bytes());
        bytes.extend_from_slice(&self.key.1.to_le_bytes());
        bytes.extend_from_slice(&(self.portraits.len() as u32).to_le_bytes());
        self.portraits
            .iter()
            .for_each(|portrait| portrait.write(&mut bytes));
        bytes
    }

    /// Reads the marks of so many entries; none of bytes that [`Verified::write`] did not write for as many, and of those
    /// that were altered since.
    ///
    /// # Errors
    /// What reading gives.
    pub fn read(from: &mut dyn Read, entries: u64) -> io::Result<Option<Self>> {
        let mut from = Hashed {
            from,
            hasher: blake3::Hasher::new(),
        };
        if from.take()? != *MAGIC {
            return Ok(None);
        }
        let manifest = Some(Blake3::from_bytes(from.take()?));
        let [length] = from.take()?;
        let mut boot_id = vec![0; usize::from(length)];
        from.fill(&mut boot_id)?;
        let count = u16::from_le_bytes(from.take()?);
        let mounts = (0..count).map(|_| from.take().map(u64::from_le_bytes));
        let mounts = mounts.collect::<io::Result<_>>()?;
        let latest = i64::from_le_bytes(from.take()?);
        let key = Key(
            u64::from_le_bytes(from.take()?),
            u64::from_le_bytes(from.take()?),
        );
        let count = u32::from_le_bytes(from.take()?);
        let portraits = (0..count).map(|_| from.take().map(|bytes| Portrait::read(&bytes)));
        let portraits = portraits.collect::<io::Result<_>>()?;
        let mut marks = Vec::with_capacity(entries as usize);
        let mut bytes = vec![0; MARKS_AT_ONCE * MARK_BYTES];
        while marks.len() < entries as usize {
            let count = MARKS_AT_ONCE.min(entries as usize - marks.len());
            let some = &mut bytes[..count * MARK_BYTES];
            from.fill(some)?;
            let some = some.as_chunks().0.iter();
            marks.extend(some.map(|bytes| Mark(u64::from_le_bytes(*bytes))));
        }
        let is_whole = from.ends_with_digest()?;
        Ok(is_whole.then(|| Verified {
            context: Context {
                manifest,
                boot_id: String::from_utf8_lossy(&boot_id).into_owned(),
                mounts,
            },
            latest,
            key,
            marks,
            full_began: false,
            portraits,
        }))
    }
}

/// Bytes that are hashed as they are read.
struct Hashed<'r> {
    from: &'r mut dyn Read,
    hasher: blake3::Hasher,
}

impl Hashed<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether what comes now is the digest of all before, and nothing after it.
    fn ends_with_digest(self) -> io::Result<bool> {
        let mut rest = Vec::new();
        self.from.take(DIGEST_BYTES + 1).read_to_end(&mut rest)?;
        Ok(rest == self.hasher.finalize().as_bytes())
    }
}

impl Marks<'_> {
    /// Whether every entry was verified.
    pub(super) fn are_complete(&self) -> bool {
        !self.marks.contains(&Mark::default())
    }

    /// Whether the entry looks exactly as it did when it was verified.
    pub(super) fn trust(&self, ordinal: u64, stat: &Stat) -> bool {
        let mark = self.at(ordinal).map(|at| self.marks[at]);
        mark.is_some_and(|mark| mark != Mark::default() && mark == Mark::of(stat, self.key))
    }

    /// Notes that an entry was found to be as the manifest says, read from the moment `read_at` on, unless that is too
    /// close to its last change.
    pub(super) fn mark(&mut self, ordinal: u64, stat: &Stat, read_at: i64) {
        let mark = Mark::of(stat, self.key);
        let settled = is_settled(stat, read_at);
        self.set(ordinal, if settled { mark } else { Mark::default() });
    }

    /// Notes that an entry was not as the manifest says.
    pub(super) fn forget(&mut self, ordinal: u64) {
        self.set(ordinal, Mark::default());
    }

    fn set(&mut self, ordinal: u64, mark: Mark) {
        if let Some(at) = self.at(ordinal) {
            self.marks[at] = mark;
        }
    }

    fn at(&self, ordinal: u64) -> Option<usize> {
        let at = ordinal.checked_sub(self.first)? as usize;
        (at < self.marks.len()).then_some(at)
    }
}

/// Whether what was read from the moment `read_at` on was last changed long enough before that.
pub(super) fn is_settled(stat: &Stat, read_at: i64) -> bool {
    read_at.saturating_sub(changed(stat)) > SETTLED_NANOSECONDS
}

fn changed(stat: &Stat) -> i64 {
    let (seconds, nanoseconds) = stat.ctime;
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanoseconds))
}

impl Mark {
    fn of(stat: &Stat, Key(first, second): Key) -> Self {
        #[allow(
            deprecated,
            reason = "what took its place has no key that could be kept for the next process"
        )]
        let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
        hasher.write_u64((u64::from(stat.dev.0) << 32) | u64::from(stat.dev.1));
        hasher.write_u64(stat.ino);
        hasher.write_i64(changed(stat));
        Mark(hasher.finish().max(1))
    }
}

impl Key {
    /// One that nobody knows: the standard library draws it from the system's randomness.
    fn drawn() -> Self {
        let drawn = RandomState::new();
        Key(drawn.hash_one(0), drawn.hash_one(1))
    }
}
