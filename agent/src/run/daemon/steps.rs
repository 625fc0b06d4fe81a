//! What was scanned, swept and seen, and what time it is, in; what the sentinel says of it, done.

use std::sync::Arc;

use drift::report::Report;
use driftmark_kernel::process;

use super::Daemon;
use crate::clock::Now;
use crate::run::scanner::Said;
use crate::run::sweeper::Sweeping;
use crate::scan::Pass;
use crate::sentinel::{Action, Event};
use crate::spool::{Dropped, Kind, Name, Spool};

impl Daemon {
    /// Lets the sentinel take in an event, and does what it says.
    pub(super) fn step(&mut self, event: Event, now: Now) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Daemon {
                sentinel,
                spool,
                mention,
                scanner,
                sweeps,
                first_boot,
                health,
                ..
            } = self;
            let (mut dropped, mut is_swept) = (Dropped::default(), true);
            sentinel.step(event, now, &mut |action| match action {
                Action::Keep(report) => {
                    // What waits has a lower number than this, and says less.
                    *mention = None;
                    let lost = keep(spool, &report);
                    dropped.states |= lost.states;
                    dropped.moments += lost.moments;
                }
                Action::Mention(report) => *mention = Some((name(&report), body(&report))),
                Action::Scan(pass, open) => {
                    tracing::info!(?pass, "scan begins");
                    let holds = first_boot.is_over(now.uptime);
                    scanner.order((pass, open), holds, now.uptime);
                }
                Action::Sweep(drifted) => is_swept = sweeps.order(drifted),
                Action::Probe(answer) => {
                    tracing::info!(
                        healthy = answer.healthy,
                        reason = answer.reason,
                        "health probe"
                    );
                    health.send_replace(answer);
                }
            });
            events.extend(self.lost(dropped));
            if !is_swept {
                let reason = "there is nothing to hold them against".to_owned();
                events.push(Event::SweepFailed(reason));
            }
        }
    }

    /// Says that reports were lost, and makes an event of it.
    pub(super) fn lost(&self, dropped: Dropped) -> Option<Event> {
        if dropped.is_nothing() {
            return None;
        }
        tracing::warn!(
            states = dropped.states,
            moments = dropped.moments,
            "no room in the spool: reports are lost"
        );
        Some(Event::Dropped {
            states: dropped.states,
            moments: dropped.moments,
        })
    }

    pub(super) fn hear(&mut self, said: Said) {
        let now = Now::read();
        match said {
            Said::Opened {
                baseline,
                image,
                build_time,
            } => {
                self.knows_image = true;
                self.build_time = build_time;
                self.clock.not_before(build_time.unwrap_or(0));
                tracing::info!(
                    image = image.name,
                    version = image.version,
                    build = image.build,
                    "the manifest verified"
                );
                self.step(Event::BaselineOpened(image), now);
                self.sweeps.baseline = Some(Arc::clone(&baseline));
                self.guards.guard(Arc::clone(&baseline));
                self.sentinel.unguarded(self.guards.limits());
                if let Some(event) = self.sight.watch(baseline) {
                    self.step(event, now);
                }
            }
            Said::Refused(reason) => {
                self.knows_image = true;
                self.sight.rest();
                self.sweeps.baseline = None;
                self.guards.rest();
                self.sentinel.unguarded(Vec::new());
                self.scanner.rests(Pass::Full);
                if self.sentinel.unverifiable() != Some(&reason) {
                    tracing::error!(reason, "this instance cannot be verified");
                }
                self.step(Event::BaselineRefused(reason), now);
            }
            Said::Finished(outcome) => {
                self.scanner.rests(outcome.pass);
                let coverage = &outcome.coverage;
                let (drifts, gaps, verified) = (
                    outcome.drifts.len(),
                    coverage.gap_count,
                    coverage.verified_entries,
                );
                tracing::info!(pass = ?outcome.pass, drifts, gaps, verified, "scan ended");
                self.step(Event::ScanFinished(outcome), now);
                process::trim_heap();
            }
            Said::Failed(pass, reason) => {
                self.scanner.rests(pass);
                tracing::error!(?pass, reason, "scan did not finish");
                self.step(Event::ScanFailed(pass, reason), now);
            }
        }
    }

    pub(super) fn swept(&mut self, sweeping: Sweeping) {
        let event = match sweeping {
            Ok(mut swept) => {
                swept.record.container_starts = self.sight.container_starts();
                swept.moments.retain(|drift| !self.sight.has_told(drift));
                for drift in &swept.moments {
                    let path = drift.path.to_string();
                    let detail = drift.detail.as_deref();
                    tracing::warn!(path, detail, "the sweep of the processes found drift");
                }
                self.sight.look_at(std::mem::take(&mut swept.mapped));
                Event::Swept(swept)
            }
            Err(reason) => {
                tracing::error!(reason, "the processes were not swept");
                Event::SweepFailed(reason)
            }
        };
        self.step(event, Now::read());
    }
}

fn keep(spool: &mut Spool, report: &Report) -> Dropped {
    let kind = if report.moments.is_empty() {
        Kind::States
    } else {
        Kind::Moments
    };
    let moments = u32::try_from(report.moments.len()).unwrap_or(u32::MAX);
    spool.append(kind, name(report), moments, &body(report))
}

fn name(report: &Report) -> Name {
    Name {
        run: report.run,
        sequence: report.sequence,
    }
}

fn body(report: &Report) -> Vec<u8> {
    serde_json::to_vec(report).expect("a plain struct")
}
