//! Receives what is to happen to the machine from outside; has QEMU do it, by its own protocol (QMP).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers between two of the machine's instructions.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        stream
            .set_read_timeout(Some(LIMIT))
            .context("limit the wait for QEMU")?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
        };
        monitor.read().context("read QEMU's greeting")?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has QEMU execute a command and waits until it did.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").context("send a command to QEMU")?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {line}: {error}");
            }
            // What happens meanwhile is told in between.
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .context("wait for what QEMU answers")?;
        serde_json::from_str(&line).with_context(|| format!("understand QEMU's {line:?}"))
    }
}
