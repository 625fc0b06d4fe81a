//! Receives a place in a lab; hands on one machine of the fleet: the image's own systemd, running, on an overlay of its own.
//!
//! Nothing in its file system tells it from its sisters. What does (join token, cloud id) comes as system credentials,
//! as clouds and hypervisors pass them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{Groups, remove_group};
use crate::patience::until;
use crate::process::{Running, finish, run};
use crate::sandbox::Sandbox;

/// A boot takes less than a second; this is for two busy cores and a first scan.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// An orderly halt takes 0.2 s; a unit that hangs has its own 30 s.
const HALT_LIMIT: Duration = Duration::from_secs(45);
/// Room for what is written on an instance.
const OVERLAY_SIZE: &str = "1g";
/// Calls that nspawn forbids and the two programs make, as on any real machine.
const CALLS: &str = "fanotify_init fanotify_mark open_by_handle_at open_tree mount_setattr move_mount \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self";
/// What nspawn ends with when the machine in it reboots.
const REBOOT: i32 = 133;

/// What differs from instance to instance.
#[derive(Debug, Clone, Default)]
pub struct InstanceOptions {
    /// The join token: the credential `driftmark.token`.
    pub token: Option<String>,
    /// The cloud's name for the machine: the credential `driftmark.cloud-id`.
    pub cloud_id: Option<String>,
    /// Other system credentials, name and value.
    pub credentials: Vec<(String, String)>,
    /// What cloud-init finds out about the machine, file name and content: a seed of its datasource `NoCloud`.
    pub seed: Vec<(String, String)>,
    /// Words of its kernel command line; a container has them as the arguments of its process 1.
    pub command_line: Vec<String>,
    /// Files that are on its disk before it boots for the first time, path and content: a cloud's seed, say.
    pub files: Vec<(String, String)>,
}

/// Where an instance is to be.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) lower: PathBuf,
    pub(crate) address: String,
}

/// One machine; dropping it is the power cut.
#[derive(Debug)]
pub struct Instance {
    name: String,
    place: Place,
    directory: PathBuf,
    options: InstanceOptions,
    container: Option<Container>,
    boot_time: Duration,
}

#[derive(Debug)]
struct Container {
    nspawn: Running,
    /// As the sandbox numbers processes.
    nspawn_id: String,
    leader: String,
    groups: Vec<PathBuf>,
}

impl Instance {
    pub(crate) fn boot(place: Place, name: &str, options: &InstanceOptions) -> Result<Self> {
        let directory = place.sandbox.directory().join(format!("instance-{name}"));
        fs::create_dir(&directory)
            .with_context(|| format!("make {}: is the name in use?", directory.display()))?;
        let mut instance = Self {
            name: name.to_owned(),
            place,
            directory,
            options: options.clone(),
            container: None,
            boot_time: Duration::ZERO,
        };
        instance.lay_out()?;
        instance.start()?;
        Ok(instance)
    }

    /// Its name, which is its host name too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the lab's network.
    pub fn address(&self) -> &str {
        &self.place.address
    }

    /// How long its last boot took, until all units were ready.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.container.as_ref().is_some_and(|container| {
            let alive = self
                .place
                .sandbox
                .command("test")
                .args(["-d", &format!("/proc/{}", container.leader)])
                .output();
            alive.is_ok_and(|output| output.status.success())
        })
    }

    /// The root of its file system as this process reaches it: what is written there is written behind its back.
    pub fn root(&self) -> PathBuf {
        self.place.sandbox.path(self.directory.join("root"))
    }

    /// The same as commands of its lab reach it.
    pub fn root_in_lab(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// What it wrote since it was made: the upper layer of its overlay.
    pub fn written(&self) -> PathBuf {
        self.place.sandbox.path(self.directory.join("rw/upper"))
    }

    /// A command on it, with all rights: an intruder's, once in.
    ///
    /// # Errors
    /// It does not run.
    pub fn command(&self, program: &str) -> Result<Command> {
        let container = self
            .container
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?;
        let mut command = self.place.sandbox.command("nsenter");
        command.args(["--target", &container.leader, "--all", "--", program]);
        Ok(command)
    }

    /// A command that sees its files and is no process of it: it neither shows there nor holds up a halt.
    ///
    /// # Errors
    /// It does not run.
    pub fn command_beside(&self, program: &str) -> Result<Command> {
        let container = self
            .container
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?;
        let mut command = self.place.sandbox.command("nsenter");
        command.args(["--target", &container.leader, "--mount", "--", program]);
        Ok(command)
    }

    /// Runs a line of shell on it and gives the standard output.
    ///
    /// # Errors
    /// It does not run, or the line did not end with 0.
    pub fn exec(&self, line: &str) -> Result<String> {
        run(self.command("/bin/sh")?.args(["-euc", line]))
    }

    /// Runs a line of shell on it, whatever it ends with.
    ///
    /// # Errors
    /// It does not run.
    pub fn try_exec(&self, line: &str) -> Result<Output> {
        finish(self.command("/bin/sh")?.args(["-uc", line]))
    }

    /// Asks the agent's health probe as an autoscaler on the machine would; gives the status and the body.
    ///
    /// # Errors
    /// Nothing answers there.
    pub fn probe(&self, path: &str) -> Result<(u16, String)> {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8445; printf 'GET {path} HTTP/1.1\\r\\nHost: probe\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let text = run(self.command("/bin/bash")?.args(["-euc", &ask]))?;
        let (head, body) = text
            .split_once("\r\n\r\n")
            .with_context(|| format!("{text:?} is no answer"))?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok((
            status.with_context(|| format!("{head:?} has no status"))?,
            body.to_owned(),
        ))
    }

    /// Sends the agent a signal by its name (`KILL`, `STOP`), as `systemctl kill` does.
    ///
    /// # Errors
    /// The agent does not run.
    pub fn kill_agent(&self, signal: &str) -> Result<()> {
        self.exec(&format!(
            "systemctl kill --kill-who=main --signal={signal} driftmark-agent.service"
        ))
        .map(drop)
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

    /// What it wrote to its console.
    pub fn console(&self) -> String {
        self.container
            .as_ref()
            .map(|container| container.nspawn.output())
            .unwrap_or_default()
    }

    /// Has it shut down by itself.
    ///
    /// # Errors
    /// It did not, in time.
    pub fn poweroff(&mut self) -> Result<()> {
        self.try_exec("systemctl poweroff")?;
        let code = self.ended()?;
        ensure!(code == Some(0), "{} powered off with {code:?}", self.name);
        Ok(())
    }

    /// Has it shut down and boot again, on the same disk.
    ///
    /// # Errors
    /// It did not, in time.
    pub fn reboot(&mut self) -> Result<()> {
        self.try_exec("systemctl reboot")?;
        let code = self.ended()?;
        ensure!(code == Some(REBOOT), "{} rebooted with {code:?}", self.name);
        self.start()
    }

    /// Ends it as a cloud does, an orderly halt and then the disk is gone.
    ///
    /// # Errors
    /// It did not halt in time; it is gone all the same.
    pub fn terminate(mut self) -> Result<()> {
        let container = self
            .container
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?;
        self.place
            .sandbox
            .shell(&format!("kill -TERM {}", container.nspawn_id))?;
        self.ended().map(drop)
    }

    /// Waits for its container's end and takes that away.
    fn ended(&mut self) -> Result<Option<i32>> {
        let Some(mut container) = self.container.take() else {
            bail!("{} does not run", self.name)
        };
        let status = container.nspawn.wait(HALT_LIMIT);
        self.forget(&container);
        Ok(status?.code())
    }

    /// Makes its disk and its cable.
    fn lay_out(&self) -> Result<()> {
        let (directory, name, address) =
            (self.directory.display(), &self.name, &self.place.address);
        let lower = self.place.lower.display();
        let port = self.port();
        // `nfs_export=on` is what lets a watch on the whole overlay name files.
        self.place.sandbox.shell(&format!(
            "cd '{directory}'; mkdir rw root; mount -t tmpfs -o size={OVERLAY_SIZE},mode=755 tmpfs rw; \
             mkdir rw/upper rw/work; \
             mount -t overlay overlay -o lowerdir='{lower}',upperdir=rw/upper,workdir=rw/work,nfs_export=on root; \
             ip netns add '{name}'; ip -n '{name}' link set lo up; \
             ip link add {port} type veth peer name eth0 netns '{name}'; ip link set {port} master lan up; \
             ip -n '{name}' addr add {address}/24 dev eth0; ip -n '{name}' link set eth0 up; \
             ip -n '{name}' route add default via {}",
            crate::lab::COLLECTOR
        ))?;
        for (path, content) in &self.options.files {
            let target = self.root().join(path.trim_start_matches('/'));
            let parent = target.parent().context("a file is in a directory")?;
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&target, content))
                .with_context(|| format!("write {path} on {}", self.name))?;
        }
        Ok(())
    }

    /// Its end of the cable at the bridge; an interface's name has at most 15 bytes, so by number.
    fn port(&self) -> String {
        format!(
            "port{}",
            self.place.address.rsplit('.').next().unwrap_or_default()
        )
    }

    /// Powers it on and waits until it is up.
    fn start(&mut self) -> Result<()> {
        let start = Instant::now();
        let groups = self.place.groups.for_instance(&self.name)?;
        let socket_path = self.directory.join("notify");
        let _ = fs::remove_file(&socket_path);
        let socket = UnixDatagram::bind(&socket_path).context("make the socket for readiness")?;
        socket
            .set_nonblocking(true)
            .context("make the socket for readiness")?;
        let mut nspawn = Running::start(&self.name, self.nspawn(&groups, &socket_path)?)?;
        let leader = match await_ready(&socket, &mut nspawn) {
            Ok(leader) => leader,
            Err(error) => {
                return Err(error.context(format!(
                    "console of {}:\n{}",
                    self.name,
                    nspawn.output()
                )));
            }
        };
        let nspawn_id = fs::read_to_string(self.directory.join("nspawn.pid"))
            .context("read nspawn's process id")?;
        self.container = Some(Container {
            nspawn,
            nspawn_id: nspawn_id.trim().to_owned(),
            leader,
            groups,
        });
        self.boot_time = start.elapsed();
        Ok(())
    }

    fn nspawn(&self, groups: &[PathBuf], socket: &Path) -> Result<Command> {
        let join: String = groups
            .iter()
            .map(|group| format!("echo 0 > '{}/cgroup.procs'; ", group.display()))
            .collect();
        let id_file = self.directory.join("nspawn.pid");
        // cloud-init looks for its interfaces in /sys, which is to show those of the instance and not of the lab.
        let own_sys = if self.options.seed.is_empty() {
            String::new()
        } else {
            let groups = self.directory.join("groups");
            let (groups, name) = (groups.display(), &self.name);
            format!(
                "nsenter --net='/run/netns/{name}' unshare --mount --propagation private sh -euc \"\
                 mkdir -p '{groups}'; mount --rbind /sys/fs/cgroup '{groups}'; mount -t sysfs sysfs /sys; \
                 mount --rbind '{groups}' /sys/fs/cgroup; exec \\\"\\$@\\\"\" sh "
            )
        };
        let mut command = self.place.sandbox.command("sh");
        command
            .env("NOTIFY_SOCKET", socket)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.args([
            "-euc",
            &format!(
                "{join} echo $$ > '{}'; exec {own_sys}systemd-nspawn \"$@\"",
                id_file.display()
            ),
            "sh",
        ]);
        command.args([
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--notify-ready=yes",
        ]);
        // Nothing of this machine may show in the instance's file system.
        command.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
        command.arg(format!(
            "--directory={}",
            self.directory.join("root").display()
        ));
        command.arg(format!("--machine={}", self.name));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.name));
        command.arg(format!("--system-call-filter={CALLS}"));
        for (name, value) in self.credentials() {
            let file = self.directory.join(format!("credential.{name}"));
            fs::write(&file, value).with_context(|| format!("write {}", file.display()))?;
            command.arg(format!("--load-credential={name}:{}", file.display()));
        }
        let mut words = self.options.command_line.clone();
        if !self.options.seed.is_empty() {
            let seed = self.directory.join("seed");
            fs::create_dir_all(&seed).with_context(|| format!("make {}", seed.display()))?;
            for (name, content) in &self.options.seed {
                fs::write(seed.join(name), content)
                    .with_context(|| format!("write seed {name}"))?;
            }
            command.arg(format!("--bind-ro={}:/run/seed", seed.display()));
            words.push("ds=nocloud;s=/run/seed/".to_owned());
        }
        // What follows is for init; in a container that is where the kernel's command line is looked for.
        if !words.is_empty() {
            command.arg("--").args(words);
        }
        Ok(command)
    }

    fn credentials(&self) -> impl Iterator<Item = (&str, &str)> {
        let token = self
            .options
            .token
            .as_deref()
            .map(|token| ("driftmark.token", token));
        let cloud_id = self
            .options
            .cloud_id
            .as_deref()
            .map(|id| ("driftmark.cloud-id", id));
        let others = self
            .options
            .credentials
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        token.into_iter().chain(cloud_id).chain(others)
    }

    fn forget(&self, container: &Container) {
        for group in &container.groups {
            remove_group(group);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut container) = self.container.take() {
            // The leader is process 1 of the instance: with it, everything in it ends.
            let line = format!(
                "kill -KILL {} {} 2>/dev/null || true",
                container.leader, container.nspawn_id
            );
            let _ = self.place.sandbox.shell(&line);
            let _ = container.nspawn.wait(HALT_LIMIT);
            self.forget(&container);
        }
        let (directory, name, port) = (self.directory.display(), &self.name, self.port());
        let _ = self.place.sandbox.shell(&format!(
            "umount -l '{directory}/root' || true; umount -l '{directory}/rw' || true; \
             ip link del {port} || true; ip netns del '{name}' || true"
        ));
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Reads what nspawn says until the machine is up; gives the process id of its init, as the sandbox numbers it.
fn await_ready(socket: &UnixDatagram, nspawn: &mut Running) -> Result<String> {
    let mut leader = None;
    let mut buffer = [0; 4096];
    until("the instance to be ready", BOOT_LIMIT, || {
        while let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            for line in message.lines() {
                if let Some(id) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    leader = Some(id.to_owned());
                }
                if line == "READY=1" {
                    return leader.clone().context("ready without a leader").map(Some);
                }
            }
        }
        match nspawn.wait(Duration::ZERO) {
            Ok(status) => bail!("nspawn ended with {status}"),
            Err(_) => Ok(None),
        }
    })
}
