//! The bytes of an open file in, its digests out.

use std::fs::File;
use std::io;

use drift::rules::Shape;
use drift::{Blake3, Sha256};
use driftmark_kernel::{Stat, direct};
use sha2::Digest as _;

use super::pass::whole;
use super::{Digests, From, Reader, Wants};

/// What was hashed of a file.
pub(in crate::scan) struct Content {
    pub(super) length: u64,
    pub(super) blake3: Blake3,
    pub(super) sha256: Option<Sha256>,
    pub(super) prefix: Option<Blake3>,
    pub(super) held: Option<Blake3>,
}

/// The beginning of a file, hashed beside the whole.
struct Prefix {
    hasher: blake3::Hasher,
    left: u64,
}

/// Reading a long file says so each time that it got this much further.
const AT_WORK_EVERY: u64 = 64 * 1024 * 1024;

/// The longest file whose shape is looked at: an `ld.so.cache` of a large image has a tenth of it.
const MAX_SHAPED_BYTES: u64 = 4 * 1024 * 1024;

impl Reader<'_> {
    /// Hashes a file, from the disk if that is where it is to be read; none if the scan is to end.
    pub(super) fn content_from_there(
        &mut self,
        file: &File,
        before: &Stat,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Content>> {
        self.turn_to_disk(file)?;
        let is_around = self.is_around(file, before)?;
        match self.content(file, before, digests, wants) {
            // It knows of such reads, and wants more of them than is told.
            Err(error) if is_around && error.kind() == io::ErrorKind::InvalidInput => {
                direct::turn_off(file)?;
                self.cached += u64::from(self.from == From::Disk);
                self.content(file, before, digests, wants)
            }
            Ok(Some(_)) if is_around && self.was_passed(file, before) => {
                direct::turn_off(file)?;
                self.content(file, before, digests, wants)
            }
            outcome => outcome,
        }
    }

    /// Hashes from the start to the end; none if the scan is to end.
    pub(super) fn content(
        &mut self,
        file: &File,
        stat: &Stat,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Content>> {
        let mut hasher = blake3::Hasher::new();
        let mut sha256 = (digests == Digests::Both).then(sha2::Sha256::new);
        let mut prefix = wants.prefix.map(Prefix::of);
        let mut held = wants.held.map(Prefix::of);
        let (at_work, mut told, mut done) = (self.at_work, 0, 0);
        let length = self.pass(file, stat, whole(stat), &mut |bytes| {
            hasher.update(bytes);
            if let Some(sha256) = &mut sha256 {
                sha256.update(bytes);
            }
            for prefix in prefix.iter_mut().chain(&mut held) {
                prefix.update(bytes);
            }
            done += bytes.len() as u64;
            if done - told >= AT_WORK_EVERY {
                at_work(done - told);
                told = done;
            }
        })?;
        let Some(length) = length else {
            return Ok(None);
        };
        Ok(Some(Content {
            sha256: sha256.map(|hasher| Sha256::from_bytes(hasher.finalize().into())),
            prefix: prefix.and_then(Prefix::finish),
            held: held.and_then(Prefix::finish),
            ..Content::of(length, hasher.finalize().into())
        }))
    }

    pub(super) fn shape(
        &mut self,
        file: &File,
        stat: &Stat,
        shape: Shape,
    ) -> io::Result<Result<(), String>> {
        if stat.size > MAX_SHAPED_BYTES {
            return Ok(Err(format!("it is longer than {MAX_SHAPED_BYTES} bytes")));
        }
        let mut content = Vec::with_capacity(stat.size as usize);
        let count = self.pass(file, stat, 0..stat.size, &mut |bytes| {
            content.extend_from_slice(bytes);
        })?;
        if count != Some(stat.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let checked = match shape {
            Shape::MachineId => drift::shape::machine_id(&content),
            Shape::HostKey => drift::shape::host_key(&content, stat.mode),
            Shape::LdSoCache => drift::shape::ld_so_cache(&content, self.names_of_image),
        };
        Ok(checked.map_err(|error| error.to_string()))
    }
}

impl Content {
    /// So many bytes with this digest.
    pub(in crate::scan) fn of(length: u64, blake3: Blake3) -> Self {
        Content {
            length,
            blake3,
            sha256: None,
            prefix: None,
            held: None,
        }
    }
}

impl Prefix {
    fn of(length: u64) -> Self {
        Prefix {
            hasher: blake3::Hasher::new(),
            left: length,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        let take = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.hasher.update(&bytes[..take]);
        self.left -= take as u64;
    }

    /// None if the file was shorter.
    fn finish(self) -> Option<Blake3> {
        (self.left == 0).then(|| self.hasher.finalize().into())
    }
}
