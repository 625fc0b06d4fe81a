//! Receives a distribution; hands on a fleet of its image, the agent from its package, under a real collector.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::{Distribution, Fleet, FleetOptions, Instance, Program, packages, relay};
use serde_json::Value;

/// Who cloud-init makes, and who is made in an image that has none.
const USER: &str = "admin";
/// A boot with cloud-init on two busy cores, and a first scan.
const LIMIT: Duration = Duration::from_secs(180);

/// Whether the image has cloud-init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloudInit {
    /// It sets up a user, keys and the network on the first boot.
    Yes,
    /// The image has all of that already.
    No,
}

/// A fleet, and the key with which its user logs in.
pub(crate) struct Ground {
    /// The fleet.
    pub fleet: Fleet,
    key: String,
}

impl Ground {
    /// Makes it; the agents scan as `scan` says, in the words of their configuration.
    pub(crate) fn new(
        distribution: Distribution,
        cloud_init: CloudInit,
        scan: &str,
    ) -> Result<Self> {
        // A key that many machines trust is no secret: it is known in the image, as everything in this world.
        let key = include_str!("login.key");
        let recipe = distribution
            .recipe("1")
            .agent_package(packages::deb(Program::Agent)?);
        let recipe = match cloud_init {
            CloudInit::Yes => recipe,
            CloudInit::No => recipe
                .step("dpkg --purge cloud-init")
                .step(&format!("useradd --create-home --shell /bin/bash {USER}"))
                .file(&format!("/home/{USER}/.ssh/authorized_keys"), 0o644, public_key())
                // At boot and not by the service itself, which on Ubuntu 24.04 begins with the first login.
                .file(
                    "/usr/lib/systemd/system/host-keys.service",
                    0o644,
                    "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n",
                )
                .file(
                    "/usr/lib/systemd/system/multi-user.target.d/host-keys.conf",
                    0o644,
                    "[Unit]\nWants=host-keys.service\n",
                ),
        };
        let fleet = Fleet::new(&FleetOptions {
            policy: "mode = \"observe\"\n".to_owned(),
            agent: format!("[scan]\n{scan}\n"),
            recipe: Some(recipe),
            ..FleetOptions::default()
        })?;
        if cloud_init == CloudInit::Yes {
            fleet.cloud.set_seed(seed);
        }
        relay::open(&fleet.lab)?;
        let file = fleet.lab.directory().join("login.key");
        std::fs::write(&file, key).context("write the key")?;
        run(std::process::Command::new("chmod").arg("600").arg(&file))?;
        Ok(Self {
            fleet,
            key: file.display().to_string(),
        })
    }

    /// Does something on a machine.
    pub(crate) fn with<T>(
        &self,
        vm: &str,
        act: impl FnOnce(&mut Instance) -> Result<T>,
    ) -> Result<T> {
        self.fleet.cloud.with(vm, act)
    }

    /// Waits until a machine is up, everything on it works, and the collector holds it to be clean.
    pub(crate) fn settle(&self, vm: &str) -> Result<()> {
        let up = until(&format!("{vm} to be up"), LIMIT, || {
            let state = self.with(vm, |machine| {
                machine.try_exec("systemctl is-system-running; systemctl --failed --no-legend")
            })?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            ensure!(!state.starts_with("degraded"), "{vm}: {state}");
            Ok(state.starts_with("running").then_some(()))
        });
        up.and_then(|()| self.fleet.wait_for(vm, "clean", LIMIT))
            .with_context(|| self.says(vm))
            .map(drop)
    }

    /// Fails if anything has drifted on a machine, with all of it.
    pub(crate) fn is_clean(&self, vm: &str, when: &str) -> Result<()> {
        let id = self.id(vm)?;
        let open = self.fleet.open_paths(&id)?;
        let check = self.with(vm, |machine| {
            machine.try_exec("driftmark-agent check --json")
        })?;
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        ensure!(
            open.is_empty() && check.status.code() == Some(0),
            "{vm} {when}: open at the collector {open:?}; a check said {:?}\n{said}{}",
            check.status.code(),
            String::from_utf8_lossy(&check.stderr)
        );
        Ok(())
    }

    /// Waits until the first boot is over and the collector holds what it left.
    pub(crate) fn wait_for_held(&self, vm: &str) -> Result<()> {
        let query = format!(
            "SELECT count(*) FROM held JOIN instances ON held.instance = instances.row WHERE instances.cloud_id = '{vm}'"
        );
        until(&format!("values of {vm} to be held"), LIMIT, || {
            let rows = self.fleet.collector.database(&query)?;
            let count: u64 = rows.first().and_then(|row| row.parse().ok()).unwrap_or(0);
            Ok((count > 0).then_some(()))
        })
    }

    /// Waits for a scan that begins after this, and for the collector to have heard of it.
    pub(crate) fn scanned_again(&self, vm: &str) -> Result<()> {
        let asked = Instant::now();
        until(&format!("{vm} to be scanned again"), LIMIT, || {
            let text = self.with(vm, |machine| machine.exec("driftmark-agent status --json"))?;
            let status: Value = serde_json::from_str(&text).context("read the agent's status")?;
            let scans = ["seen", "quick"].map(|scan| &status["coverage"][scan]);
            let since = asked.elapsed();
            let is_new = scans.iter().any(|scan| {
                let age = scan["age_seconds"].as_u64().map(Duration::from_secs);
                let took = scan["took_milliseconds"]
                    .as_u64()
                    .map(Duration::from_millis);
                // An age is in whole seconds.
                let second = Duration::from_secs(1);
                age.zip(took)
                    .is_some_and(|(age, took)| age + took + second < since)
            });
            Ok((is_new && status["waiting_reports"] == 0).then_some(()))
        })
    }

    /// The collector's id of a machine.
    pub(crate) fn id(&self, vm: &str) -> Result<String> {
        self.fleet.id(vm)
    }

    /// Logs in over the network, runs a line in an interactive shell, and logs out.
    pub(crate) fn log_in(&self, vm: &str, line: &str) -> Result<String> {
        let address = self.with(vm, |machine| Ok(machine.address().to_owned()))?;
        let mut ssh = self.fleet.lab.command("ssh");
        ssh.args(["-i", &self.key, "-tt", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        ssh.arg(format!("{USER}@{address}"));
        ssh.arg(format!("bash -lic {}", shell_word(line)));
        run(&mut ssh).with_context(|| format!("log in on {vm}"))
    }

    fn says(&self, vm: &str) -> String {
        let shown = self.id(vm).and_then(|id| self.fleet.show(&id));
        let machine = self.with(vm, |machine| {
            machine.exec(
                "journalctl --no-pager --boot --unit=driftmark-agent | tail -30; \
                 systemctl list-jobs --no-legend | head; driftmark-agent check --json || true",
            )
        });
        format!(
            "{shown:#?}\n{}",
            machine.unwrap_or_else(|error| format!("{error:#}"))
        )
    }
}

/// A line as one word of shell.
fn shell_word(line: &str) -> String {
    format!("'{}'", line.replace('\'', "'\\''"))
}

fn public_key() -> &'static str {
    include_str!("login.key.pub")
}

/// What a cloud tells cloud-init about a machine: its name, its network, its user.
fn seed(vm: &str) -> Vec<(String, String)> {
    let file = |name: &str, content: String| (name.to_owned(), content);
    vec![
        file(
            "meta-data",
            format!("instance-id: {vm}\nlocal-hostname: {vm}\n"),
        ),
        file(
            "user-data",
            format!(
                "#cloud-config\nlocale: C.UTF-8\nsystem_info:\n  default_user: {{name: {USER}}}\nssh_authorized_keys:\n  - {}\n",
                public_key().trim()
            ),
        ),
        // The lab has wired it already, as a cloud's own DHCP would.
        file("network-config", "network: {config: disabled}\n".to_owned()),
    ]
}
