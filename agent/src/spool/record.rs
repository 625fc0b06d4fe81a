//! Receives the bytes of a segment; hands on the records in it that are whole.
//!
//! A record: magic (8), BLAKE3 of all that follows (32), body length (4), moments (4), ordinal (8), run (16),
//! sequence (8), body. Numbers are little-endian. A record that is torn or damaged is passed over, and the search for
//! the next magic goes on behind it.

use drift::report::{Report, RunId};

/// What a report is about, which decides what goes first where there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// States: a Whole brings them back.
    States = 0,
    /// Moments: nothing brings them back.
    Moments = 1,
}

/// A report's run and number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The run.
    pub run: RunId,
    /// The number.
    pub sequence: u64,
}

/// What a record says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ordinal: u64,
    pub(super) name: Name,
    pub(super) moments: u32,
    /// Of the whole record.
    pub(super) length: u32,
}

const MAGIC: &[u8; 8] = b"\xd7DMspl1\n";
const DIGEST_AT: usize = 8;
const SIGNED_AT: usize = 40;
pub(super) const HEADER_BYTES: usize = 80;

pub(super) fn encode(ordinal: u64, name: Name, moments: u32, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&[0; 32]);
    record.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&moments.to_le_bytes());
    record.extend_from_slice(&ordinal.to_le_bytes());
    record.extend_from_slice(&name.run.0);
    record.extend_from_slice(&name.sequence.to_le_bytes());
    record.extend_from_slice(body);
    let digest = blake3::hash(&record[SIGNED_AT..]);
    record[DIGEST_AT..SIGNED_AT].copy_from_slice(digest.as_bytes());
    record
}

/// The record at the start of `bytes`, and its body; none if that is not one.
pub(super) fn decode(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let header = bytes.get(..HEADER_BYTES)?;
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let body_length = u32_at(40) as usize;
    if &header[..DIGEST_AT] != MAGIC || body_length > Report::MAX_BYTES {
        return None;
    }
    let record = bytes.get(..HEADER_BYTES + body_length)?;
    if blake3::hash(&record[SIGNED_AT..]).as_bytes() != &record[DIGEST_AT..SIGNED_AT] {
        return None;
    }
    let run = RunId(header[56..72].try_into().expect("16 bytes"));
    let name = Name {
        run,
        sequence: u64_at(72),
    };
    let header = Header {
        ordinal: u64_at(48),
        name,
        moments: u32_at(44),
        length: record.len() as u32,
    };
    Some((header, &record[HEADER_BYTES..]))
}

/// Every whole record of `bytes` with its offset; `damaged` counts the places where there was something else.
pub(super) fn decode_all(bytes: &[u8], damaged: &mut usize) -> Vec<(u64, Header)> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some((header, _)) = decode(&bytes[at..]) {
            records.push((at as u64, header));
            at += header.length as usize;
            continue;
        }
        *damaged += 1;
        let next = bytes[at + 1..]
            .windows(MAGIC.len())
            .position(|window| window == MAGIC);
        at = next.map_or(bytes.len(), |distance| at + 1 + distance);
    }
    records
}
