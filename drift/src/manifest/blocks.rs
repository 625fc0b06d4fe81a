//! The body, block by block, each verified when it is touched.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Blake3;
use crate::manifest::layout::{BLOCK_BYTES, Body};
use crate::manifest::{ManifestError, Source};

/// The body of a manifest with a small cache of verified blocks: memory is constant.
pub(super) struct Blocks<S> {
    source: S,
    body: Body,
    table: Vec<Blake3>,
    cache: Mutex<Vec<(u64, Arc<[u8]>)>>,
}

/// A forward pass, a look-up and an attribute set at the same time: each keeps its block.
const CACHED_BLOCKS: usize = 6;

impl<S: Source> Blocks<S> {
    pub(super) fn new(source: S, body: Body, table: Vec<Blake3>) -> Self {
        Self {
            source,
            body,
            table,
            cache: Mutex::new(Vec::with_capacity(CACHED_BLOCKS)),
        }
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn count(&self) -> u64 {
        self.table.len() as u64
    }

    /// The bytes of a block, read and verified unless it is cached.
    pub(super) fn get(&self, index: u64) -> Result<Arc<[u8]>, ManifestError> {
        if let Some(block) = self.cached(index) {
            return Ok(block);
        }
        let expected = self
            .table
            .get(index as usize)
            .ok_or(ManifestError::Malformed("a block past the end"))?;
        let offset = index * BLOCK_BYTES as u64;
        let length = (self.body.length - offset).min(BLOCK_BYTES as u64);
        let mut bytes = vec![0; length as usize];
        self.source
            .read_at(self.body.start + offset, &mut bytes)
            .map_err(ManifestError::Read)?;
        if Blake3::of(&bytes) != *expected {
            return Err(ManifestError::BlockAltered(index));
        }
        let block: Arc<[u8]> = bytes.into();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() == CACHED_BLOCKS {
            cache.remove(0);
        }
        cache.push((index, Arc::clone(&block)));
        Ok(block)
    }

    /// Copies what lies at `offset` of the body, across blocks.
    pub(super) fn copy(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ManifestError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset
                .checked_add(done as u64)
                .ok_or(ManifestError::Malformed("offset"))?;
            let block = self.get(at / BLOCK_BYTES as u64)?;
            let start = (at % BLOCK_BYTES as u64) as usize;
            let available = block.get(start..).filter(|bytes| !bytes.is_empty());
            let available = available.ok_or(ManifestError::Malformed("it points past its end"))?;
            let length = available.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&available[..length]);
            done += length;
        }
        Ok(())
    }

    /// Lets go of all that is cached.
    pub(super) fn forget(&self) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clear();
    }

    fn cached(&self, index: u64) -> Option<Arc<[u8]>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(cached, _)| *cached == index)?;
        let found = cache.remove(at);
        let block = Arc::clone(&found.1);
        cache.push(found);
        Some(block)
    }
}

impl<S> fmt::Debug for Blocks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks")
            .field("body", &self.body)
            .field("blocks", &self.table.len())
            .finish_non_exhaustive()
    }
}
