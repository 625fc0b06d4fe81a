//! Plain readers of a tree of which nothing is cached: the fastest of them is the disk's own limit for these files.
//!
//! What may help, alone and together: more readers than cores, so that the disk has a queue; the order of inodes, or
//! that of the first blocks on the disk (as FIEMAP tells, through `filefrag`); telling the kernel some files ahead.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};

use crate::list::List;
use crate::turns::Run;

const BUFFER_BYTES: usize = 256 * 1024;
/// Files that one `filefrag` or `cat` is started with.
const BATCH: usize = 512;

/// In which order the files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As directories list them.
    Listed,
    /// By inode number.
    Inode,
    /// By the first block.
    Disk,
}

/// A way to read all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `xargs -P … cat`.
    Cat {
        /// How many at a time.
        processes: usize,
    },
    /// Threads of this process that open and read.
    Threads {
        /// In which order.
        order: Order,
        /// How many threads.
        threads: usize,
        /// How many files ahead of the reading the kernel is told to read.
        ahead: usize,
    },
}

/// Those that are tried.
pub const READERS: [Reader; 9] = [
    Reader::Cat { processes: 2 },
    Reader::Cat { processes: 16 },
    Reader::Threads {
        order: Order::Listed,
        threads: 16,
        ahead: 0,
    },
    Reader::Threads {
        order: Order::Inode,
        threads: 2,
        ahead: 0,
    },
    Reader::Threads {
        order: Order::Inode,
        threads: 16,
        ahead: 0,
    },
    Reader::Threads {
        order: Order::Disk,
        threads: 2,
        ahead: 0,
    },
    Reader::Threads {
        order: Order::Disk,
        threads: 16,
        ahead: 0,
    },
    Reader::Threads {
        order: Order::Disk,
        threads: 2,
        ahead: 256,
    },
    Reader::Threads {
        order: Order::Disk,
        threads: 64,
        ahead: 0,
    },
];

impl Reader {
    /// What it is called.
    pub fn name(self) -> String {
        match self {
            Reader::Cat { processes } => format!("`xargs -P {processes} cat`"),
            Reader::Threads {
                order,
                threads,
                ahead,
            } => {
                let order = match order {
                    Order::Listed => "as listed",
                    Order::Inode => "in inode order",
                    Order::Disk => "in disk order",
                };
                let ahead = match ahead {
                    0 => String::new(),
                    ahead => format!(", told {ahead} files ahead"),
                };
                format!("{threads} threads {order}{ahead}")
            }
        }
    }
}

/// The files of a list in each order.
pub struct Orders {
    paths: Vec<PathBuf>,
    inode: Vec<usize>,
    disk: Vec<usize>,
    bytes: u64,
}

impl Orders {
    /// Asks where every file lies.
    ///
    /// # Errors
    /// `filefrag` cannot be run.
    pub fn of(list: &List) -> Result<Self> {
        let paths: Vec<PathBuf> = list.files.iter().map(|file| list.path(file)).collect();
        let mut inode: Vec<usize> = (0..paths.len()).collect();
        inode.sort_by_key(|&nth| list.files[nth].inode);
        let blocks = first_blocks(&paths)?;
        let mut disk: Vec<usize> = (0..paths.len()).collect();
        disk.sort_by_key(|&nth| blocks[nth]);
        Ok(Orders {
            paths,
            inode,
            disk,
            bytes: list.bytes,
        })
    }

    /// Reads every file by one of the readers.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self, reader: Reader) -> Result<Run> {
        let started = Instant::now();
        match reader {
            Reader::Cat { processes } => cat(&self.paths, processes)?,
            Reader::Threads {
                order,
                threads,
                ahead,
            } => {
                let listed: Vec<usize>;
                let order = match order {
                    Order::Listed => {
                        listed = (0..self.paths.len()).collect();
                        &listed
                    }
                    Order::Inode => &self.inode,
                    Order::Disk => &self.disk,
                };
                let bytes = self.read_in(order, threads, ahead)?;
                ensure!(bytes == self.bytes, "{bytes} bytes of {}", self.bytes);
            }
        }
        Ok(Run {
            wall: started.elapsed(),
            cpu: None,
            entries: self.paths.len() as u64,
            bytes: self.bytes,
            peak_kib: None,
        })
    }

    fn read_in(&self, order: &[usize], threads: usize, ahead: usize) -> io::Result<u64> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            if ahead > 0 {
                scope.spawn(|| self.tell(order, &next, ahead));
            }
            let readers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut buffer = vec![0; BUFFER_BYTES];
                        let mut bytes = 0;
                        while let Some(&nth) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                            bytes += read(&self.paths[nth], &mut buffer)?;
                        }
                        Ok(bytes)
                    })
                })
                .collect();
            let readers = readers.into_iter();
            let bytes = readers.map(|reader| reader.join().expect("a reader does not panic"));
            bytes.sum()
        })
    }

    /// Stays so many files ahead of the readers.
    fn tell(&self, order: &[usize], next: &AtomicUsize, ahead: usize) {
        for (told, &nth) in order.iter().enumerate() {
            while told > next.load(Ordering::Relaxed) + ahead {
                std::thread::yield_now();
            }
            // A hint: who reads the file says what is wrong with it.
            if let Ok(file) = File::open(&self.paths[nth]) {
                let _ = fadvise(file.as_fd(), 0, None, Advice::WillNeed);
            }
        }
    }
}

fn read(path: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut at = 0;
    loop {
        let count = rustix::io::pread(&file, &mut *buffer, at)?;
        at += count as u64;
        if count < buffer.len() {
            return Ok(at);
        }
    }
}

fn cat(paths: &[PathBuf], processes: usize) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut xargs = Command::new("xargs")
        .args([
            "-0",
            "-n",
            &BATCH.to_string(),
            "-P",
            &processes.to_string(),
            "cat",
            "--",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start xargs")?;
    let mut names = Vec::new();
    for path in paths {
        names.extend_from_slice(path.as_os_str().as_bytes());
        names.push(0);
    }
    xargs
        .stdin
        .take()
        .context("xargs reads")?
        .write_all(&names)?;
    let status = xargs.wait()?;
    ensure!(status.success(), "xargs cat: {status}");
    Ok(())
}

/// Where each file's content begins on its disk; 0 for what has no block of its own.
fn first_blocks(paths: &[PathBuf]) -> Result<Vec<u64>> {
    let mut blocks = Vec::with_capacity(paths.len());
    for batch in paths.chunks(BATCH) {
        let output = Command::new("filefrag")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("-v")
            .args(batch)
            .output()
            .context("start filefrag")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let before = blocks.len();
        for line in text.lines() {
            if line.starts_with("File size of ") {
                blocks.push(0);
            } else if let Some(block) = first_block(line)
                && let Some(last) = blocks.last_mut()
            {
                *last = block;
            }
        }
        ensure!(
            blocks.len() - before == batch.len(),
            "filefrag told of {} files of {}",
            blocks.len() - before,
            batch.len()
        );
    }
    Ok(blocks)
}

/// `   0:        0..       7:   12345..   12352:      8:  last,eof`: the third number of the first extent.
fn first_block(line: &str) -> Option<u64> {
    let mut fields = line.split(':');
    if fields.next()?.trim() != "0" {
        return None;
    }
    let physical = fields.nth(1)?;
    physical.split("..").next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_reads_every_byte() {
        let place = tempfile::tempdir().expect("a directory");
        for nth in 0..50 {
            let content = vec![b'x'; nth * 20_000];
            std::fs::write(place.path().join(nth.to_string()), content).expect("write");
        }
        let list = List::of(place.path()).expect("list");
        let orders = Orders::of(&list).expect("ask where they lie");
        for reader in READERS {
            let run = orders.read(reader).expect("read");
            assert_eq!(
                (run.entries, run.bytes),
                (50, list.bytes),
                "{}",
                reader.name()
            );
        }
    }

    #[test]
    fn the_first_extent_of_a_table_is_where_a_file_begins() {
        for (line, block) in [
            (
                "   0:        0..       7:   12345..   12352:      8:             last,eof",
                Some(12345),
            ),
            (
                "   1:        8..       9:      99..     100:      2:  12353: last,eof",
                None,
            ),
            (
                " ext:     logical_offset:        physical_offset: length:   expected: flags:",
                None,
            ),
            ("/tmp/x: 1 extent found", None),
        ] {
            assert_eq!(first_block(line), block, "{line}");
        }
    }
}
