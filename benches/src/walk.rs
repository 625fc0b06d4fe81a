//! A bare walker: two threads or more list directories, hand on every name, and do nothing else.
//!
//! What is left to do is a stack of directories, each by its name in its open parent: no path is ever put together.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, RawDir};

/// One `getdents64` for nearly every directory.
const LISTING_BYTES: usize = 64 * 1024;

/// What is done with each name: gives how many bytes of content that was.
pub type Visit<'a> =
    dyn Fn(&mut [u8], BorrowedFd<'_>, &CStr, FileType) -> io::Result<u64> + Sync + 'a;

/// What a walk came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walked {
    /// Names, and the root.
    pub entries: u64,
    /// What the visits gave, together.
    pub bytes: u64,
}

/// A directory that is still to be listed.
struct Job {
    parent: Arc<OwnedFd>,
    name: CString,
}

/// The stack, and how many threads are at work on what they took from it.
struct Stack {
    jobs: Vec<Job>,
    at_work: usize,
}

/// Walks a tree; `visit` gets a buffer of `buffer_bytes` that is its thread's own.
///
/// # Errors
/// Whatever listing or visiting gives first.
pub fn walk(
    root: &Path,
    threads: usize,
    buffer_bytes: usize,
    visit: &Visit<'_>,
) -> io::Result<Walked> {
    let top = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    let first = Job {
        parent: Arc::new(top),
        name: c".".to_owned(),
    };
    let stack = Mutex::new(Stack {
        jobs: vec![first],
        at_work: 0,
    });
    let wake = Condvar::new();
    let walked = std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| work(&stack, &wake, buffer_bytes, visit)))
            .collect();
        let walkers = walkers.into_iter();
        let walked = walkers.map(|walker| walker.join().expect("a walker does not panic"));
        walked.collect::<io::Result<Vec<Walked>>>()
    })?;
    Ok(Walked {
        entries: 1 + walked.iter().map(|walked| walked.entries).sum::<u64>(),
        bytes: walked.iter().map(|walked| walked.bytes).sum(),
    })
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn work(
    stack: &Mutex<Stack>,
    wake: &Condvar,
    buffer_bytes: usize,
    visit: &Visit<'_>,
) -> io::Result<Walked> {
    let mut listing = Vec::with_capacity(LISTING_BYTES);
    let mut buffer = vec![0; buffer_bytes];
    let mut walked = Walked::default();
    let mut below = Vec::new();
    while let Some(job) = take(stack, wake) {
        let listed = list(
            &job,
            &mut listing,
            &mut buffer,
            &mut below,
            &mut walked,
            visit,
        );
        let mut stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
        stack.at_work -= 1;
        match &listed {
            Ok(()) => stack.jobs.append(&mut below),
            // The others find nothing left and end.
            Err(_) => stack.jobs.clear(),
        }
        drop(stack);
        wake.notify_all();
        listed?;
    }
    Ok(walked)
}

/// The next directory; none once all are listed.
fn take(stack: &Mutex<Stack>, wake: &Condvar) -> Option<Job> {
    let mut stack = stack.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = stack.jobs.pop() {
            stack.at_work += 1;
            return Some(job);
        }
        if stack.at_work == 0 {
            return None;
        }
        stack = wake.wait(stack).unwrap_or_else(PoisonError::into_inner);
    }
}

fn list(
    job: &Job,
    listing: &mut Vec<u8>,
    buffer: &mut [u8],
    below: &mut Vec<Job>,
    walked: &mut Walked,
    visit: &Visit<'_>,
) -> io::Result<()> {
    let directory = Arc::new(rustix::fs::openat(
        &job.parent,
        &job.name,
        DIRECTORY,
        Mode::empty(),
    )?);
    let mut entries = RawDir::new(&directory, listing.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        walked.entries += 1;
        walked.bytes += visit(buffer, directory.as_fd(), name, entry.file_type())?;
        if entry.file_type() == FileType::Directory {
            below.push(Job {
                parent: Arc::clone(&directory),
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}
