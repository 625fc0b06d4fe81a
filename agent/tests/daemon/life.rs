//! The real daemon against a real TLS server: it enrols by itself, reports what drifts, renews, and says goodbye.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::loopback::{Loopback, pause};
use drift::finding::DriftKind;
use drift::report::{ExecutingOrder, Phase, Report, StateUpdate};
use driftmark_agent::identity::Store;

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_driftmark-agent");

/// An instance: a tree, its image, and the agent's own files.
pub(crate) struct Instance {
    home: tempfile::TempDir,
    probe: SocketAddr,
}

pub(crate) struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Instance {
    pub(crate) fn new(token: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let probe = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let instance = Instance { home, probe };
        std::fs::create_dir_all(instance.path("root/etc")).unwrap();
        std::fs::write(instance.path("root/etc/motd"), "welcome\n").unwrap();
        std::fs::write(instance.path("token"), token).unwrap();
        let config = format!(
            "root = \"{home}/root\"\nstate-directory = \"{home}/state\"\nstatus-socket = \"{home}/agent.sock\"\n\
             [enroll]\ntoken-file = \"{home}/token\"\n[scan]\nquick-interval = \"1s\"\nfirst-boot-window = \"0s\"\n\
             [image]\nmanifest = \"{home}/image/image.manifest\"\ntrust = [\"{home}/keys/driftmark.pub\"]\n\
             [probe]\nlisten = \"{probe}\"\n",
            home = instance.home.path().display(),
        );
        std::fs::write(instance.path("agent.toml"), config).unwrap();
        instance
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn bake(&self) {
        let home = self.home.path();
        agent(home, &["keygen", "--output", "keys"]);
        let key = ["--key", "keys/driftmark.key"];
        agent(
            home,
            &[
                &[
                    "bake",
                    "--root",
                    "root",
                    "--name",
                    "web",
                    "--version",
                    "1",
                    "--output",
                    "image",
                    "--rules",
                    "none",
                ][..],
                &key,
            ]
            .concat(),
        );
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    fn start_with(&self, surroundings: &[(&str, &str)]) -> Running {
        let mut command = Command::new(AGENT);
        command
            .env_remove("NOTIFY_SOCKET")
            .envs(surroundings.iter().copied());
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("agent.toml"));
        command.stderr(
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(self.path("log"))
                .unwrap(),
        );
        Running {
            child: command.spawn().unwrap(),
        }
    }

    /// The status, if the agent answers yet.
    pub(crate) fn try_status(&self) -> Option<serde_json::Value> {
        let mut command = Command::new(AGENT);
        command
            .args(["status", "--json", "--socket"])
            .arg(self.path("agent.sock"));
        serde_json::from_slice(&command.output().unwrap().stdout).ok()
    }

    /// The status as people see it.
    pub(crate) fn shown_status(&self) -> String {
        let mut command = Command::new(AGENT);
        command
            .args(["status", "--socket"])
            .arg(self.path("agent.sock"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let socket = self.path("agent.sock");
        let output = Command::new(AGENT)
            .args(["status", "--json", "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn health(&self) -> (u16, String) {
        let mut stream = TcpStream::connect(self.probe).unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }
}

impl Running {
    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap().code()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

fn agent(directory: &Path, arguments: &[&str]) {
    let output = Command::new(AGENT)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn drifted(report: &Report, path: &str) -> bool {
    report
        .opened
        .iter()
        .any(|open| open.drift.path.to_text() == path)
}

#[test]
fn the_daemon_enrols_reports_drift_renews_and_says_goodbye() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();

    let whole = collector.wait_for("the first whole set", |world| {
        world
            .reports
            .iter()
            .map(|(report, _)| report)
            .find(|report| report.states == StateUpdate::Whole)
            .cloned()
    });
    assert_eq!(
        (whole.phase, whole.open_count, whole.opened.len()),
        (Phase::Running, 0, 0)
    );
    assert_eq!(whole.image.as_ref().unwrap().name, "web");
    assert!(whole.coverage.seen.is_some());
    assert_eq!(
        collector.world.lock().unwrap().enrol_requests[0].image,
        whole.image
    );
    assert_eq!(instance.health().0, 200);

    std::fs::write(instance.path("root/etc/motd"), "pwned\n").unwrap();
    std::fs::write(instance.path("root/etc/cron"), "* * * * *\n").unwrap();
    let change = collector.wait_for("the drift", |world| {
        world
            .reports
            .iter()
            .map(|(report, _)| report)
            .find(|report| drifted(report, "/etc/motd"))
            .cloned()
    });
    assert_eq!(change.states, StateUpdate::Change);
    collector.wait_for("the other drift", |world| {
        world
            .reports
            .iter()
            .find(|(report, _)| drifted(report, "/etc/cron"))
            .map(drop)
    });
    assert!(
        change
            .opened
            .iter()
            .any(|open| open.drift.kind == DriftKind::Changed)
    );
    assert_eq!(
        instance.health().0,
        200,
        "drift alone is the collector's matter"
    );

    let order = ExecutingOrder {
        id: "o-1".into(),
        replacer: "probe".into(),
        reason: "drifted".into(),
    };
    collector.world.lock().unwrap().order = Some(order);
    let mut turns = 0;
    while instance.health().0 != 503 && turns < 1000 {
        pause();
        turns += 1;
    }
    assert!(instance.health().1.contains("o-1"));
    collector.world.lock().unwrap().order = None;

    let status = instance.status();
    assert_eq!(status["instance"], "i-00000000000000000000000000000001");
    assert_eq!(
        (status["phase"].as_str(), status["fleet"].as_str()),
        (Some("running"), Some("web"))
    );
    assert!(status["open_drifts"].as_u64().unwrap() >= 2, "{status}");

    assert_eq!(running.stop(), Some(0));
    let world = collector.world.lock().unwrap();
    let (last, _) = world.reports.last().unwrap();
    assert_eq!(last.phase, Phase::Stopped);
    let numbers: Vec<u64> = world
        .reports
        .iter()
        .map(|(report, _)| report.sequence)
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn a_killed_daemon_finds_on_its_next_start_what_changed_while_it_was_down() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let mut running = instance.start();
    let first = collector.wait_for("the first whole set", |world| {
        world
            .reports
            .iter()
            .map(|(report, _)| report)
            .find(|report| report.states == StateUpdate::Whole)
            .cloned()
    });
    running.child.kill().unwrap();
    drop(running);
    std::fs::remove_file(instance.path("root/etc/motd")).unwrap();
    let running = instance.start();
    let second = collector.wait_for("the second run", |world| {
        let mut reports = world.reports.iter().map(|(report, _)| report);
        reports
            .find(|report| report.run != first.run && report.states == StateUpdate::Whole)
            .cloned()
    });
    assert_eq!(second.previous_run, Some(first.run));
    assert!(drifted(&second, "/etc/motd"));
    assert_eq!(
        collector.world.lock().unwrap().enrol_requests.len(),
        1,
        "enrolled once"
    );
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn certificates_are_renewed_and_used_without_a_restart() {
    let collector = Loopback::start();
    {
        let mut world = collector.world.lock().unwrap();
        world.life = Duration::from_secs(3600);
        world.renew_after_seconds = 5;
    }
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();
    let first = collector.wait_for("a report", |world| {
        world.reports.first().map(|(_, peer)| peer.clone())
    });
    let (request, peer) =
        collector.wait_for("a renewal", |world| world.renew_requests.first().cloned());
    assert_eq!(
        (request.expired, peer),
        (None, Some(first.clone())),
        "by the certificate that it had"
    );
    collector.wait_for("a report by the new certificate", |world| {
        world
            .reports
            .iter()
            .find(|(_, peer)| *peer != first)
            .map(drop)
    });
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn an_expired_certificate_is_renewed_by_showing_it() {
    let collector = Loopback::start();
    collector.world.lock().unwrap().life = Duration::from_secs(2);
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();
    collector.wait_for("a report", |world| world.reports.first().map(drop));
    assert_eq!(running.stop(), Some(0));
    let ended = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < ended {
        pause();
    }
    {
        let mut world = collector.world.lock().unwrap();
        world.life = Duration::from_secs(3600);
        world.reports.clear();
        world.renew_requests.clear();
    }
    let running = instance.start();
    let (request, peer) =
        collector.wait_for("a renewal", |world| world.renew_requests.first().cloned());
    let expired = request.expired.unwrap();
    assert_eq!(
        (expired.matches("BEGIN CERTIFICATE").count(), peer),
        (1, None)
    );
    collector.wait_for("a report by the new certificate", |world| {
        world.reports.first().map(drop)
    });
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn an_instance_without_a_manifest_says_so_and_stays_healthy() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let running = instance.start();
    let report = collector.wait_for("a report", |world| {
        world.reports.first().map(|(report, _)| report.clone())
    });
    assert_eq!(
        (report.phase, report.image.clone()),
        (Phase::Starting, None)
    );
    assert!(report.unverifiable.is_some(), "{report:?}");
    let (status, body) = instance.health();
    assert_eq!(status, 200);
    assert!(body.contains("cannot verify itself"), "{body}");
    instance.bake();
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_lost_collector_stops_neither_the_scans_nor_the_reports() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();
    collector.wait_for("the first whole set", |world| {
        world
            .reports
            .iter()
            .find(|(report, _)| report.states == StateUpdate::Whole)
            .map(drop)
    });
    let away = drift::enrolment::Refusal {
        code: "busy".into(),
        message: "come back later".into(),
    };
    collector.world.lock().unwrap().refuse = Some((hyper::StatusCode::TOO_MANY_REQUESTS, away));
    std::fs::write(instance.path("root/etc/new"), "x").unwrap();
    let mut turns = 0;
    let waits =
        |status: serde_json::Value| status["open_drifts"] != 0 && status["waiting_reports"] != 0;
    while !waits(instance.status()) {
        assert!(turns < 500, "the drift was never found");
        pause();
        turns += 1;
    }
    assert_eq!(running.stop(), Some(0));
    collector.world.lock().unwrap().refuse = None;
    let running = instance.start();
    let report = collector.wait_for("the report that waited", |world| {
        world
            .reports
            .iter()
            .map(|(report, _)| report)
            .find(|report| drifted(report, "/etc/new"))
            .cloned()
    });
    assert_eq!(
        report.states,
        StateUpdate::Change,
        "it comes before the new run's whole set"
    );
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_bad_configuration_ends_with_78_and_says_what_to_do() {
    for arguments in [&["run", "--config"][..], &["check-config"]] {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/bad-config/unknown-key/misspelt.toml"
        );
        let output = Command::new(AGENT)
            .args(arguments)
            .arg(file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&output.stderr).contains("full-intervall"));
    }
}

#[test]
fn a_key_that_others_can_read_ends_with_78() {
    use std::os::unix::fs::PermissionsExt as _;
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let running = instance.start();
    collector.wait_for("a report", |world| world.reports.first().map(drop));
    assert_eq!(running.stop(), Some(0));
    let key = instance.path("state/identity/instance.key");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut running = instance.start();
    assert_eq!(running.child.wait().unwrap().code(), Some(78));
    assert!(
        std::fs::read_to_string(instance.path("log"))
            .unwrap()
            .contains("chmod 600")
    );
}

#[test]
fn systemd_hears_ready_before_the_first_scan_then_the_watchdog_and_the_end() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let socket = instance.path("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let running = instance.start_with(&[
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "2000000"),
    ]);
    let mut heard = Vec::new();
    let mut hear_until = |word: &str| {
        let mut buffer = [0; 4096];
        while !heard.iter().any(|text: &String| text.starts_with(word)) {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{word}: {error}, after {heard:?}"));
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    };
    for word in ["READY=1", "STATUS=", "WATCHDOG=1"] {
        hear_until(word);
    }
    running.signal(nix::sys::signal::Signal::SIGHUP);
    assert!(instance.status()["version"].is_string(), "it goes on");
    let code = running.stop();
    hear_until("STOPPING=1");
    assert_eq!((code, heard[0].trim()), (Some(0), "READY=1"));
}

#[test]
fn an_identity_that_an_operator_replaces_is_picked_up() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    instance.bake();
    let running = instance.start();
    let first = collector.wait_for("a report", |world| {
        world.reports.first().map(|(_, peer)| peer.clone())
    });
    let store = Store::open(&instance.path("state")).unwrap();
    let identity = collector
        .world
        .lock()
        .unwrap()
        .issue(&store.key().unwrap().request().unwrap());
    std::fs::write(instance.path("state/identity/instance.pem"), "half a fi").unwrap();
    std::fs::write(
        instance.path("state/identity/instance.pem"),
        identity.certificate,
    )
    .unwrap();
    collector.wait_for("a report by the new certificate", |world| {
        world
            .reports
            .iter()
            .find(|(_, peer)| *peer != first)
            .map(drop)
    });
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_second_agent_is_kept_out_of_the_state_directory() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let first = instance.start();
    collector.wait_for("a report", |world| world.reports.first().map(drop));
    let mut second = instance.start();
    assert_eq!(second.child.wait().unwrap().code(), Some(75));
    assert_eq!(first.stop(), Some(0));
}
