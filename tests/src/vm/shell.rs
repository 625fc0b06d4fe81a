//! Receives a line of shell; hands back what it wrote on the machine, over a port that needs no network.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The machine's end of the cable that is no network.
#[derive(Debug)]
pub(super) struct Shell {
    stream: BufReader<UnixStream>,
}

impl Shell {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Runs a script on the machine; what it wrote to both its streams is in `stdout`.
    pub(super) fn run(&mut self, script: &str, limit: Duration) -> Result<Output> {
        let stream = self.stream.get_mut();
        stream
            .set_read_timeout(Some(limit))
            .context("limit the wait")?;
        let line = format!("{}\n", STANDARD.encode(script));
        stream
            .write_all(line.as_bytes())
            .context("send a script to the machine")?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).with_context(|| {
            format!("wait {limit:?} for what the machine answers to {script:?}")
        })?;
        let (text, code) = answer
            .trim_end()
            .rsplit_once(' ')
            .with_context(|| format!("understand the machine's answer {answer:?}"))?;
        let code: i32 = code
            .parse()
            .with_context(|| format!("understand the machine's answer {answer:?}"))?;
        Ok(Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: STANDARD.decode(text).context("read the machine's answer")?,
            stderr: Vec::new(),
        })
    }
}
