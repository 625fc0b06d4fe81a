//! Receives an image with a kernel; hands on a virtual machine of it: its own kernel, its own memory, its own clock.
//!
//! What a container cannot show is shown here: a boot from the first instruction, limits of memory that hold, a disk
//! that is full, a root that cannot be written, a clock that is wrong. QEMU emulates the processor (TCG), so it runs
//! wherever the tests run, ten times slower than the real thing. The machine is on a lab's network like any instance,
//! and QEMU runs in the lab's sandbox: it is gone with it, however the test ends.

mod disk;
mod kernel;
mod monitor;
mod shell;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::image::Image;
use crate::lab::Lab;
use crate::patience::{pause, until};
use crate::process::Running;
use crate::sandbox::{self, Sandbox};
use monitor::Monitor;
use shell::Shell;

pub(crate) use disk::{PACKAGES, pack, prepare};
pub use kernel::Kernel;

const QEMU: &str = "qemu-system-x86_64";
/// A boot takes 10 to 20 s of a processor that is ours alone; this is for two that are not.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// How long an agent is left alone between two questions.
const BETWEEN: Duration = Duration::from_secs(3);
/// A script on the machine takes a second or two.
const SCRIPT_LIMIT: Duration = Duration::from_secs(120);

/// What a story wants of its machine.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The join token: the credential `driftmark.token`, handed over as SMBIOS strings are.
    pub token: Option<String>,
    /// The cloud's name for the machine: the credential `driftmark.cloud-id`.
    pub cloud_id: Option<String>,
    /// More arguments of the kernel.
    pub kernel_arguments: String,
    /// Whether the root is mounted so that it can be written.
    pub root: Root,
    /// More disks, raw, as `/dev/nvme1n1` and so on. What it writes to them is gone with it, too.
    pub disks: Vec<PathBuf>,
    /// What its clock says when it is switched on, `2026-01-31T12:00:00`; else what this machine's says.
    pub clock: Option<String>,
}

/// How the root file system is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// As usual.
    Writable,
    /// Nobody can write it, from the first moment on.
    ReadOnly,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            token: None,
            cloud_id: None,
            kernel_arguments: String::new(),
            root: Root::Writable,
            disks: Vec::new(),
            clock: None,
        }
    }
}

/// A virtual machine; dropping it is the power cut. What it wrote to its disk is gone with it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: String,
    directory: PathBuf,
    qemu: Mutex<Running>,
    shell: Mutex<Shell>,
    monitor: Mutex<Monitor>,
    boot_time: Duration,
    /// Kept, so that a machine that outlives its lab ends with its sandbox.
    _sandbox: Arc<Sandbox>,
}

/// Whether a story with a machine can be told here. If not, the reason is printed and the test is to return.
///
/// # Panics
/// Where skipping is forbidden (`DRIFTMARK_NO_SKIPPING`), instead of answering no.
pub fn possible(story: &str) -> bool {
    if !sandbox::possible(story) {
        return false;
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &str| std::env::split_paths(&search).any(|directory| directory.join(name).is_file());
    let reason = if !is_there(QEMU) {
        format!("needs {QEMU}: run `packaging/setup machines`")
    } else if !Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun, for the machine's network card".to_owned()
    } else {
        return true;
    };
    sandbox::skip(story, &reason)
}

impl Machine {
    /// Switches one on and waits until it is up: multi-user, or as far as it gets.
    ///
    /// # Errors
    /// It does not come up; the message has its console.
    pub fn boot(lab: &Lab, image: &Image, name: &str, options: &MachineOptions) -> Result<Self> {
        let kernel = image
            .kernel
            .as_ref()
            .context("a machine boots an image with a kernel: `Recipe::kernel`")?;
        let start = Instant::now();
        let directory = lab.directory().join(format!("machine-{name}"));
        fs::create_dir(&directory)
            .with_context(|| format!("make {}: is the name in use?", directory.display()))?;
        let address = lab.next_address()?;
        let card = format!("tap{}", address.rsplit('.').next().unwrap_or_default());
        lab.sandbox().shell(&format!(
            "ip tuntap add {card} mode tap; ip link set {card} master lan up"
        ))?;
        let mut command = lab.command(QEMU);
        // The overlay of what the machine writes goes where everything of the lab goes.
        command.env("TMPDIR", &directory);
        command.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
        command.args([
            "-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "1",
        ]);
        command.args(["-m", &options.memory_mib.to_string()]);
        command.args(["-serial", "stdio", "-rtc"]);
        command.arg(match &options.clock {
            Some(clock) => format!("base={clock}"),
            None => "base=utc".to_owned(),
        });
        command.arg("-kernel").arg(&kernel.image);
        command.args(["-append", &kernel_arguments(&address, options)]);
        command.arg("-drive").arg(format!(
            "file={},format=raw,if=none,id=disk,snapshot=on",
            image.file_system.display()
        ));
        command.args(["-device", "nvme,serial=disk,drive=disk"]);
        for (nth, disk) in (1..).zip(&options.disks) {
            command.arg("-drive").arg(format!(
                "file={},format=raw,if=none,id=disk{nth},snapshot=on",
                disk.display()
            ));
            command.args(["-device", &format!("nvme,serial=disk{nth},drive=disk{nth}")]);
        }
        command.args([
            "-netdev",
            &format!("tap,id=net,ifname={card},script=no,downscript=no"),
        ]);
        command.args([
            "-device",
            &format!(
                "virtio-net-pci,id=card,netdev=net,romfile=,mac={}",
                hardware_address(&address)
            ),
        ]);
        command.args([
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtserialport,chardev=shell,name=lab",
        ]);
        let (shell, monitor) = (directory.join("shell"), directory.join("monitor"));
        command.args([
            "-chardev",
            &format!(
                "socket,id=shell,path={},server=on,wait=off",
                shell.display()
            ),
        ]);
        command.args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", monitor.display()),
        ]);
        for (credential, value) in [("token", &options.token), ("cloud-id", &options.cloud_id)] {
            if let Some(value) = value {
                // A comma ends a value of QEMU's, two are one.
                let value = value.replace(',', ",,");
                command.args([
                    "-smbios",
                    &format!("type=11,value=io.systemd.credential:driftmark.{credential}={value}"),
                ]);
            }
        }
        let mut qemu = Running::start(name, command)?;
        let sockets = until("QEMU", Duration::from_secs(30), || {
            if qemu.wait(Duration::ZERO).is_ok() {
                bail!("QEMU ended:\n{}", qemu.output());
            }
            Ok(Shell::connect(&shell)
                .ok()
                .zip(Monitor::connect(&monitor).ok()))
        });
        let (shell, monitor) = sockets?;
        let mut machine = Self {
            name: name.to_owned(),
            address,
            directory,
            qemu: Mutex::new(qemu),
            shell: Mutex::new(shell),
            monitor: Mutex::new(monitor),
            boot_time: Duration::ZERO,
            _sandbox: lab.shared_sandbox(),
        };
        machine.await_boot()?;
        machine.boot_time = start.elapsed();
        Ok(machine)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the lab's network.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long this machine waited for that one to be up.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// What it and QEMU wrote to its serial line.
    pub fn console(&self) -> String {
        held(&self.qemu).output()
    }

    /// Runs a line of shell on it, with all rights, and gives what it wrote.
    ///
    /// # Errors
    /// The line did not end with 0, or not in time.
    pub fn exec(&self, line: &str) -> Result<String> {
        let output = self.try_exec(&format!("set -e; {line}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{line:?} on {} ended with {}\n{text}",
            self.name,
            output.status
        );
        Ok(text)
    }

    /// Runs a line of shell on it, whatever it ends with; both its streams are in `stdout`.
    ///
    /// # Errors
    /// The machine does not answer in time; the message has its console.
    pub fn try_exec(&self, line: &str) -> Result<Output> {
        let answer = held(&self.shell).run(line, SCRIPT_LIMIT);
        answer.with_context(|| format!("console of {}:\n{}", self.name, self.console()))
    }

    /// What the agent on it says of itself.
    ///
    /// # Errors
    /// It does not run.
    pub fn agent_status(&self) -> Result<Value> {
        let text = self.exec("driftmark-agent status --json")?;
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    /// Waits until the agent says of itself what is waited for; gives that.
    ///
    /// # Errors
    /// The time is over; the message has the last status and the agent's log.
    pub fn wait_for_agent(
        &self,
        what: &str,
        limit: Duration,
        mut enough: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = until(what, limit, || {
            // Asking costs the machine's one processor a second of work, and the agent gets what is left.
            pause(BETWEEN);
            last = self
                .agent_status()
                .unwrap_or_else(|error| error.to_string().into());
            Ok(enough(&last).then(|| last.clone()))
        });
        waited.with_context(|| {
            let journal = self.journal("driftmark-agent.service").unwrap_or_default();
            format!("the last status: {last:#}\nthe log:\n{journal}")
        })
    }

    /// What a unit wrote to the journal since the boot.
    ///
    /// # Errors
    /// The journal does not answer.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.exec(&format!(
            "journalctl --boot --no-pager --output=cat --unit={unit}"
        ))
    }

    /// Pulls the plug of its network card, or puts it in again.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn set_link(&self, plugged: bool) -> Result<()> {
        held(&self.monitor)
            .execute("set_link", &json!({ "name": "card", "up": plugged }))
            .map(drop)
    }

    /// Waits until it is up. Units that failed are no obstacle: a story may be about them.
    fn await_boot(&self) -> Result<()> {
        let mut state = String::new();
        let waited = until("the machine to be up", BOOT_LIMIT, || {
            if held(&self.qemu).wait(Duration::ZERO).is_ok() {
                bail!("QEMU ended");
            }
            let script = "systemctl is-system-running --wait";
            state = String::from_utf8_lossy(&held(&self.shell).run(script, BOOT_LIMIT)?.stdout)
                .trim()
                .to_owned();
            Ok(["running", "degraded"]
                .contains(&state.as_str())
                .then_some(()))
        });
        waited.with_context(|| {
            format!(
                "its state: {state}; console of {}:\n{}",
                self.name,
                self.console()
            )
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Killed, not asked: it is a power cut, and its disk is gone anyway.
        let _ = held(&self.qemu).kill_hard();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kernel_arguments(address: &str, options: &MachineOptions) -> String {
    let root = match options.root {
        Root::Writable => "rw",
        Root::ReadOnly => "ro",
    };
    // The serial line is the console and nobody's terminal: a getty there hangs up on whoever prints.
    format!(
        "root=/dev/nvme0n1 {root} console=ttyS0,115200 net.ifnames=0 mitigations=off nokaslr quiet panic=-1 \
         systemd.show_status=no systemd.mask=serial-getty@ttyS0.service lab.address={address} {}",
        options.kernel_arguments
    )
}

/// A hardware address of its own, from its number on the network.
fn hardware_address(address: &str) -> String {
    let number: u8 = address
        .rsplit('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    format!("02:00:0a:4d:01:{number:02x}")
}
