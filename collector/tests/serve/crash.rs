//! The collector ends in the middle: what it acknowledged is there, and counts once.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drift::report::{OpenDrift, Report};
use serde_json::json;

use crate::world::{Agent, Remote, drift};

/// A collector in a process of its own.
struct Process {
    child: Child,
    remote: Remote,
}

impl Process {
    fn start(data: &Path, fault: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftmark-collector"));
        command
            .args([
                "serve",
                "--agents",
                "127.0.0.1:0",
                "--operators",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(data);
        command
            .env_remove("DRIFTMARK_FAULT")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(fault) = fault {
            command.env("DRIFTMARK_FAULT", fault);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses: Vec<SocketAddr> = lines
            .map_while(Result::ok)
            .take(6)
            .filter_map(|line| {
                line.split_once("https://")
                    .and_then(|(_, address)| address.parse().ok())
            })
            .collect();
        let remote = Remote::at(data, addresses[0], addresses[1]);
        Process { child, remote }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hundred reports, each opening one drift.
fn reports(agent: &mut Agent) -> Vec<(OpenDrift, Report)> {
    (0..100)
        .map(|number| (drift(number), agent.opening(vec![drift(number)])))
        .collect()
}

async fn open_there(remote: &Remote, agent: &Agent) -> Vec<String> {
    let shown = remote
        .get(&format!(
            "/v1/instances/{}?limit=1000",
            agent.identity.instance
        ))
        .await;
    assert_eq!(
        shown["open"].as_u64().unwrap() as usize,
        shown["drifts"].as_array().unwrap().len()
    );
    shown["drifts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|open| open["id"].as_str().unwrap().to_owned())
        .collect()
}

fn reconnect(remote: &Remote, agent: Agent) -> Agent {
    Agent::new(remote, agent.key, agent.identity)
}

/// Sends until the collector no longer answers; how many it acknowledged.
async fn send_until_silence(agent: &Agent, reports: &[(OpenDrift, Report)]) -> usize {
    for (number, (_, report)) in reports.iter().enumerate() {
        let sent = agent
            .http
            .post(agent.reports_url())
            .json(report)
            .timeout(Duration::from_secs(3))
            .send()
            .await;
        if !sent.is_ok_and(|answer| answer.status().is_success()) {
            return number;
        }
    }
    reports.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_hundred_reports_it_loses_nothing_and_counts_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut process = Process::start(&data, None);
    let mut agent = process.remote.agent("vm-1").await;
    let reports = reports(&mut agent);
    let killer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        process.kill();
        process
    });
    let acknowledged = send_until_silence(&agent, &reports).await;
    drop(killer.await.unwrap());
    resume(&data, agent, &reports, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_write_and_sync_it_had_acknowledged_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut process = Process::start(&data, Some("stop-before-sync:40"));
    let mut agent = process.remote.agent("vm-1").await;
    let reports = reports(&mut agent);
    let acknowledged = send_until_silence(&agent, &reports).await;
    assert!(process.is_stopped());
    assert_eq!(acknowledged, 39, "the fortieth was written and not synced");
    process.kill();
    resume(&data, agent, &reports, acknowledged).await;
}

/// After a restart: all that was acknowledged is there, at most one more is, and sending all again counts each once.
async fn resume(data: &Path, agent: Agent, reports: &[(OpenDrift, Report)], acknowledged: usize) {
    let process = Process::start(data, None);
    let agent = reconnect(&process.remote, agent);
    let there = open_there(&process.remote, &agent).await;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&there.len()),
        "{acknowledged} {}",
        there.len()
    );
    for (open, _) in &reports[..acknowledged] {
        assert!(there.contains(&open.id.to_string()));
    }
    for (_, report) in reports {
        assert_eq!(
            agent.send(report).await.unwrap().acknowledged,
            report.sequence
        );
    }
    assert_eq!(open_there(&process.remote, &agent).await.len(), 100);
    let ledger = process.remote.get("/v1/ledger/verify").await;
    assert_eq!(ledger["holds"], json!(true));
}
