//! Two processes that do nothing but one thing again and again, and say when they did it and how long it took: what
//! others feel.
//!
//! Each is this program, started again: a process of its own, with threads and priorities of its own. They go on while what
//! runs beside them changes; whoever changes it knows when.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};

/// The word that has this program be such a process.
pub const WORD: &str = "--feel";

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feeler {
    /// A small write, `fsync`, and a small read of what is not cached.
    Disk,
    /// A fixed amount of work of one core, touching as much memory as a core's own cache has.
    Core,
}

/// It was done once: nanoseconds of the monotonic clock, which all processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// When it began.
    pub began: u64,
    /// How long it took.
    pub took: u64,
}

/// As much is read and written at once: a page of a database.
const PAGE: usize = 4096;
/// Pages of the file that is read: more than it comes by twice.
const PAGES: u64 = 65_536;
/// Pages of the file that is written: they are there before, so that a write changes nothing but content.
const WRITTEN_PAGES: u64 = 1024;
/// Numbers that are gone through in one unit: 256 KiB.
const NUMBERS: usize = 32 * 1024;
/// So often, so that a unit takes about a millisecond.
const ROUNDS: usize = 64;
/// Between two units: a process that answers questions waits for the next one.
const PAUSE: Duration = Duration::from_millis(1);

impl Feeler {
    /// All of them.
    pub const ALL: [Feeler; 2] = [Feeler::Disk, Feeler::Core];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Feeler::Disk => "write, `fsync` and read 4 KiB",
            Feeler::Core => "a unit of work on one core",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Feeler::Disk => "disk",
            Feeler::Core => "core",
        }
    }

    /// Starts it; its files are in `place`, where [`prepare`] made them. It goes on until it is ended.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self, place: &Path) -> Result<Feeling> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args([WORD, self.word()]).arg(place);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Feeling(command.spawn().context("start a process")?))
    }
}

/// Such a process. It ends when this does.
#[derive(Debug)]
pub struct Feeling(Child);

impl Feeling {
    /// Ends it; what it says then, in the order of time.
    ///
    /// # Errors
    /// It failed.
    pub fn end(mut self) -> Result<Vec<Once>> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        let mut out = self.0.stdout.take().context("its output")?;
        out.read_to_string(&mut text).context("read its output")?;
        ensure!(self.0.wait()?.success(), "it failed: {text}");
        let once = |line: &str| {
            let (began, took) = line.split_once(' ').context("two numbers")?;
            let (began, took) = (began.parse()?, took.parse()?);
            Ok(Once { began, took })
        };
        text.lines().map(once).collect()
    }
}

/// Makes the files that [`Feeler::Disk`] works on.
///
/// # Errors
/// The disk is full.
pub fn prepare(place: &Path) -> Result<()> {
    std::fs::create_dir_all(place).context("make a directory")?;
    for (path, pages) in [(read_in(place), PAGES), (written_in(place), WRITTEN_PAGES)] {
        let mut file = File::create(&path).context("create a file")?;
        for nth in 0..pages {
            file.write_all(&[nth as u8; PAGE]).context("fill a file")?;
        }
        file.sync_all().context("write a file")?;
    }
    Ok(())
}

/// Is such a process, if the words say so; says whether they did.
///
/// # Errors
/// Its files cannot be had.
pub fn be_one(words: &[String]) -> Result<bool> {
    let [word, kind, place] = words else {
        return Ok(false);
    };
    if word != WORD {
        return Ok(false);
    }
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // Whoever started it says nothing, and hangs up.
        let _ = std::io::stdin().read(&mut [0]);
        IS_OVER.store(true, Ordering::Relaxed);
    });
    let goes_on = || !IS_OVER.load(Ordering::Relaxed);
    let times = match kind.as_str() {
        "disk" => feel_disk(Path::new(place), &goes_on)?,
        _ => feel_core(&goes_on),
    };
    let text: String = times
        .iter()
        .map(|once| format!("{} {}\n", once.began, once.took))
        .collect();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

/// Now, nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn read_in(place: &Path) -> PathBuf {
    place.join("read")
}

fn written_in(place: &Path) -> PathBuf {
    place.join("written")
}

fn feel_disk(place: &Path, goes_on: &dyn Fn() -> bool) -> Result<Vec<Once>> {
    let reading = File::open(read_in(place)).context("open a file")?;
    fadvise(&reading, 0, None, Advice::DontNeed)?;
    fadvise(&reading, 0, None, Advice::Random)?;
    let writing = File::options().write(true).open(written_in(place));
    let writing = writing.context("open a file")?;
    let mut random = fastrand::Rng::with_seed(1);
    let (mut times, mut page) = (Vec::new(), [0; PAGE]);
    while goes_on() {
        let began = now();
        writing.write_all_at(&page, random.u64(..WRITTEN_PAGES) * PAGE as u64)?;
        writing.sync_data().context("fsync")?;
        let at = random.u64(..PAGES) * PAGE as u64;
        reading.read_exact_at(&mut page, at).context("read")?;
        let took = now() - began;
        times.push(Once { began, took });
        // What was read is not cached the next time either.
        let page_alone = std::num::NonZero::new(PAGE as u64);
        fadvise(&reading, at, page_alone, Advice::DontNeed)?;
        crate::machine::let_pass(PAUSE);
    }
    Ok(times)
}

fn feel_core(goes_on: &dyn Fn() -> bool) -> Vec<Once> {
    let mut numbers: Vec<u64> = (0..NUMBERS as u64).collect();
    let mut times = Vec::new();
    while goes_on() {
        let began = now();
        for _ in 0..ROUNDS {
            for number in &mut numbers {
                *number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
            }
            std::hint::black_box(&mut numbers);
        }
        let took = now() - began;
        times.push(Once { began, took });
    }
    times
}
