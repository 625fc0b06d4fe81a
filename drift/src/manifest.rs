//! The manifest: everything in an image's root file system, with the rules on what may change, in canonical bytes.
//!
//! ```text
//! preamble   40 bytes: magic, version, block size, length of header, length of body       ┐
//! header     counts, sections, index, other file systems, what is not held, rules         ├ the identity
//! body       entries | attribute sets | SHA-256 | packages    in blocks of 64 KiB          │ (digests of these
//! table      BLAKE3 of each block of the body                                             ┘  three without the body)
//! side       modification times: outside the identity, never compared
//! ```
//!
//! Whatever entries have alike is written once in a block and numbered from there on: what is held of an inode, the rest of
//! a path after what it shares with the path before, the content of files. So a block is small, and is read alone. The
//! index has the first path of each, so a look-up reads one of them.
//!
//! A signature covers the identity, and through the table every block. A host keeps preamble, header and table in
//! memory and reads a block when it touches it, verifying it then: memory is constant, and nothing that was changed
//! after the signature was checked is ever believed. SHA-256, packages and times lie where a host never reads.
//!
//! Identity depends on tree and rules alone: the same tree gives the same bytes, whoever walks it in whatever order.

mod blocks;
mod builder;
mod draft;
mod encoder;
mod entries;
mod index;
mod layout;
mod likeness;
mod origin;
mod part;
mod pieces;
mod record;
mod sets;
mod times;
mod unpacker;
mod whole;
mod writer;

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::key::{KeyId, TrustedKey};
use crate::rules::Rules;
use crate::signature::{Envelope, SignatureError};
use crate::statement::{Predicate, Provenance};
use crate::{Blake3, Sha256, TreePath};

use blocks::Blocks;
pub use builder::{BakedManifest, BuildError, Builder};
pub use draft::{Draft, Drafted, Packed};
pub use entries::{Entries, Lookups, Numbered};
pub use layout::{BLOCK_BYTES, Filesystem, Header, VERSION};
pub use origin::{Origin, Package, Packages};
pub use part::Part;
pub use pieces::{Aside, InMemory};
pub use writer::{Sheets, Writer};

/// Where a manifest's bytes come from: a file on a host, a buffer in a test.
pub trait Source {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the source is shorter, and whatever reading it gives.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Whatever asking for it gives.
    fn length(&self) -> std::io::Result<u64>;
}

impl<T: AsRef<[u8]>> Source for T {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let bytes = self.as_ref();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = start
            .checked_add(buffer.len())
            .filter(|&end| end <= bytes.len());
        let end = end.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(&bytes[start..end]);
        Ok(())
    }

    fn length(&self) -> std::io::Result<u64> {
        Ok(self.as_ref().len() as u64)
    }
}

/// What a signature is about: the digests of preamble, header and table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What the rest of the world speaks.
    pub sha256: Sha256,
    /// What hosts check.
    pub blake3: Blake3,
}

/// Why bytes are not a manifest, or not the one that was signed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The source could not be read.
    #[error("read the manifest")]
    Read(#[source] std::io::Error),
    /// It does not begin like a manifest.
    #[error("this is not a Driftmark manifest")]
    Magic,
    /// A version that this program does not know.
    #[error(
        "the manifest has format version {0}, and this program reads version {VERSION}: bake the image again with the \
         agent that it has now, or use the programs that it was baked for"
    )]
    Version(u32),
    /// The bytes break the format.
    #[error("manifest is malformed: {0}")]
    Malformed(&'static str),
    /// A rule that cannot be understood.
    #[error("read the manifest's rules")]
    Rules(#[source] crate::rules::BadRules),
    /// A block is not the one that was signed.
    #[error("block {0} of the manifest was altered after it was made")]
    BlockAltered(u64),
    /// The signature does not hold.
    #[error("verify the manifest's signature")]
    Signature(#[source] SignatureError),
    /// The signature is good, and what was signed is no manifest's statement.
    #[error("the signature is over a statement of another kind, not over an image's manifest")]
    OtherStatement,
    /// The signature is good and about something else.
    #[error("the signature is about another manifest ({signed}, this is {found})")]
    OtherManifest {
        /// What was signed.
        signed: Sha256,
        /// What this is.
        found: Sha256,
    },
}

/// The content of a manifest, wherever trust in it comes from.
#[derive(Debug)]
pub struct Contents<S> {
    blocks: Blocks<S>,
    header: Header,
    side: Range<u64>,
    identity: Identity,
}

/// A manifest whose signature was not checked: for `inspect`, `diff` and `sign`, never for a verdict.
#[derive(Debug)]
pub struct UnverifiedManifest<S>(Contents<S>);

/// A manifest whose signature is by a trusted key. Only [`UnverifiedManifest::verify`] makes one.
#[derive(Debug)]
pub struct Manifest<S> {
    contents: Contents<S>,
    provenance: Provenance,
    signers: Vec<KeyId>,
}

impl<S: Source> UnverifiedManifest<S> {
    /// Reads preamble, header and table.
    ///
    /// # Errors
    /// Bytes that are not a manifest of this version, whole and within its limits.
    pub fn open(source: S) -> Result<Self, ManifestError> {
        let opened = layout::open(&source)?;
        Ok(Self(Contents {
            blocks: Blocks::new(source, opened.body, opened.table),
            header: opened.header,
            side: opened.side,
            identity: opened.identity,
        }))
    }

    /// Checks that a trusted key signed exactly this manifest.
    ///
    /// # Errors
    /// No good signature by a trusted key, or one that is about another manifest.
    pub fn verify(
        self,
        envelope: &Envelope,
        trusted: &[TrustedKey],
    ) -> Result<Manifest<S>, ManifestError> {
        let verified = envelope.verify(trusted).map_err(ManifestError::Signature)?;
        let subject = verified.statement.subject.digest;
        let Predicate::Manifest(provenance) = verified.statement.predicate else {
            return Err(ManifestError::OtherStatement);
        };
        let blake3_agrees = subject
            .blake3
            .is_none_or(|blake3| blake3 == self.0.identity.blake3);
        if subject.sha256 != self.0.identity.sha256 || !blake3_agrees {
            return Err(ManifestError::OtherManifest {
                signed: subject.sha256,
                found: self.0.identity.sha256,
            });
        }
        Ok(Manifest {
            contents: self.0,
            provenance,
            signers: verified.keys,
        })
    }
}

impl<S> Manifest<S> {
    /// What was signed beside the identity: name, version, build, provenance.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The trusted keys whose signatures hold.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

impl<S: Source> Contents<S> {
    /// The digests that a signature is about.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Counts, file systems, rules.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What may change.
    pub fn rules(&self) -> &Rules {
        &self.header.rules
    }

    /// All entries in path order.
    pub fn entries(&self) -> Entries<'_, S> {
        Entries::all(self)
    }

    /// How many blocks of 64 KiB hold entries.
    pub fn block_count(&self) -> u64 {
        self.header.index.blocks()
    }

    /// The entries cut into parts of `blocks_each` blocks of 64 KiB (at least one), in path order, to be gone through side
    /// by side. There is always a part, if only an empty one.
    pub fn parts(&self, blocks_each: u64) -> Vec<Part> {
        part::parts(&self.header.index, blocks_each)
    }

    /// The entries from a path on, in path order: nothing is made of those before it.
    pub fn entries_from(&self, first: &TreePath) -> Entries<'_, S> {
        Entries::from(self, first)
    }

    /// The entries of one part, in path order.
    pub fn entries_of(&self, part: &Part) -> Entries<'_, S> {
        Entries::part(self, part)
    }

    /// The entry at a path: one block of entries is read, and its attributes where it has any.
    ///
    /// # Errors
    /// A block that cannot be read, was altered, or breaks the format.
    pub fn lookup(&self, path: &TreePath) -> Result<Option<crate::Entry>, ManifestError> {
        Ok(entries::find(self, path)?.map(|numbered| numbered.entry))
    }

    /// Finds paths one after another, best in path order: what is read for one is not read again for the next.
    pub fn lookups(&self) -> Lookups<'_, S> {
        Lookups::new(self)
    }

    /// The entry at a place among all entries, from 0: one block of entries is read.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn nth(&self, ordinal: u64) -> Result<Option<crate::Entry>, ManifestError> {
        entries::nth(self, ordinal)
    }

    /// SHA-256 and package of a path: sections that a host never reads in the course of a scan.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn origin(&self, path: &TreePath) -> Result<Option<Origin>, ManifestError> {
        match entries::find(self, path)? {
            Some(numbered) => self.origin_of(&numbered, &self.packages()?).map(Some),
            None => Ok(None),
        }
    }

    /// The same for many paths, with the packages that [`Contents::packages`] gave.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn origin_among(
        &self,
        path: &TreePath,
        packages: &Packages,
    ) -> Result<Option<Origin>, ManifestError> {
        match entries::find(self, path)? {
            Some(numbered) => self.origin_of(&numbered, packages).map(Some),
            None => Ok(None),
        }
    }

    /// The same for an entry of a pass, with the packages that [`Contents::packages`] gave.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn origin_of(
        &self,
        numbered: &Numbered,
        packages: &Packages,
    ) -> Result<Origin, ManifestError> {
        Ok(Origin {
            sha256: origin::sha256(self, numbered)?,
            package: packages.of(numbered).cloned(),
        })
    }

    /// All packages of the image, with the entries that are theirs.
    ///
    /// # Errors
    /// The same as [`Contents::lookup`].
    pub fn packages(&self) -> Result<Packages, ManifestError> {
        Packages::read(self)
    }

    /// Reads and verifies every block, decodes every record, and checks that the tree could not have been written in
    /// any other way: for pipelines that want to know before they ship, and for whoever keeps manifests.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_all(&self) -> Result<(), ManifestError> {
        whole::check(self)
    }

    /// Lets go of the blocks that are kept to be read again, between one pass and the next: they are verified anew then.
    pub fn forget_blocks(&self) {
        self.blocks.forget();
    }

    fn block(&self, index: u64) -> Result<Arc<[u8]>, ManifestError> {
        self.blocks.get(index)
    }
}

impl<S> Deref for Manifest<S> {
    type Target = Contents<S>;

    fn deref(&self) -> &Contents<S> {
        &self.contents
    }
}

impl<S> Deref for UnverifiedManifest<S> {
    type Target = Contents<S>;

    fn deref(&self) -> &Contents<S> {
        &self.0
    }
}
