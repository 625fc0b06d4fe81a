//! The daemon between scans: what changes is reported as it happens, with who did it.

use std::process::Command;

use drift::attribution::{Attribution, Confidence};
use drift::coverage::{Gap, GapReason};
use drift::finding::DriftKind;
use drift::report::{OpenDrift, Report};
use nix::sys::signal::Signal;

use crate::instance::{Instance, Running};
use crate::loopback::{Loopback, eventually};

/// An instance whose scans are an hour apart, once it is watched and its first scan has ended.
fn watched(collector: &Loopback, more: &str) -> (Instance, Running) {
    let instance = Instance::new(&collector.token());
    let running = watch(&instance, more);
    (instance, running)
}

fn watch(instance: &Instance, more: &str) -> Running {
    let config = std::fs::read_to_string(instance.path("agent.toml")).unwrap();
    let config = config.replace("quick-interval = \"1s\"", "quick-interval = \"1h\"");
    std::fs::write(instance.path("agent.toml"), format!("{config}{more}")).unwrap();
    instance.bake();
    let running = instance.start();
    eventually("the watch and the first scan", || {
        let status = instance.try_status()?;
        let is_watched = instance.log().contains("the watch begins");
        (is_watched && status["phase"] == "running").then_some(())
    });
    running
}

fn reports(collector: &Loopback) -> Vec<Report> {
    let world = collector.world.lock().unwrap();
    let reports = world.reports.iter();
    reports.map(|(report, _)| report.clone()).collect()
}

/// A drift, with who did it: a pass may have told it before, and then it is told again.
fn opened(collector: &Loopback, path: &str) -> (OpenDrift, Attribution) {
    collector.wait_for(path, |world| {
        let mut opened = world.reports.iter().flat_map(|(report, _)| &report.opened);
        opened.find_map(|open| {
            let by = open.drift.attribution.as_deref()?;
            (open.drift.path.to_text() == path).then(|| (open.clone(), by.clone()))
        })
    })
}

fn sh(instance: &Instance, script: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-euc", script]);
    let status = shell.current_dir(instance.path("root")).status().unwrap();
    assert!(status.success(), "{script}");
}

fn program(of: &Attribution) -> Option<&str> {
    let executable = of.process.as_ref()?.executable.as_ref()?;
    Some(&executable.path)
}

#[test]
fn a_change_is_reported_between_scans_with_who_did_it_and_closed_when_it_is_put_back() {
    let collector = Loopback::start();
    let (instance, running) = watched(&collector, "");
    // One that lives on, so that all can be told of it.
    sh(
        &instance,
        "echo pwned > etc/motd; echo new > etc/cron; chmod 600 etc/cron; exec 3> etc/held; sleep 1; : --token s3cret",
    );
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    for (path, kind) in [
        ("/etc/motd", DriftKind::Changed),
        ("/etc/held", DriftKind::Added),
    ] {
        let (open, by) = opened(&collector, path);
        assert_eq!(open.drift.kind, kind, "{path}");
        assert_eq!(by.confidence, Confidence::Certain, "{by:?}");
        assert_eq!(program(&by), shell.to_str(), "{by:?}");
        let told = by.process.unwrap().command_line.unwrap();
        assert!(
            told.contains("etc/motd") && !told.contains("s3cret"),
            "{told}"
        );
    }
    let motd = opened(&collector, "/etc/motd").0.id;
    sh(&instance, "echo welcome > etc/motd");
    collector.wait_for("it to be closed", |world| {
        let mut closed = world.reports.iter().flat_map(|(report, _)| &report.closed);
        closed.find(|id| **id == motd).copied()
    });
    // Others on this machine may have made more events than there is room for: then a quick scan has the last word.
    eventually("the watch to have seen all", || {
        let status = instance.try_status()?;
        status["coverage"]["limits"].is_null().then_some(())
    });
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_daemon_that_was_stopped_under_a_storm_ends_in_what_is_there_and_says_that_it_was_blind() {
    let collector = Loopback::start();
    let (instance, running) = watched(&collector, "");
    running.signal(Signal::SIGSTOP);
    let most = std::fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    let root = instance.path("root");
    std::fs::create_dir(root.join("many")).unwrap();
    for nth in 0..most + 1000 {
        std::fs::write(root.join(format!("many/{nth}")), "").unwrap();
    }
    for nth in 0..most + 1000 {
        std::fs::remove_file(root.join(format!("many/{nth}"))).unwrap();
    }
    std::fs::write(root.join("etc/left"), "").unwrap();
    running.signal(Signal::SIGCONT);
    let is_exact = |report: &Report| report.open_count == 2;
    collector.wait_for("what is left of the storm", |world| {
        let (last, _) = world.reports.last()?;
        let opened = |path: &str| {
            let mut opened = world.reports.iter().flat_map(|(report, _)| &report.opened);
            opened.any(|open| open.drift.path.to_text() == path)
        };
        let note = |note: &String| note.contains("was blind for");
        let is_said = last.coverage.notes.iter().any(note) && last.coverage.limits.is_empty();
        (is_exact(last) && is_said && opened("/many") && opened("/etc/left")).then_some(())
    });
    drop(running);
}

/// A file system of the instance's image, on a disk of its own, until the end of the test.
struct Mounted<'i>(&'i Instance);

impl Mounted<'_> {
    fn on(instance: &Instance) -> Mounted<'_> {
        let script = "mkdir boot; truncate -s 8M ../disk; mkfs.ext4 -qF ../disk; mount -o loop ../disk boot; \
            echo kernel > boot/kernel; echo '/dev/vdb1 /boot ext4 defaults 0 2' > etc/fstab";
        let mounted = Mounted(instance);
        sh(instance, script);
        mounted
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let unmount = unmount.args(["--quiet", "--lazy"]);
        let _ = unmount.arg(self.0.path("root/boot")).status();
    }
}

#[test]
fn a_file_system_that_is_unmounted_under_it_is_said_to_be_missing_and_nothing_of_it_to_be_gone() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let mounted = Mounted::on(&instance);
    let running = watch(&instance, "");
    sh(&instance, "echo other > boot/kernel");
    let (open, _) = opened(&collector, "/boot/kernel");
    assert_eq!(open.drift.kind, DriftKind::Changed);
    drop(mounted);
    let last = collector.wait_for("what is missing", |world| {
        let (last, _) = world.reports.last()?;
        let gap =
            |gap: &Gap| gap.path.to_text() == "/boot" && gap.reason == GapReason::FilesystemMissing;
        last.coverage.gaps.iter().any(gap).then(|| last.clone())
    });
    assert_eq!(last.coverage.gap_count, 1, "{:?}", last.coverage);
    let told = reports(&collector);
    let mut opened = told.iter().flat_map(|report| &report.opened);
    let is_gone = |open: &OpenDrift| open.drift.kind == DriftKind::Removed;
    assert!(!opened.any(is_gone), "a gap is no drift");
    drop(running);
}

#[test]
fn as_little_is_told_as_is_configured() {
    let collector = Loopback::start();
    let more = "[attribution]\ncommand-line = \"none\"\n";
    let (instance, running) = watched(&collector, more);
    sh(&instance, "echo pwned > etc/motd; sleep 1; :");
    let (_, by) = opened(&collector, "/etc/motd");
    assert_eq!(by.process.unwrap().command_line, None);
    drop(running);

    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let config = std::fs::read_to_string(instance.path("agent.toml")).unwrap();
    let config = format!("{config}[watch]\nenabled = false\n");
    std::fs::write(instance.path("agent.toml"), config).unwrap();
    instance.bake();
    let running = instance.start();
    collector.wait_for("a limit", |world| {
        let mut limits = world
            .reports
            .iter()
            .flat_map(|(report, _)| &report.coverage.limits);
        limits
            .find(|limit| limit.contains("watch.enabled"))
            .cloned()
    });
    std::fs::write(instance.path("root/etc/motd"), "pwned").unwrap();
    let found = collector.wait_for("a scan to find it", |world| {
        let mut opened = world.reports.iter().flat_map(|(report, _)| &report.opened);
        let is_it = |open: &&OpenDrift| open.drift.path.to_text() == "/etc/motd";
        opened.find(is_it).cloned()
    });
    assert_eq!(found.drift.attribution, None, "a scan cannot know");
    assert_eq!(running.stop(), Some(0));
    assert!(
        reports(&collector)
            .iter()
            .all(|report| report.moments.is_empty())
    );
}

#[test]
fn what_no_event_tells_is_reported_by_a_sweep_of_the_processes_and_its_age_is_said() {
    let collector = Loopback::start();
    let instance = Instance::new(&collector.token());
    let config = std::fs::read_to_string(instance.path("agent.toml")).unwrap();
    let config = config.replace("process-interval = \"off\"", "process-interval = \"1s\"");
    let config = config.replace("quick-interval = \"1s\"", "quick-interval = \"1h\"");
    std::fs::write(instance.path("agent.toml"), config).unwrap();
    instance.bake();
    let running = instance.start();
    eventually("a sweep", || {
        let status = instance.try_status()?;
        let processes = &status["coverage"]["processes"];
        (processes["processes"].as_u64()? > 0 && processes["age_seconds"].as_u64()? < 30)
            .then_some(())
    });
    let program = instance.path("root").join("etc/brought");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut runs = Command::new(&program).arg("1000").spawn().unwrap();
    std::fs::remove_file(&program).unwrap();
    let told = collector.wait_for("what runs and is gone", |world| {
        let mut moments = world.reports.iter().flat_map(|(report, _)| &report.moments);
        let is_deleted = |detail: &String| detail.contains("the file was deleted");
        moments
            .find(|moment| moment.drift.detail.as_ref().is_some_and(is_deleted))
            .cloned()
    });
    assert_eq!(told.drift.kind, DriftKind::Executed);
    assert_eq!(told.drift.path.to_text(), "/etc/brought");
    let by = told.drift.attribution.unwrap().process.unwrap();
    assert_eq!(by.pid, runs.id());
    collector.wait_for("the age in a report", |world| {
        let (last, _) = world.reports.last()?;
        last.coverage.processes.as_ref().map(|_| ())
    });
    runs.kill().unwrap();
    runs.wait().unwrap();
    assert_eq!(running.stop(), Some(0));
}
