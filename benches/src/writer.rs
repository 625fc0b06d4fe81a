//! Nothing in; processes out that write: a program that opens, writes and is gone, with no library to load, so that nothing
//! ends sooner, and one that writes file after file and says when.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::felt::now;
use crate::machine;

/// Such a program.
#[derive(Debug, Clone)]
pub struct Writer(PathBuf);

impl Writer {
    /// Compiles it to this place.
    ///
    /// # Errors
    /// There is no compiler, or no static library of C.
    pub fn at(place: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/writer.c");
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-static", "-o"])
            .arg(place)
            .arg(source);
        let status = compile.status().context("start cc")?;
        ensure!(status.success(), "the writer does not compile");
        Ok(Writer(place.to_owned()))
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.0
    }

    /// Writes a file, which is there.
    ///
    /// # Errors
    /// It does not.
    pub fn write(&self, file: &Path) -> Result<()> {
        let status = Command::new(&self.0).arg(file).status();
        let status = status.context("start the writer")?;
        ensure!(status.success(), "the writer: {status}");
        Ok(())
    }
}

/// The word that has this program be a process that writes.
pub const WORD: &str = "--write";

/// Writes `count` files, called by their number modulo `files`, one after the other with `apart` between them, in a process of
/// its own; when each was closed, in nanoseconds of the monotonic clock.
///
/// # Errors
/// It cannot write.
pub fn write_each(place: &Path, count: usize, files: usize, apart: Duration) -> Result<Vec<u64>> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.arg(WORD).arg(place);
    let apart = apart.as_micros().to_string();
    command.args([count.to_string(), files.to_string(), apart]);
    let output = command.output().context("start a process")?;
    ensure!(output.status.success(), "it does not write");
    let text = String::from_utf8(output.stdout).context("read when it wrote")?;
    text.lines()
        .map(|line| line.parse().with_context(|| format!("read {line:?}")))
        .collect()
}

/// Is such a process, if the words say so; says whether they did.
///
/// # Errors
/// It cannot write.
pub fn be_one(words: &[String]) -> Result<bool> {
    let [word, place, count, files, apart] = words else {
        return Ok(false);
    };
    if word != WORD {
        return Ok(false);
    }
    let (count, files): (usize, usize) = (count.parse()?, files.parse()?);
    let apart = Duration::from_micros(apart.parse()?);
    let mut closed = Vec::with_capacity(count);
    for nth in 0..count {
        let path = Path::new(place).join((nth % files).to_string());
        std::fs::write(path, format!("written as number {nth}\n")).context("write a file")?;
        closed.push(now());
        if !apart.is_zero() {
            machine::let_pass(apart);
        }
    }
    let text: String = closed.iter().map(|at| format!("{at}\n")).collect();
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}

/// Compiles a program of one file, which is named from here, to a place.
///
/// # Errors
/// There is no compiler, or no static library of C.
pub fn compile(source: &Path, place: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-static", "-o"])
        .arg(place)
        .arg(&source);
    let status = compile.status().context("start cc")?;
    ensure!(status.success(), "{} does not compile", source.display());
    Ok(())
}

/// A process that keeps a core busy until it is dropped.
#[derive(Debug)]
pub struct Spinner(Child);

impl Spinner {
    /// Starts it.
    ///
    /// # Errors
    /// There is no shell.
    pub fn start() -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "while :; do :; done"]);
        let child = shell.stdin(Stdio::null()).spawn();
        Ok(Spinner(child.context("start a busy process")?))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        // It does not end by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
