//! The collector is killed in the middle of a hundred reports, at any moment and at the worst one: what it acknowledged it
//! has, and what it has it has once.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drift::report::ImageRef;
use driftmark_tests::patience::until;
use driftmark_tests::{Collector, CollectorOptions, Sender, Tree};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::{LIMIT, OBSERVED_FLEETS};

const SENDERS: usize = 10;
const REPORTS: u64 = 10;
/// Between two tries to reach a collector that is away.
const PAUSE: Duration = Duration::from_millis(20);

/// Ten instances that send ten reports each, one after the other, each until it is acknowledged.
struct Crowd {
    collector: Collector,
    runtime: Runtime,
    members: Vec<Arc<Member>>,
    /// Whether those who got no answer may try again.
    go: watch::Sender<bool>,
    sending: JoinSet<()>,
}

struct Member {
    id: String,
    sender: Mutex<Sender>,
    acknowledged: watch::Sender<u64>,
}

#[test]
fn a_collector_that_is_killed_among_a_hundred_reports_loses_and_doubles_nothing() -> Result<()> {
    let mut crowd = Crowd::enrol(Vec::new())?;
    crowd.begin();
    for share in [15, 45, 75] {
        crowd.wait_for(share)?;
        crowd.go.send_replace(false);
        crowd.collector.kill_hard()?;
        crowd.collector.start()?;
        crowd.has_what_was_acknowledged()?;
        crowd.go.send_replace(true);
    }
    crowd.has_everything_once()
}

#[test]
fn a_collector_that_stops_between_write_and_sync_has_acknowledged_nothing_of_it() -> Result<()> {
    let fault = (
        "DRIFTMARK_FAULT".to_owned(),
        "stop-before-sync:5".to_owned(),
    );
    let mut crowd = Crowd::enrol(vec![fault])?;
    crowd.begin();
    let process = format!("/proc/{}/status", crowd.collector.id()?);
    until("the collector to stop", LIMIT, || {
        let status = fs::read_to_string(&process).context("read the collector's state")?;
        Ok(status.contains("State:\tT").then_some(()))
    })?;
    ensure!(
        crowd.collector.output().contains("between write and sync"),
        "it stopped where it should"
    );
    let acknowledged = crowd.acknowledged();
    ensure!(
        acknowledged < SENDERS as u64 * REPORTS,
        "it stopped in the middle: {acknowledged}"
    );
    crowd.go.send_replace(false);
    crowd.collector.kill_hard()?;
    crowd.collector.set_environment(Vec::new());
    crowd.collector.start()?;
    crowd.has_what_was_acknowledged()?;
    crowd.go.send_replace(true);
    crowd.has_everything_once()
}

impl Crowd {
    fn enrol(environment: Vec<(String, String)>) -> Result<Self> {
        let configuration = "heartbeat = \"60s\"\n".to_owned();
        let collector = Collector::here(CollectorOptions {
            fleets: OBSERVED_FLEETS.to_owned(),
            configuration,
            environment,
        })?;
        Tree::new("web", "1")?.register(&collector)?;
        let image = image(&collector)?;
        let runtime = Runtime::new().context("start a runtime")?;
        let enrol = |number| {
            let cloud_id = format!("vm-{number}");
            let token = collector.join_token("web", Some(&cloud_id))?;
            let sender = runtime.block_on(Sender::enrol(&collector, &token, &cloud_id, &image))?;
            let member = Member {
                id: sender.id.clone(),
                sender: Mutex::new(sender),
                acknowledged: watch::Sender::new(0),
            };
            Ok(Arc::new(member))
        };
        let members = (0..SENDERS).map(enrol).collect::<Result<_>>()?;
        Ok(Self {
            collector,
            runtime,
            members,
            go: watch::Sender::new(true),
            sending: JoinSet::new(),
        })
    }

    fn begin(&mut self) {
        for member in &self.members {
            let (member, go) = (Arc::clone(member), self.go.subscribe());
            self.sending
                .spawn_on(member.send_all(go), self.runtime.handle());
        }
    }

    fn acknowledged(&self) -> u64 {
        self.members
            .iter()
            .map(|member| *member.acknowledged.borrow())
            .sum()
    }

    fn wait_for(&self, acknowledged: u64) -> Result<()> {
        until("reports to be acknowledged", LIMIT, || {
            Ok((self.acknowledged() >= acknowledged).then_some(()))
        })
    }

    /// While everybody waits: a collector that just started has every report that was acknowledged by the one before.
    fn has_what_was_acknowledged(&self) -> Result<()> {
        for member in &self.members {
            let acknowledged = *member.acknowledged.borrow();
            let shown = self
                .collector
                .json(["instance", "show", &member.id, "--limit", "1000"])?;
            let has = shown["sequence"].as_u64().unwrap_or(0);
            ensure!(
                has >= acknowledged,
                "{} has {has} of {acknowledged} that were acknowledged",
                member.id
            );
            // A report is there as a whole or not at all.
            assert_eq!(shown["open"], has, "a drift for each report: {shown:#}");
            assert_eq!(
                shown["moments"].as_array().map(Vec::len),
                usize::try_from(has).ok(),
                "a moment for each"
            );
        }
        Ok(())
    }

    fn has_everything_once(&mut self) -> Result<()> {
        let sending = async {
            while let Some(sent) = self.sending.join_next().await {
                sent?;
            }
            Ok::<_, anyhow::Error>(())
        };
        self.runtime
            .block_on(async { tokio::time::timeout(LIMIT, sending).await })??;
        for member in &self.members {
            let shown = self
                .collector
                .json(["instance", "show", &member.id, "--limit", "1000"])?;
            let sender = member.sender.blocking_lock();
            assert_eq!(shown["sequence"], REPORTS);
            assert_eq!(shown["open"], sender.open_count());
            assert_eq!(shown["set_digest"], sender.set_digest().to_string());
            for list in ["moments", "drifts"] {
                let entries = shown[list].as_array().context("a list")?;
                let paths: BTreeSet<_> = entries
                    .iter()
                    .map(|entry| entry["drift"]["path"].to_string())
                    .collect();
                assert_eq!(
                    (entries.len() as u64, paths.len() as u64),
                    (REPORTS, REPORTS),
                    "{list} of {}",
                    member.id
                );
            }
        }
        let verified = self.collector.json(["ledger", "verify"])?;
        ensure!(verified["holds"] == true, "{verified}");
        Ok(())
    }
}

impl Member {
    async fn send_all(self: Arc<Self>, mut go: watch::Receiver<bool>) {
        let mut sender = self.sender.lock().await;
        for _ in 0..REPORTS {
            let made = sender.make();
            loop {
                // Whoever decides to go on is there as long as the story is.
                let _ = go.wait_for(|go| *go).await;
                if let Ok(verdict) = sender.send(&made).await {
                    assert_eq!(
                        verdict.acknowledged, made.sequence,
                        "the collector acknowledges what it was sent"
                    );
                    self.acknowledged.send_replace(made.sequence);
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The one image that is registered.
fn image(collector: &Collector) -> Result<ImageRef> {
    let listed = collector.json(["image", "list"])?;
    let build = &listed[0];
    let text = |key: &str| {
        build[key]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("`{key}` in {listed}"))
    };
    let manifest = text("blake3")?
        .parse()
        .map_err(|error| anyhow::anyhow!("read the digest: {error}"))?;
    Ok(ImageRef {
        name: text("name")?,
        version: text("version")?,
        build: text("build")?,
        manifest,
    })
}
