//! The least that can be had: a process that asks the kernel for the same events as the agent, reads them every 5 ms, and
//! does nothing with them. In the agent's place it is what its watch is held against.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use driftmark_kernel::fanotify::{Buffer, Sight, Watch};

use crate::machine;

/// The word that has this program be such a process.
pub const WORD: &str = "--drain";
const EVERY: Duration = Duration::from_millis(5);

/// Such a process. It ends when it is dropped.
#[derive(Debug)]
pub struct Drain(Child);

impl Drain {
    /// Starts it over the file system of this directory; it reads when this is done.
    ///
    /// # Errors
    /// The file system cannot be marked.
    pub fn start(place: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.arg(WORD).arg(place);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start a process")?;
        let mut ready = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out).read_line(&mut ready)?;
        let drain = Drain(child);
        ensure!(!ready.is_empty(), "it does not read");
        Ok(drain)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        // It ends when nobody holds its input any more.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Is such a process, if the words say so; says whether they did.
///
/// # Errors
/// The file system cannot be marked.
pub fn be_one(words: &[String]) -> Result<bool> {
    let [word, place] = words else {
        return Ok(false);
    };
    if word != WORD {
        return Ok(false);
    }
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let directory = std::fs::File::open(place).context("open a directory")?;
    let watch = Watch::open().context("make a queue of events")?;
    let sight = watch.watch_filesystem(directory.as_fd());
    ensure!(matches!(sight, Sight::Whole { .. }), "{sight}");
    println!("ready");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        IS_OVER.store(true, Ordering::Relaxed);
    });
    let mut buffer = Buffer::default();
    while !IS_OVER.load(Ordering::Relaxed) {
        while watch.read(&mut buffer)?.is_some() {}
        machine::let_pass(EVERY);
    }
    Ok(true)
}
