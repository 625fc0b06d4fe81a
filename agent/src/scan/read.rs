//! Opens a regular file, and reads and hashes it as far as it holds still.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use drift::coverage::{Gap, GapReason};
use drift::entry::{FileFlags, Node, Xattrs};
use drift::observation::Found;
use drift::report::HeldPrefix;
use drift::rules::Shape;
use drift::{Blake3, Sha256, TreePath};
use driftmark_kernel::{Stat, flags, xattrs};
use sha2::Digest as _;

use super::filesystems::Holding;
use super::walk::{Place, entry, gap, group, is_gone, unreadable};

/// Which digests to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digests {
    /// What hosts check.
    Blake3,
    /// And what the rest of the world speaks: at bake.
    Both,
}

/// What is wanted of a file beside its digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// The digest of its first so many bytes.
    pub(crate) prefix: Option<u64>,
    /// The digest of its beginning up to the length that was held.
    pub(crate) held: Option<u64>,
    /// Whether its content has this shape.
    pub(crate) shape: Option<Shape>,
}

/// What reading a file gave.
#[allow(
    clippy::large_enum_variant,
    reason = "taken apart at once; nearly all are found"
)]
pub(crate) enum Read {
    /// All that is held of it.
    Found {
        found: Found,
        sha256: Option<Sha256>,
        stat: Stat,
    },
    /// It went before it could be opened.
    Gone,
    /// It could not be verified.
    Gap(Gap),
    /// The scan is to end.
    Interrupted,
}

/// A thread's buffer, used for file after file.
pub(crate) struct Reader<'a> {
    buffer: Vec<u8>,
    interrupt: &'a AtomicBool,
    names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
    at_work: &'a (dyn Fn(u64) + Sync),
}

/// Large enough that a system call costs little, small enough for the cache of a core.
const BUFFER_BYTES: usize = 256 * 1024;
/// Reading a long file says so each time that it got this much further.
const AT_WORK_EVERY: u64 = 64 * 1024 * 1024;
/// A file that changes under our hands is read again this often before it is a gap.
const ATTEMPTS: usize = 3;
/// The longest file whose shape is looked at: an `ld.so.cache` of a large image has a tenth of it.
const MAX_SHAPED_BYTES: u64 = 4 * 1024 * 1024;

impl<'a> Reader<'a> {
    /// `names_of_image` says whether the image has a file at a path; `at_work` is told now and then how many more bytes
    /// of a long file were read.
    pub(crate) fn new(
        interrupt: &'a AtomicBool,
        names_of_image: &'a (dyn Fn(&TreePath) -> bool + Sync),
        at_work: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        Reader {
            buffer: vec![0; BUFFER_BYTES],
            interrupt,
            names_of_image,
            at_work,
        }
    }

    /// Reads one file. It is read again if it changed meanwhile: a digest is of one state of a file or of none.
    pub(crate) fn read(
        &mut self,
        path: &TreePath,
        place: &Place,
        digests: Digests,
        wants: &Wants,
    ) -> Read {
        for _ in 0..ATTEMPTS {
            match self.attempt(path, place, digests, wants) {
                Ok(Some(read)) => return read,
                Ok(None) => {}
                Err(error) if is_gone(&error) => return Read::Gone,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Read::Gap(unreadable(path, &error)),
            }
        }
        Read::Gap(gap(path, GapReason::Changing, ""))
    }

    /// None if the file changed while it was read.
    fn attempt(
        &mut self,
        path: &TreePath,
        place: &Place,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Read>> {
        let file = place.dir.open_file(&*place.name)?;
        let before = Stat::of(&file)?;
        let Some(content) = self.content(&file, digests, wants)? else {
            return Ok(Some(Read::Interrupted));
        };
        let (held_xattrs, held_flags) = match place.holding {
            Holding::All => (
                Xattrs::held(xattrs::of(&file)?),
                FileFlags::from_raw(flags::of(&file)?.unwrap_or(0)),
            ),
            Holding::ContentOnly => (Xattrs::NONE, FileFlags::NONE),
        };
        let after = Stat::of(&file)?;
        if (before.size, before.mtime, before.ctime) != (after.size, after.mtime, after.ctime)
            || content.length != after.size
        {
            return Ok(None);
        }
        let node = Node::File {
            size: content.length,
            content: content.blake3,
        };
        let entry = entry(
            path.clone(),
            &after,
            place.holding,
            node,
            held_xattrs,
            held_flags,
        );
        let shape = match wants.shape {
            Some(shape) => Some(self.shape(&file, &after, shape)?),
            None => None,
        };
        let held_prefix = wants.held.map(|length| HeldPrefix {
            length,
            digest: content.held,
        });
        let found = Found {
            entry,
            group: group(&after),
            prefix: content.prefix,
            held_prefix,
            shape,
        };
        Ok(Some(Read::Found {
            found,
            sha256: content.sha256,
            stat: after,
        }))
    }

    /// Hashes from the start to the end; none if the scan is to end.
    fn content(
        &mut self,
        file: &File,
        digests: Digests,
        wants: &Wants,
    ) -> io::Result<Option<Content>> {
        let mut hasher = blake3::Hasher::new();
        let mut sha256 = (digests == Digests::Both).then(sha2::Sha256::new);
        let mut prefix = wants.prefix.map(Prefix::of);
        let mut held = wants.held.map(Prefix::of);
        let mut length = 0;
        loop {
            if self.interrupt.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let count = match file.read_at(&mut self.buffer, length) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            if count == 0 {
                break;
            }
            let bytes = &self.buffer[..count];
            hasher.update(bytes);
            if let Some(sha256) = &mut sha256 {
                sha256.update(bytes);
            }
            for prefix in prefix.iter_mut().chain(&mut held) {
                prefix.update(bytes);
            }
            let before = length;
            length += count as u64;
            if length / AT_WORK_EVERY > before / AT_WORK_EVERY {
                (self.at_work)(AT_WORK_EVERY);
            }
        }
        Ok(Some(Content {
            length,
            blake3: hasher.finalize().into(),
            sha256: sha256.map(|hasher| Sha256::from_bytes(hasher.finalize().into())),
            prefix: prefix.and_then(Prefix::finish),
            held: held.and_then(Prefix::finish),
        }))
    }

    fn shape(&self, file: &File, stat: &Stat, shape: Shape) -> io::Result<Result<(), String>> {
        if stat.size > MAX_SHAPED_BYTES {
            return Ok(Err(format!("it is longer than {MAX_SHAPED_BYTES} bytes")));
        }
        let mut content = vec![0; stat.size as usize];
        file.read_exact_at(&mut content, 0)?;
        let checked = match shape {
            Shape::MachineId => drift::shape::machine_id(&content),
            Shape::HostKey => drift::shape::host_key(&content, stat.mode),
            Shape::LdSoCache => drift::shape::ld_so_cache(&content, self.names_of_image),
        };
        Ok(checked.map_err(|error| error.to_string()))
    }
}

struct Content {
    length: u64,
    blake3: Blake3,
    sha256: Option<Sha256>,
    prefix: Option<Blake3>,
    held: Option<Blake3>,
}

/// The beginning of a file, hashed beside the whole.
struct Prefix {
    hasher: blake3::Hasher,
    left: u64,
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
