//! Others that watch a tree: auditd with a rule on its path, and inotifywait. What they say of it, line by line, out.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::felt::now;
use crate::machine;
use crate::watched::{Said, until};

/// One that watches; it stops when this is dropped.
#[derive(Debug)]
pub struct Peer {
    /// What it is called.
    pub name: &'static str,
    child: Child,
    said: Receiver<Said>,
    /// What has to be undone in the kernel.
    rule: Option<Vec<String>>,
}

/// The name of the rule, by which its events are found.
const KEY: &str = "driftmark-bench";
/// How often auditd's file is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Peer {
    /// `inotifywait -r` on a tree.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn inotifywait(root: &Path) -> Result<Self> {
        let mut command = Command::new("inotifywait");
        command.args(["--monitor", "--recursive", "--format", "%w%f %e"]);
        for event in [
            "modify",
            "attrib",
            "close_write",
            "move",
            "create",
            "delete",
            "unmount",
        ] {
            command.args(["--event", event]);
        }
        command.arg(root);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start inotifywait")?;
        let errors = BufReader::new(child.stderr.take().context("its errors")?);
        let mut lines = errors.lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("Watches established"));
        ensure!(is_ready, "inotifywait does not watch");
        let out = child.stdout.take().context("its output")?;
        let (tell, said) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.map(|line| said_now(&tell, line)).find(|is| !is)
        });
        Ok(Peer {
            name: "`inotifywait -r`",
            child,
            said,
            rule: None,
        })
    }

    /// auditd, with its files in `place` and one rule: all that is written, and each attribute that is changed, below `root`.
    ///
    /// # Errors
    /// It is not installed, does not start, or the kernel takes no rule: in a container, say.
    pub fn auditd(place: &Path, root: &Path) -> Result<Self> {
        let status = output("auditctl", &["-s"])?;
        let other = status.lines().find_map(|line| line.strip_prefix("pid "));
        // The kernel may go on naming one that has ended.
        let runs = other.is_some_and(|pid| pid != "0" && Path::new("/proc").join(pid).exists());
        ensure!(!runs, "another auditd runs here");
        let log = place.join("audit.log");
        fs::create_dir_all(place.join("plugins.d")).context("make a directory")?;
        let text = format!(
            "local_events = yes\nlog_file = {}\nwrite_logs = yes\nlog_format = ENRICHED\nlog_group = root\nflush = INCREMENTAL_ASYNC\n\
             freq = 50\nmax_log_file = 64\nmax_log_file_action = IGNORE\nspace_left = 75\nspace_left_action = IGNORE\n\
             admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n",
            log.display()
        );
        fs::write(place.join("auditd.conf"), text).context("write auditd's configuration")?;
        let mut command = Command::new("auditd");
        command.arg("-n").arg("-c").arg(place);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("start auditd")?;
        let (tell, said) = channel();
        let mut peer = Peer {
            name: "auditd",
            child,
            said,
            rule: None,
        };
        let number = format!("pid {}", peer.child.id());
        until("auditd to be the kernel's", || {
            ensure!(peer.child.try_wait()?.is_none(), "auditd ended");
            let status = output("auditctl", &["-s"])?;
            Ok(status.lines().any(|line| line == number).then_some(()))
        })?;
        let root = root.display().to_string();
        let of_rule = ["-w", &root, "-p", "wa", "-k", KEY];
        output("auditctl", &["-b", "65536"])?;
        output("auditctl", &of_rule)?;
        peer.rule = Some(of_rule.map(str::to_owned).to_vec());
        std::thread::spawn(move || follow(&log, &tell));
        Ok(peer)
    }

    /// What it said since it was last asked.
    pub fn all_said(&self) -> Vec<Said> {
        self.said.try_iter().collect()
    }

    /// What it took of all cores until now; auditd with the kernel's thread that serves it.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let own = machine::cpu_of(self.child.id())?;
        let kernel = match (&self.rule, kernel_thread("kauditd")) {
            (Some(_), Some(id)) => machine::cpu_of(id)?,
            _ => Duration::ZERO,
        };
        Ok(own + kernel)
    }

    /// The most memory that it had, in KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_kib(&self) -> Result<u64> {
        machine::field_of(self.child.id(), "VmHWM:")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Whatever cannot be undone is undone by whoever stops the machine.
        if let Some(rule) = &mut self.rule {
            "-W".clone_into(&mut rule[0]);
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            let _ = output("auditctl", &rule);
            let _ = output("auditctl", &["-e", "0"]);
        }
        // auditd tells the kernel that it ends, if it may.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether anybody listens.
fn said_now(tell: &Sender<Said>, line: String) -> bool {
    let at = now();
    tell.send(Said { at, line }).is_ok()
}

/// Tells what is written to a file, as it is written.
fn follow(log: &PathBuf, tell: &Sender<Said>) {
    let Ok(mut file) = File::open(log) else {
        return;
    };
    let mut rest = String::new();
    // It ends when nobody listens, or the file cannot be read any more.
    while file.read_to_string(&mut rest).is_ok() {
        while let Some(end) = rest.find('\n') {
            let line = rest.drain(..=end).collect();
            if !said_now(tell, line) {
                return;
            }
        }
        machine::let_pass(LOOK_EVERY);
    }
}

fn kernel_thread(name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut ids =
        processes.filter_map(|process| process.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}
