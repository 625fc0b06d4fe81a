//! Receives reports that must not be lost; hands them on in order until the collector has them.
//!
//! A log of segments in one directory. A record is on disk before it is sent, and its segment goes when all of its
//! records are acknowledged, so a crash at worst sends again what the collector already has, which is idempotent.
//! Reports on states and reports on moments have segments of their own: where there is no room, states go first (a
//! Whole brings them back), moments last (nothing does) and counted.

mod record;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use drift::report::{Report, RunId};

use crate::log::Chain;
use crate::state_files::{self, StateError};
pub use record::{Kind, Name};
use segment::{Segment, SegmentWriter};

/// Reports that wait for the collector.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    max_bytes: u64,
    next_ordinal: u64,
    segments: BTreeMap<u64, Segment>,
    open: [Option<SegmentWriter>; 2],
    waiting: BTreeMap<u64, Waiting>,
    memory: VecDeque<u64>,
    memory_bytes: usize,
    trouble: Option<String>,
}

/// A report that waits.
#[derive(Debug)]
struct Waiting {
    name: Name,
    moments: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In a segment, by the segment's number.
    Disk {
        segment: u64,
        offset: u64,
        length: u32,
    },
    /// In memory, because no disk would take it.
    Memory(Vec<u8>),
}

/// What [`Spool::open`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Reports that wait.
    pub reports: usize,
    /// Places where bytes were no record: what is lost there comes back with the next Whole.
    pub damaged: usize,
}

/// What had to go to make room.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Whether reports on states are lost.
    pub states: bool,
    /// How many moments are lost.
    pub moments: u64,
}

/// The report to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its run and number.
    pub name: Name,
    /// Its bytes, the same every time.
    pub body: Vec<u8>,
}

/// Four of the longest reports: a segment goes soon after what is in it was acknowledged.
const SEGMENT_BYTES: u64 = 4 * Report::MAX_BYTES as u64;
/// What is kept in memory where no disk takes it.
const MAX_MEMORY_BYTES: usize = 4 * Report::MAX_BYTES;

impl Spool {
    /// The spool in `directory`, with what an earlier run left there. Where the disk will not have it, reports wait in
    /// memory, and [`Spool::trouble`] says why.
    pub fn open(directory: &Path, max_bytes: u64) -> (Self, Recovered) {
        let mut spool = Spool {
            directory: directory.to_owned(),
            max_bytes,
            next_ordinal: 1,
            segments: BTreeMap::new(),
            open: [None, None],
            waiting: BTreeMap::new(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            trouble: None,
        };
        let mut recovered = Recovered::default();
        let found = state_files::make_directory(directory).and_then(|()| segment::list(directory));
        let found = found.unwrap_or_else(|error| {
            spool.is_wrong(&error);
            Vec::new()
        });
        for segment in found {
            if let Err(error) = spool.recover(segment, &mut recovered) {
                recovered.damaged += 1;
                spool.is_wrong(&error);
            }
        }
        recovered.reports = spool.waiting.len();
        (spool, recovered)
    }

    /// Why its disk did not take a report, if it did not take the last one.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Tries the disk again if it was in trouble; what waits in memory goes there while it takes it. Says whether all
    /// is well.
    pub fn try_disk(&mut self) -> bool {
        if self.trouble.is_none() {
            return true;
        }
        if let Err(error) = state_files::make_directory(&self.directory) {
            self.is_wrong(&error);
            return false;
        }
        while let Some(&ordinal) = self.memory.front() {
            let Some(Waiting {
                name,
                moments,
                place: Place::Memory(body),
            }) = self.waiting.get(&ordinal)
            else {
                unreachable!("what is counted as in memory is there");
            };
            let record = record::encode(ordinal, *name, *moments, body);
            let length = body.len();
            if self.bytes() + record.len() as u64 > self.max_bytes {
                break;
            }
            match self.write(self.kind_of(ordinal), &record) {
                Ok(place) => {
                    self.memory.pop_front();
                    self.memory_bytes -= length;
                    if let Some(waiting) = self.waiting.get_mut(&ordinal) {
                        waiting.place = place;
                    }
                }
                Err(error) => {
                    self.is_wrong(&error);
                    return false;
                }
            }
        }
        match segment::try_disk(&self.directory) {
            Ok(()) => self.trouble = None,
            Err(error) => self.is_wrong(&error),
        }
        self.trouble.is_none()
    }

    fn is_wrong(&mut self, error: &StateError) {
        self.trouble = Some(Chain(error).to_string());
    }

    /// How many reports wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes of disk it uses.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Keeps a report. Afterwards it is on disk; where no disk takes it, in memory; where that is full too, dropped.
    pub fn append(&mut self, kind: Kind, name: Name, moments: u32, body: &[u8]) -> Dropped {
        let mut dropped = Dropped::default();
        let record = record::encode(self.next_ordinal, name, moments, body);
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        while self.bytes() + record.len() as u64 > self.max_bytes {
            if !self.drop_one(kind, &mut dropped) {
                break;
            }
        }
        let place = loop {
            match self.write(kind, &record) {
                Ok(place) => {
                    self.trouble = None;
                    break Some(place);
                }
                Err(error) => {
                    self.is_wrong(&error);
                    // Only a full disk has more room afterwards: one that takes nothing keeps what it has.
                    if !error.is_full() || !self.drop_one(kind, &mut dropped) {
                        break None;
                    }
                }
            }
        };
        let place = match place {
            Some(place) => place,
            None if self.memory_bytes + body.len() <= MAX_MEMORY_BYTES => {
                self.memory.push_back(ordinal);
                self.memory_bytes += body.len();
                Place::Memory(body.to_vec())
            }
            None => {
                dropped.count(kind, moments);
                return dropped;
            }
        };
        self.waiting.insert(
            ordinal,
            Waiting {
                name,
                moments,
                place,
            },
        );
        dropped
    }

    /// The oldest report that waits. One that its disk no longer gives back is dropped, and counted in `dropped`.
    pub fn head(&mut self, dropped: &mut Dropped) -> Option<Head> {
        loop {
            let (&ordinal, waiting) = self.waiting.first_key_value()?;
            let body = match &waiting.place {
                Place::Memory(body) => Some(body.clone()),
                Place::Disk {
                    segment,
                    offset,
                    length,
                } => {
                    let segment = self
                        .segments
                        .get(segment)
                        .expect("a segment stays while a record of it waits");
                    segment.read(ordinal, *offset, *length)
                }
            };
            if let Some(body) = body {
                return Some(Head {
                    name: waiting.name,
                    body,
                });
            }
            let kind = self.kind_of(ordinal);
            dropped.count(kind, waiting.moments);
            self.remove(&[ordinal]);
        }
    }

    /// The collector has everything of this run up to this number.
    pub fn acknowledge(&mut self, run: RunId, sequence: u64) {
        let has = |waiting: &Waiting| waiting.name.run == run && waiting.name.sequence <= sequence;
        self.remove_all(has);
    }

    /// The collector will never have this one.
    pub fn discard(&mut self, name: Name) {
        self.remove_all(|waiting| waiting.name == name);
    }

    fn remove_all(&mut self, which: impl Fn(&Waiting) -> bool) {
        let gone: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| which(waiting))
            .map(|(ordinal, _)| *ordinal)
            .collect();
        self.remove(&gone);
    }

    fn remove(&mut self, ordinals: &[u64]) {
        for ordinal in ordinals {
            match self.waiting.remove(ordinal).map(|waiting| waiting.place) {
                Some(Place::Disk { segment, .. }) => self.leave(segment),
                Some(Place::Memory(body)) => {
                    self.memory.retain(|kept| kept != ordinal);
                    self.memory_bytes -= body.len();
                }
                None => {}
            }
        }
    }

    /// One record of this segment is done with; the last one takes the segment along.
    fn leave(&mut self, number: u64) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        segment.records -= 1;
        if segment.records == 0 {
            segment.delete();
            self.segments.remove(&number);
            for writer in &mut self.open {
                writer.take_if(|writer| writer.number == number);
            }
        }
    }

    fn kind_of(&self, ordinal: u64) -> Kind {
        match self.waiting.get(&ordinal).map(|waiting| waiting.moments) {
            Some(0) | None => Kind::States,
            Some(_) => Kind::Moments,
        }
    }

    /// Makes room: the oldest segment of states goes, else, for a report on moments, the oldest of moments. Reports on
    /// states never push out moments.
    fn drop_one(&mut self, for_kind: Kind, dropped: &mut Dropped) -> bool {
        let oldest = |kind| {
            self.segments
                .iter()
                .find(|(_, segment)| segment.kind == kind)
                .map(|(number, _)| *number)
        };
        let victim = oldest(Kind::States)
            .or_else(|| oldest(Kind::Moments).filter(|_| for_kind == Kind::Moments));
        let Some(number) = victim else { return false };
        let in_it = |waiting: &Waiting| matches!(waiting.place, Place::Disk { segment, .. } if segment == number);
        let kind = self.segments[&number].kind;
        for waiting in self.waiting.values().filter(|waiting| in_it(waiting)) {
            dropped.count(kind, waiting.moments);
        }
        self.remove_all(in_it);
        true
    }

    fn write(&mut self, kind: Kind, record: &[u8]) -> Result<Place, StateError> {
        let slot = kind as usize;
        self.open[slot].take_if(|writer| writer.length + record.len() as u64 > SEGMENT_BYTES);
        if self.open[slot].is_none() {
            let number = self
                .segments
                .last_key_value()
                .map_or(1, |(number, _)| number + 1)
                .max(self.next_ordinal);
            self.open[slot] = Some(SegmentWriter::create(&self.directory, kind, number)?);
        }
        let writer = self.open[slot].as_mut().expect("just opened");
        let offset = writer.length;
        match writer.append(record) {
            Ok(()) => {
                let (number, path, bytes) = (writer.number, writer.path.clone(), writer.length);
                let segment = self
                    .segments
                    .entry(number)
                    .or_insert_with(|| Segment::new(kind, path));
                segment.bytes = bytes;
                segment.records += 1;
                Ok(Place::Disk {
                    segment: number,
                    offset,
                    length: record.len() as u32,
                })
            }
            Err(error) => {
                let writer = self.open[slot].take().expect("it is open");
                if offset == 0 {
                    writer.delete();
                }
                Err(error)
            }
        }
    }

    fn recover(
        &mut self,
        found: segment::Found,
        recovered: &mut Recovered,
    ) -> Result<(), StateError> {
        let bytes = state_files::read(&found.path, segment::MAX_BYTES)?.unwrap_or_default();
        let mut segment = Segment::new(found.kind, found.path);
        segment.bytes = bytes.len() as u64;
        let mut damaged = 0;
        for (offset, record) in record::decode_all(&bytes, &mut damaged) {
            self.next_ordinal = self.next_ordinal.max(record.ordinal + 1);
            segment.records += 1;
            let place = Place::Disk {
                segment: found.number,
                offset,
                length: record.length,
            };
            self.waiting.insert(
                record.ordinal,
                Waiting {
                    name: record.name,
                    moments: record.moments,
                    place,
                },
            );
        }
        recovered.damaged += damaged;
        self.next_ordinal = self.next_ordinal.max(found.number + 1);
        if segment.records == 0 {
            segment.delete();
        } else {
            self.segments.insert(found.number, segment);
        }
        Ok(())
    }
}

impl Dropped {
    fn count(&mut self, kind: Kind, moments: u32) {
        match kind {
            Kind::States => self.states = true,
            Kind::Moments => self.moments += u64::from(moments),
        }
    }

    /// Whether nothing had to go.
    pub fn is_nothing(&self) -> bool {
        *self == Dropped::default()
    }
}

#[cfg(test)]
mod tests;
