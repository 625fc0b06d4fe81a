//! Receives the states of a generation, hands on what is open once it is applied.

use std::collections::HashSet;

use axum::http::StatusCode;
use drift::report::{Report, StateUpdate};
use rusqlite::Transaction;

use super::{Incoming, News, held};
use crate::api::ApiError;
use crate::instance::Instance;
use crate::store::drifts::{self, Source};
use crate::store::staged::{self, Staged};

/// Applies a generation that came in one part, or that this part completes; keeps this part otherwise.
pub(super) fn apply(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    incoming: &Incoming,
    now_ms: i64,
) -> rusqlite::Result<Result<News, ApiError>> {
    let report = &incoming.report;
    let mut news = News {
        header: true,
        ..News::default()
    };
    let staging = report.part.count > 1;
    if staging {
        match staged::add(
            tx,
            instance.row,
            instance.run_number,
            report,
            incoming.bytes,
        )? {
            Staged::Complete => {}
            Staged::Waiting => return Ok(Ok(news)),
            Staged::Contradicts => {
                let message =
                    "the parts of this generation disagree on how many there are: send it again";
                return Ok(Err(ApiError::bad_request("bad-part", message)));
            }
            Staged::TooMuch => {
                let message =
                    "this generation is more than the collector keeps waiting for one instance";
                return Ok(Err(ApiError::refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-long",
                    message,
                )));
            }
        }
        let fits = staged::apply(
            tx,
            instance.row,
            report.states == StateUpdate::Whole,
            now_ms,
        )?;
        note_overflow(instance, report, fits);
        news.open = true;
    } else {
        news.open = match report.states {
            StateUpdate::Whole => replace(tx, instance, report, now_ms)?,
            StateUpdate::Change => change(tx, instance, report, now_ms)?,
        };
    }
    if report.held_whole {
        let values = if staging {
            staged::held(tx, instance.row, held::MAX_HELD)?
        } else {
            report.held.clone()
        };
        news.open |= held::check(tx, instance, values, now_ms)?;
    }
    if staging {
        staged::clear(tx, instance.row)?;
    }
    if news.open {
        drifts::thin_out(tx, instance.row)?;
    }
    instance.generation = report.part.generation;
    news.applied = true;
    Ok(Ok(news))
}

/// The whole state set: what is not in it is closed. Whether anything may have changed.
fn replace(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    if report.opened.is_empty() && instance.open == 0 && !instance.overflow {
        return Ok(false);
    }
    let stay: HashSet<_> = report.opened.iter().map(|open| open.id).collect();
    for id in drifts::ids(tx, instance.row, Source::Agent)? {
        if !stay.contains(&id) {
            drifts::close(tx, instance.row, Source::Agent, id)?;
        }
    }
    for open in &report.opened {
        drifts::open_reported(tx, instance.row, open, now_ms)?;
    }
    note_overflow(instance, report, true);
    Ok(true)
}

/// What was opened and closed. Whether anything may have changed.
fn change(
    tx: &Transaction<'_>,
    instance: &mut Instance,
    report: &Report,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    if report.opened.is_empty() && report.closed.is_empty() {
        return Ok(false);
    }
    for id in &report.closed {
        drifts::close(tx, instance.row, Source::Agent, *id)?;
    }
    let fits = !instance.overflow
        && instance.open.saturating_add(report.opened.len() as u64) <= drifts::IDS;
    for open in &report.opened {
        if fits {
            drifts::open_reported(tx, instance.row, open, now_ms)?;
        } else {
            drifts::retell(tx, instance.row, open, now_ms)?;
        }
    }
    note_overflow(instance, report, fits);
    Ok(true)
}

/// Beyond [`drifts::IDS`] the agent's own count and digest are all that there is.
fn note_overflow(instance: &mut Instance, report: &Report, fits: bool) {
    instance.overflow = !fits;
    if !fits {
        instance.open = report.open_count;
        instance.set_digest = Some(report.set_digest);
    }
}
