//! Receives a fleet with an intruder in it; hands on what happens there, in the order in which it happens.
//!
//! Sources are asked again and again, so what one tells may be older than what another told before: a line is shown once
//! nothing older can come.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use driftmark_tests::cloud::now;
use driftmark_tests::fleet::Fleet;
use driftmark_tests::patience::pause;
use driftmark_tests::process::run;
use serde_json::Value;

use super::screen::Screen;
use super::stop;

/// From the intrusion to the verified replacement; two busy cores need a tenth of it.
const LIMIT: Duration = Duration::from_secs(180);
/// How often the running system is asked what is new.
const LOOK: Duration = Duration::from_millis(20);
/// A line is shown once it is this old: no source is further behind.
const SETTLED_MS: i64 = 500;

/// What happens in a fleet from a moment on.
pub(crate) struct Timeline<'a> {
    fleet: &'a Fleet,
    victim: String,
    /// The victim's own id.
    instance: String,
    begin_ms: i64,
    journal: Journal,
    ledger_seen: u64,
    cloud_seen: usize,
    reported: BTreeSet<String>,
    waiting: Vec<Line>,
    milestones: Vec<(&'static str, i64)>,
}

/// The agent's journal on the victim: read again and again until it tells of a drift, or the machine is gone.
struct Journal {
    found: mpsc::Receiver<Detected>,
}

/// The end of a scan that found something.
struct Detected {
    at_ms: i64,
    drifts: u64,
    pass: String,
}

impl Journal {
    fn read(mut command: Command, begin_ms: i64) -> Self {
        let (sender, found) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok(text) = run(&mut command) {
                if let Some(detected) = text.lines().find_map(|line| detected(line, begin_ms)) {
                    let _ = sender.send(detected);
                    return;
                }
                pause(LOOK);
            }
        });
        Journal { found }
    }
}

fn detected(line: &str, begin_ms: i64) -> Option<Detected> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let microseconds: i64 = entry["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
    let (at_ms, drifts) = (
        microseconds / 1000,
        entry["F_DRIFTS"].as_str()?.parse().ok()?,
    );
    let pass = entry["F_PASS"].as_str()?.to_lowercase();
    let is_news = at_ms >= begin_ms && drifts > 0 && entry["MESSAGE"] == "scan ended";
    is_news.then_some(Detected {
        at_ms,
        drifts,
        pass,
    })
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    at_ms: i64,
    /// Lines of one millisecond stay in the order in which they were told.
    number: usize,
    who: String,
    what: String,
}

impl<'a> Timeline<'a> {
    /// Of what happens in `fleet` from `begin_ms` on, with `victim` to be intruded upon.
    ///
    /// # Errors
    /// A source does not answer.
    pub(crate) fn of(fleet: &'a Fleet, victim: &str, begin_ms: i64) -> Result<Self> {
        let row = fleet.instance(victim)?;
        let journal = fleet.cloud.with(victim, |machine| {
            // A process of the machine would hold up its halt.
            let mut command = machine.command_beside("/usr/bin/journalctl")?;
            command.args([
                "--no-pager",
                "--output=json",
                "--unit=driftmark-agent.service",
            ]);
            Ok(Journal::read(command, begin_ms))
        })?;
        Ok(Timeline {
            fleet,
            victim: victim.to_owned(),
            instance: row["id"]
                .as_str()
                .context("an instance with an id")?
                .to_owned(),
            begin_ms,
            journal,
            ledger_seen: fleet
                .ledger()?
                .iter()
                .filter_map(|entry| entry["sequence"].as_u64())
                .max()
                .unwrap_or(0),
            cloud_seen: fleet.cloud.told().len(),
            reported: BTreeSet::new(),
            waiting: Vec::new(),
            milestones: vec![("intrusion", begin_ms)],
        })
    }

    /// Adds something that happens now.
    pub(crate) fn tell(&mut self, who: &str, what: &str) {
        self.line(now(), who, what);
    }

    /// Shows everything until the order is verified; gives the replacement's cloud id.
    ///
    /// # Errors
    /// It is not, a source does not answer, or someone asked to stop.
    pub(crate) fn follow(&mut self, screen: &Screen) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            stop::check()?;
            self.read_journal();
            self.read_drifts()?;
            self.read_ledger()?;
            self.read_cloud();
            let order = self
                .fleet
                .orders()?
                .into_iter()
                .find(|order| order["instance"] == self.instance.as_str());
            match order.as_ref().and_then(|order| order["state"].as_str()) {
                Some("verified") => {
                    self.read_ledger()?;
                    self.show(screen, i64::MAX);
                    let replacement = order
                        .as_ref()
                        .and_then(|order| order["replacement"].as_str());
                    return Ok(replacement
                        .context("an order that names its replacement")?
                        .to_owned());
                }
                Some("failed" | "cancelled") => bail!("the order did not go through: {order:?}"),
                _ => self.show(screen, now() - SETTLED_MS),
            }
            pause(LOOK);
        }
        bail!(
            "not verified within {LIMIT:?}; the collector said:\n{}",
            self.fleet.collector.output()
        )
    }

    /// What happened, milliseconds after the intrusion, and after what happened before.
    pub(crate) fn milestones(&self) -> Vec<(String, i64, i64)> {
        let steps = self.milestones.windows(2);
        steps
            .map(|pair| {
                (
                    pair[1].0.to_owned(),
                    pair[1].1 - self.begin_ms,
                    pair[1].1 - pair[0].1,
                )
            })
            .collect()
    }

    /// What the agent knows by itself.
    fn read_journal(&mut self) {
        if let Ok(Detected {
            at_ms,
            drifts,
            pass,
        }) = self.journal.found.try_recv()
        {
            self.milestone("detected", at_ms);
            let victim = &self.victim;
            let what = format!("by the agent on {victim}: a {pass} scan ends with {drifts} drifts");
            self.line(at_ms, "detected", &what);
        }
    }

    /// What the collector holds open.
    fn read_drifts(&mut self) -> Result<()> {
        let shown = self.fleet.show(&self.instance)?;
        for open in shown["drifts"].as_array().into_iter().flatten() {
            let Some(at_ms) = open["opened_at_ms"].as_i64() else {
                continue;
            };
            let text = |key: &str| open["drift"][key].as_str().unwrap_or_default();
            let what = format!(
                "{} {} ({}, {})",
                text("kind"),
                text("path"),
                text("class"),
                text("severity")
            );
            if self.reported.is_empty() {
                self.milestone("reported", at_ms);
            }
            if self.reported.insert(what.clone()) {
                self.line(at_ms, "reported", &what);
            }
        }
        Ok(())
    }

    fn read_ledger(&mut self) -> Result<()> {
        for entry in self.fleet.ledger()? {
            let Some(sequence) = entry["sequence"]
                .as_u64()
                .filter(|sequence| *sequence > self.ledger_seen)
            else {
                continue;
            };
            self.ledger_seen = sequence;
            let at_ms = entry["at_ms"].as_i64().context("an entry with a time")?;
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            match text("kind") {
                "instance-marked" => self.milestone("marked", at_ms),
                "order-executing" => self.milestone("order executing", at_ms),
                "order-replaced" => self.milestone("replaced", at_ms),
                "order-verified" => self.milestone("verified clean", at_ms),
                _ => {}
            }
            self.line(at_ms, &text("kind").replace('-', " "), text("reason"));
        }
        Ok(())
    }

    fn read_cloud(&mut self) {
        let told = self.fleet.cloud.told();
        let terminated = format!("{} terminated", self.victim);
        for told in &told[self.cloud_seen..] {
            if told.what == terminated {
                self.milestone("terminated", told.at);
            }
            self.line(told.at, "cloud", &told.what);
        }
        self.cloud_seen = told.len();
    }

    fn milestone(&mut self, what: &'static str, at_ms: i64) {
        self.milestones.push((what, at_ms));
        self.milestones.sort_by_key(|(_, at_ms)| *at_ms);
    }

    fn line(&mut self, at_ms: i64, who: &str, what: &str) {
        let number = self.waiting.len();
        self.waiting.push(Line {
            at_ms,
            number,
            who: who.to_owned(),
            what: what.to_owned(),
        });
    }

    /// Shows what is older than `until_ms`.
    fn show(&mut self, screen: &Screen, until_ms: i64) {
        self.waiting.sort();
        let later = self
            .waiting
            .iter()
            .position(|line| line.at_ms > until_ms)
            .unwrap_or(self.waiting.len());
        for line in self.waiting.drain(..later) {
            screen.at(line.at_ms - self.begin_ms, &line.who, &line.what);
        }
    }
}
