//! Receives decisions, and writes them down together with their ledger entries, in one transaction.

use drift::report::ImageRef;
use ring::rand::SystemRandom;
use rusqlite::Transaction;
use serde_json::{Value, json};

use crate::judge::{Decision, OrderState};
use crate::ledger::{self, Entry};
use crate::policy::Fleets;
use crate::store::instances;
use crate::store::orders::{self, Marked, Meant, NewOrder};

/// Who decides when nobody else does.
const JUDGE: &str = "collector";

/// Carries out all decisions; how many of them changed anything.
pub(super) fn all(
    tx: &Transaction<'_>,
    fleets: &Fleets,
    decisions: &[Decision],
    now_ms: i64,
) -> rusqlite::Result<usize> {
    let mut changed = 0;
    for decision in decisions {
        changed += usize::from(one(tx, fleets, decision, now_ms)?);
    }
    Ok(changed)
}

fn one(
    tx: &Transaction<'_>,
    fleets: &Fleets,
    decision: &Decision,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    match decision {
        Decision::Mark {
            fleet,
            instance,
            reason,
            image,
        } => {
            let marked = orders::mark(tx, fleet, instance, reason, image.as_ref(), now_ms)?;
            if marked == Marked::Opened {
                let detail = json!({"image": image});
                note(
                    tx,
                    "instance-marked",
                    fleet,
                    instance,
                    reason,
                    detail,
                    JUDGE,
                    now_ms,
                )?;
            }
            Ok(true)
        }
        Decision::Unmark {
            fleet,
            instance,
            reason,
        } => {
            let closed = orders::unmark(tx, instance)?;
            if closed {
                note(
                    tx,
                    "instance-unmarked",
                    fleet,
                    instance,
                    reason,
                    json!({}),
                    JUDGE,
                    now_ms,
                )?;
            }
            Ok(closed)
        }
        Decision::Plan {
            fleet,
            instance,
            image,
            why,
        } => {
            plan(tx, fleets, fleet, instance, image.as_ref(), why, now_ms)?;
            Ok(true)
        }
        Decision::Move {
            fleet,
            order,
            generation,
            instance,
            from,
            to,
            why,
        } => {
            let meant = Meant {
                id: order,
                generation: *generation,
                state: *from,
            };
            let moved = orders::advance(tx, meant, *to, why, now_ms)?;
            if moved && from != to {
                let detail = json!({"generation": generation, "instance": instance, "from": from});
                note(tx, kind(*to), fleet, order, why, detail, JUDGE, now_ms)?;
            }
            Ok(moved)
        }
    }
}

fn plan(
    tx: &Transaction<'_>,
    fleets: &Fleets,
    fleet: &str,
    instance: &str,
    image: Option<&ImageRef>,
    why: &str,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let state = if image.is_some() {
        OrderState::Planned
    } else {
        OrderState::Blocked
    };
    let cloud_id = instances::by_id(tx, instance)?.and_then(|instance| instance.cloud_id);
    let replacer = fleets.of(fleet).replacer.word();
    let id = fresh_id();
    let new = NewOrder {
        id: &id,
        fleet,
        instance,
        cloud_id: cloud_id.as_deref(),
        image,
        replacer,
        reason: why,
        state,
    };
    let generation = orders::plan(tx, &new, now_ms)?;
    let detail = json!({"generation": generation, "instance": instance, "image": image, "replacer": replacer});
    note(tx, kind(state), fleet, &id, why, detail, JUDGE, now_ms)
}

/// The ledger's word for what became of an order.
pub(super) fn kind(state: OrderState) -> &'static str {
    match state {
        OrderState::Planned => "order-planned",
        OrderState::InGrace => "order-in-grace",
        OrderState::Approved => "order-approved",
        OrderState::Blocked => "order-blocked",
        OrderState::Executing => "order-executing",
        OrderState::Replaced => "order-replaced",
        OrderState::Verified => "order-verified",
        OrderState::Failed => "order-failed",
        OrderState::Cancelled => "order-cancelled",
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "an entry of the ledger has that many parts, and each has a name there"
)]
pub(super) fn note(
    tx: &Transaction<'_>,
    kind: &'static str,
    fleet: &str,
    subject: &str,
    reason: &str,
    detail: Value,
    actor: &str,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let entry = Entry {
        kind,
        fleet: Some(fleet.to_owned()),
        subject: Some(subject.to_owned()),
        reason: reason.to_owned(),
        detail,
        actor: actor.to_owned(),
    };
    ledger::append(tx, now_ms, &entry)?;
    Ok(())
}

fn fresh_id() -> String {
    let number = ring::rand::generate::<[u8; 16]>(&SystemRandom::new())
        .expect("the system gives random numbers");
    format!("o-{:032x}", u128::from_be_bytes(number.expose()))
}
