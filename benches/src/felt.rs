//! Two processes that do nothing but one thing again and again, and say how long each time took: what others feel.
//!
//! Each is this program, started again: a process of its own, with threads and priorities of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

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

/// How long each time took, sorted.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

/// As much is read and written at once: a page of a database.
const PAGE: usize = 4096;
/// Pages of the file that is read: more than it comes by twice.
const PAGES: u64 = 65_536;
/// Numbers that are gone through in one unit: 256 KiB.
const NUMBERS: usize = 32 * 1024;
/// So often, so that a unit takes some milliseconds.
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

    /// Starts it with a place for its files; it goes on for so long.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self, place: &Path, seconds: u64) -> Result<Feeling> {
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.args([WORD, self.word(), &seconds.to_string()]);
        command.arg(place).stdout(Stdio::piped());
        Ok(Feeling(command.spawn().context("start a process")?))
    }
}

/// Such a process.
#[derive(Debug)]
pub struct Feeling(Child);

impl Feeling {
    /// What it says at its end.
    ///
    /// # Errors
    /// It failed.
    pub fn end(mut self) -> Result<Times> {
        let mut text = String::new();
        let mut out = self.0.stdout.take().context("its output")?;
        out.read_to_string(&mut text).context("read its output")?;
        ensure!(self.0.wait()?.success(), "it failed: {text}");
        let times = text
            .lines()
            .map(|line| Ok(Duration::from_nanos(line.parse()?)));
        Ok(Times::of(times.collect::<Result<_>>()?))
    }
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Times(times)
    }

    /// Those of several processes as of one.
    pub fn add(&mut self, other: &Times) {
        self.0.extend(&other.0);
        self.0.sort_unstable();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What so many of a thousand are not longer than.
    pub fn per_mille(&self, share: usize) -> Duration {
        let at = (self.0.len() * share / 1000).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Is such a process, if the words say so; says whether they did.
///
/// # Errors
/// Its files cannot be had.
pub fn be_one(words: &[String]) -> Result<bool> {
    let [word, kind, seconds, place] = words else {
        return Ok(false);
    };
    if word != WORD {
        return Ok(false);
    }
    let ends = Instant::now() + Duration::from_secs(seconds.parse()?);
    let times = match kind.as_str() {
        "disk" => feel_disk(Path::new(place), ends)?,
        _ => feel_core(ends),
    };
    let text: String = times
        .iter()
        .map(|time| format!("{}\n", time.as_nanos()))
        .collect();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

fn feel_disk(place: &Path, ends: Instant) -> Result<Vec<Duration>> {
    let read_path = place.join("read");
    if !read_path.exists() {
        let mut file = File::create(&read_path).context("create a file")?;
        for nth in 0..PAGES {
            file.write_all(&[nth as u8; PAGE])
                .context("fill the file")?;
        }
        file.sync_all().context("write the file")?;
    }
    let reading = File::open(&read_path).context("open the file")?;
    rustix::fs::fadvise(&reading, 0, None, rustix::fs::Advice::DontNeed)?;
    rustix::fs::fadvise(&reading, 0, None, rustix::fs::Advice::Random)?;
    let writing = File::create(place.join("written")).context("create a file")?;
    let mut random = fastrand::Rng::with_seed(1);
    let (mut times, mut page) = (Vec::new(), [0; PAGE]);
    while Instant::now() < ends {
        let began = Instant::now();
        writing.write_all_at(&page, random.u64(..1024) * PAGE as u64)?;
        writing.sync_data().context("fsync")?;
        let at = random.u64(..PAGES) * PAGE as u64;
        reading.read_exact_at(&mut page, at).context("read")?;
        times.push(began.elapsed());
        // What was read is not cached the next time either.
        let page_alone = std::num::NonZero::new(PAGE as u64);
        rustix::fs::fadvise(&reading, at, page_alone, rustix::fs::Advice::DontNeed)?;
        crate::machine::let_pass(PAUSE);
    }
    Ok(times)
}

fn feel_core(ends: Instant) -> Vec<Duration> {
    let mut numbers: Vec<u64> = (0..NUMBERS as u64).collect();
    let mut times = Vec::new();
    while Instant::now() < ends {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            for number in &mut numbers {
                *number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
            }
            std::hint::black_box(&mut numbers);
        }
        times.push(began.elapsed());
    }
    times
}
