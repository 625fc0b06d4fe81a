//! The real daemon against a real TLS server: it enrols by itself, reports what drifts, renews, and says goodbye.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::instance::{AGENT, Instance};
use crate::loopback::{Loopback, pause};
use drift::finding::DriftKind;
use drift::report::{ExecutingOrder, Phase, Report, StateUpdate};
use driftmark_agent::identity::Store;

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
