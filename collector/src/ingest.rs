//! Receives a report of an authenticated instance, hands on a verdict; what it says is stored with it or not at all.
//!
//! Invariants: a report changes nothing but its sender. It counts once: the same number with the same body is
//! acknowledged again, with another body it is refused and recorded. Order is (run, generation), never the agent's
//! clock; what comes late is kept as moments and changes no state. Whatever is open here is what the agent holds open,
//! or the agent is asked for everything.

mod baseline;
mod held;
mod raised;
mod states;
mod verity;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use drift::Blake3;
use drift::report::{InstanceState, Report, Settings, Verdict};
use rusqlite::Transaction;
use serde_json::json;

use crate::api::ApiError;
use crate::instance::{self, Instance, Standing};
use crate::ledger;
use crate::rate::Rate;
use crate::store::{drifts, instances, numbers, orders};

/// A report and where it came from.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The instance of the client certificate.
    pub instance: String,
    /// SHA-256 of the SPKI of the client certificate's key.
    pub key: [u8; 32],
    /// BLAKE3 of the body as it came.
    pub body: Blake3,
    /// How long that was.
    pub bytes: usize,
    /// What it says.
    pub report: Report,
}

/// A report that counts, now or already.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The answer.
    pub verdict: Verdict,
    /// Whether there is something new to judge.
    pub changed: bool,
}

/// What ingest needs to know beside the report.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// How often agents report.
    pub heartbeat: Duration,
    /// How many refusals the ledger takes.
    pub refusals: Arc<Rate>,
    /// The collector's receipt.
    pub now_ms: i64,
}

/// Takes a report in.
///
/// # Errors
/// The database's. A refusal is a value, so that what is recorded of it stays.
pub fn accept(
    tx: &Transaction<'_>,
    incoming: &Incoming,
    now: &Circumstances,
) -> rusqlite::Result<Result<Accepted, ApiError>> {
    let report = &incoming.report;
    let Some(mut instance) = instances::by_id(tx, &incoming.instance)? else {
        return Ok(Err(ApiError::forbidden(
            "unknown-instance",
            "this collector has not issued that instance id",
        )));
    };
    if let Err(refused) = takes_part(&instance) {
        return Ok(Err(refused));
    }
    if instance.public_key != incoming.key {
        let refused = ApiError::forbidden(
            "other-key",
            "this certificate is not for the key that this instance enrolled",
        );
        record(tx, &instance, report, &refused, now)?;
        return Ok(Err(refused));
    }
    let before = instance::state(&instance, now.heartbeat, now.now_ms);
    let run = place(tx, &mut instance, report, now.now_ms)?;
    match numbers::body(tx, instance.row, run.number, report.sequence)? {
        Some(body) if body == incoming.body => {
            let resend =
                report.part.generation == instance.generation && differs(&instance, report);
            return verdict(tx, &instance, report, resend, now).map(|verdict| {
                Ok(Accepted {
                    verdict,
                    changed: false,
                })
            });
        }
        None if report.sequence > run.sequence.saturating_sub(numbers::WINDOW) => {}
        _ => return conflict(tx, &instance, report, now).map(Err),
    }
    keep_moments(tx, &mut instance, run.number, report, now.now_ms)?;
    let mut news = News::default();
    if run.number == instance.run_number {
        instance.heard_at_ms = Some(now.now_ms);
        instance.sequence = instance.sequence.max(report.sequence);
        if report.part.generation > instance.generation {
            match states::apply(tx, &mut instance, incoming, now.now_ms)? {
                Ok(applied) => news = news.and(applied),
                Err(refused) => {
                    // Its number stays free for a better one, and its run is noted as any other.
                    instances::store_reported(tx, &instance, None)?;
                    return Ok(Err(refused));
                }
            }
            note_sender(&mut instance, report);
            news.open |= baseline::check(tx, &mut instance, report, now.now_ms)?;
            news.open |= verity::check(tx, &instance, report, now.now_ms)?;
        }
    }
    numbers::add(tx, instance.row, run, report.sequence, &incoming.body)?;
    if news.open {
        sum_up(tx, &mut instance)?;
    }
    since(&mut instance, now);
    let coverage = news
        .header
        .then(|| serde_json::to_string(&report.coverage).expect("a plain struct"));
    instances::store_reported(tx, &instance, coverage.as_deref())?;
    let verdict = verdict(
        tx,
        &instance,
        report,
        news.applied && differs(&instance, report),
        now,
    )?;
    let changed = news.open || verdict.state != before;
    Ok(Ok(Accepted { verdict, changed }))
}

/// Puts what an instance sent, and what was no report at all, into the ledger.
///
/// # Errors
/// The database's.
pub fn refuse(
    tx: &Transaction<'_>,
    id: &str,
    refused: &ApiError,
    now: &Circumstances,
) -> rusqlite::Result<()> {
    match instances::by_id(tx, id)? {
        Some(instance) if takes_part(&instance).is_ok() && now.refusals.take_sparingly() => note(
            tx,
            &instance,
            json!({"code": refused.refusal.code}),
            refused,
            now,
        ),
        _ => Ok(()),
    }
}

/// Refuses an instance that no longer takes part.
///
/// # Errors
/// 403, with what became of it.
pub fn takes_part(instance: &Instance) -> Result<(), ApiError> {
    match instance.standing {
        Standing::Active => Ok(()),
        Standing::Replaced => Err(ApiError::forbidden(
            "replaced",
            "this instance was replaced",
        )),
        Standing::Retired => Err(ApiError::forbidden(
            "retired",
            "an operator retired this instance",
        )),
    }
}

/// What a report brought.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// What is open may have changed.
    open: bool,
    /// A generation was complete and is applied.
    applied: bool,
    /// The report is the latest that its sender said of itself.
    header: bool,
}

impl News {
    fn and(self, other: News) -> News {
        News {
            open: self.open || other.open,
            applied: self.applied || other.applied,
            header: self.header || other.header,
        }
    }
}

/// The report's run among those of the instance. One that was not heard of becomes the current one, unless the current
/// one came after it.
fn place(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<numbers::Known> {
    if let Some(known) = numbers::run(tx, instance.row, report.run)? {
        return Ok(known);
    }
    let late = numbers::is_followed(tx, instance.row, report.run)?;
    let known = numbers::add_run(
        tx,
        instance.row,
        report.run,
        report.previous_run,
        instance.run_number,
        now_ms,
    )?;
    if !late {
        instance.run = Some(report.run);
        instance.run_number = known.number;
        instance.sequence = 0;
        instance.generation = 0;
        instance.dropped_moments = 0;
        crate::store::staged::clear(tx, instance.row)?;
    }
    Ok(known)
}

fn conflict(
    tx: &Transaction<'_>,
    instance: &Instance,
    report: &Report,
    now: &Circumstances,
) -> rusqlite::Result<ApiError> {
    let message =
        "this report number was used for another report: is there a copy of this machine?";
    let refused = ApiError::refused(StatusCode::CONFLICT, "number-used", message);
    record(tx, instance, report, &refused, now)?;
    Ok(refused)
}

/// Puts a refused report into the ledger, within the rate.
fn record(
    tx: &Transaction<'_>,
    instance: &Instance,
    report: &Report,
    refused: &ApiError,
    now: &Circumstances,
) -> rusqlite::Result<()> {
    if !now.refusals.take() {
        return Ok(());
    }
    let detail = json!({
        "code": refused.refusal.code,
        "run": report.run.to_string(),
        "sequence": report.sequence,
    });
    note(tx, instance, detail, refused, now)
}

fn note(
    tx: &Transaction<'_>,
    instance: &Instance,
    detail: serde_json::Value,
    refused: &ApiError,
    now: &Circumstances,
) -> rusqlite::Result<()> {
    let entry = ledger::Entry {
        kind: "report-refused",
        fleet: Some(instance.fleet.clone()),
        subject: Some(instance.id.clone()),
        reason: refused.refusal.message.clone(),
        detail,
        actor: instance.id.clone(),
    };
    ledger::append(tx, now.now_ms, &entry).map(drop)
}

fn keep_moments(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    run: i64,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<()> {
    for moment in &report.moments {
        instance.moments += u64::from(drifts::add_moment(tx, instance.row, run, moment, now_ms)?);
    }
    instance.moments = drifts::forget_moments(tx, instance.row, instance.moments)?;
    Ok(())
}

fn note_sender(instance: &mut Instance, report: &Report) {
    instance.phase = Some(report.phase);
    instance.boot_id = Some(report.boot_id.clone());
    instance.agent_version = Some(report.agent.version.clone());
    instance.unverifiable.clone_from(&report.unverifiable);
    instance.first_scan = report.coverage.seen.is_some();
    instance.dropped_moments = report.dropped_moments;
}

fn sum_up(tx: &Transaction<'_>, instance: &mut Instance) -> rusqlite::Result<()> {
    let sum = drifts::sum(tx, instance.row)?;
    instance.raised = sum.raised;
    instance.severity = sum.rank.map(instance::severity);
    if !instance.overflow {
        instance.open = sum.open;
        instance.set_digest = Some(drifts::digest(tx, instance.row)?);
    }
    Ok(())
}

fn since(instance: &mut Instance, now: &Circumstances) {
    let state = instance::state(instance, now.heartbeat, now.now_ms);
    if instance.all_open() == 0 {
        instance.drifted_since_ms = None;
    } else {
        instance.drifted_since_ms.get_or_insert(now.now_ms);
    }
    if state == InstanceState::Clean {
        instance.clean_since_ms.get_or_insert(now.now_ms);
    } else {
        instance.clean_since_ms = None;
    }
}

/// Whether the agent holds something else open than the collector does.
fn differs(instance: &Instance, report: &Report) -> bool {
    let nothing = || drift::finding::set_digest([]);
    !instance.overflow && instance.set_digest.unwrap_or_else(nothing) != report.set_digest
}

fn verdict(
    tx: &Transaction<'_>,
    instance: &Instance,
    report: &Report,
    resend_all: bool,
    now: &Circumstances,
) -> rusqlite::Result<Verdict> {
    Ok(Verdict {
        acknowledged: report.sequence,
        state: instance::state(instance, now.heartbeat, now.now_ms),
        order: orders::executing(tx, &instance.id)?,
        resend_all,
        settings: Settings {
            heartbeat_seconds: now.heartbeat.as_secs(),
        },
    })
}

#[cfg(test)]
mod tests;
