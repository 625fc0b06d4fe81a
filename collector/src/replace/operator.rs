//! Receives what operators and replacers say of an order, and writes it down with its ledger entry.
//!
//! Each function is one transaction's work. What is said of an order that is elsewhere by now is refused.

use rusqlite::Transaction;
use serde_json::json;

use super::carry_out::{kind, note};
use super::command::{Outcome, Output};
use crate::instance::Standing;
use crate::judge::{Approval, OrderState};
use crate::store::orders::{self, Meant, OrderRow};
use crate::store::{StoreError, instances};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No order of that id.
    #[error("there is no order {0}")]
    Unknown(String),
    /// It is in a state in which this cannot be said of it.
    #[error("order {id} is {}: {allowed}", state.word())]
    State {
        /// The order.
        id: String,
        /// Where it is.
        state: OrderState,
        /// What would be needed.
        allowed: &'static str,
    },
    /// A replacement that cannot be one.
    #[error("{cloud_id} cannot replace: {why}")]
    Replacement {
        /// Its cloud id.
        cloud_id: String,
        /// Why not.
        why: &'static str,
    },
    /// The database.
    #[error("change an order")]
    Statement(#[from] rusqlite::Error),
    /// The database, before or after.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether the judge may plan another order for the instance after this one was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Not until the instance was clean.
    LeaveAlone,
    /// As if there had been none.
    PlanAgain,
}

/// Lets an order go before its grace is over, or one that needs approval. The breakers still hold.
///
/// # Errors
/// See [`OrderError`].
pub fn approve(
    tx: &Transaction<'_>,
    order: &OrderRow,
    by: &str,
    reason: &str,
    now_ms: i64,
) -> Result<(), OrderError> {
    let waits = matches!(
        order.state,
        OrderState::Planned | OrderState::InGrace | OrderState::Blocked
    );
    if !waits || order.approval.is_some() {
        return Err(elsewhere(
            order,
            "only one that waits for it can be approved",
        ));
    }
    if order.image.is_none() {
        return Err(elsewhere(order, "it has no image to replace with"));
    }
    orders::approve(tx, meant(order), &Approval::Operator(by.to_owned()))?;
    if order.state != OrderState::Blocked {
        orders::advance(tx, meant(order), OrderState::Approved, reason, now_ms)?;
    }
    say(tx, order, OrderState::Approved, reason, by, now_ms)
}

/// Ends an order that waits, or resolves one that failed and frees its slot.
///
/// # Errors
/// See [`OrderError`].
pub fn cancel(
    tx: &Transaction<'_>,
    order: &OrderRow,
    afterwards: Afterwards,
    by: &str,
    reason: &str,
    now_ms: i64,
) -> Result<(), OrderError> {
    if !order.state.may_become(OrderState::Cancelled) {
        return Err(elsewhere(
            order,
            "only one that waits or has failed can be cancelled",
        ));
    }
    if !orders::advance(tx, meant(order), OrderState::Cancelled, reason, now_ms)? {
        return Err(elsewhere(order, "it changed meanwhile"));
    }
    orders::decline(
        tx,
        &order.instance,
        (afterwards == Afterwards::LeaveAlone).then_some(reason),
    )?;
    say(tx, order, OrderState::Cancelled, reason, by, now_ms)
}

/// Names the machine that replaces the order's instance. The instance is out from now on: its certificate is refused.
///
/// # Errors
/// See [`OrderError`].
pub fn name_replacement(
    tx: &Transaction<'_>,
    order: &OrderRow,
    cloud_id: &str,
    by: &str,
    now_ms: i64,
) -> Result<(), OrderError> {
    let refused = |why| {
        Err(OrderError::Replacement {
            cloud_id: drift::escape(cloud_id.as_bytes()),
            why,
        })
    };
    if order.state != OrderState::Executing {
        return Err(elsewhere(
            order,
            "only one that is executing gets a replacement",
        ));
    }
    if cloud_id.is_empty() || cloud_id.len() > drift::enrolment::EnrolRequest::MAX_CLOUD_ID_BYTES {
        return refused("a cloud id has 1 to 256 bytes");
    }
    if cloud_id
        .chars()
        .any(|letter| letter.is_control() || letter.is_whitespace())
    {
        return refused("a cloud id has neither spaces nor control characters");
    }
    if order.cloud_id.as_deref() == Some(cloud_id) {
        return refused("it is the machine that is to be replaced");
    }
    if orders::is_named(tx, cloud_id)? {
        return refused("another order named it already");
    }
    orders::name_replacement(tx, meant(order), cloud_id, now_ms)?;
    let why = format!("replaced by {cloud_id}");
    if !orders::advance(tx, meant(order), OrderState::Replaced, &why, now_ms)? {
        return Err(elsewhere(order, "it changed meanwhile"));
    }
    instances::set_standing(
        tx,
        &order.instance,
        Standing::Replaced,
        &format!("order {}", order.id),
        now_ms,
    )?;
    note(
        tx,
        kind(OrderState::Replaced),
        &order.fleet,
        &order.id,
        &why,
        json!({"generation": order.generation, "instance": order.instance, "replacement": cloud_id}),
        by,
        now_ms,
    )?;
    Ok(())
}

/// Writes down what came of an order's command: a replacement, or a failure that an operator must resolve. An order that
/// is elsewhere by now stays there, and the ledger has what the command did all the same.
///
/// # Errors
/// See [`OrderError`].
pub fn executed(
    tx: &Transaction<'_>,
    order: &OrderRow,
    outcome: &Outcome,
    actor: &str,
    now_ms: i64,
) -> Result<(), OrderError> {
    let named = match &outcome.replacement {
        Ok(cloud_id) => {
            name_replacement(tx, order, cloud_id, actor, now_ms).map_err(|error| match error {
                OrderError::Replacement { .. } | OrderError::State { .. } => Ok(error.to_string()),
                other => Err(other),
            })
        }
        Err(why) => Err(Ok(why.clone())),
    };
    let why = match named {
        Ok(()) => "the replacer's command named a replacement".to_owned(),
        Err(Err(error)) => return Err(error),
        Err(Ok(why)) => {
            orders::advance(tx, meant(order), OrderState::Failed, &why, now_ms)?;
            why
        }
    };
    let Output {
        exit,
        stdout,
        stderr,
    } = &outcome.output;
    let failed = outcome.replacement.is_err();
    let kind = if failed {
        kind(OrderState::Failed)
    } else {
        "replacer-finished"
    };
    let detail = json!({
        "generation": order.generation, "instance": order.instance, "exit": exit, "stdout": stdout, "stderr": stderr,
    });
    note(
        tx,
        kind,
        &order.fleet,
        &order.id,
        &why,
        detail,
        actor,
        now_ms,
    )?;
    Ok(())
}

fn say(
    tx: &Transaction<'_>,
    order: &OrderRow,
    state: OrderState,
    reason: &str,
    by: &str,
    now_ms: i64,
) -> Result<(), OrderError> {
    let detail =
        json!({"generation": order.generation, "instance": order.instance, "from": order.state});
    note(
        tx,
        kind(state),
        &order.fleet,
        &order.id,
        reason,
        detail,
        by,
        now_ms,
    )?;
    Ok(())
}

fn meant(order: &OrderRow) -> Meant<'_> {
    Meant {
        id: &order.id,
        generation: order.generation,
        state: order.state,
    }
}

fn elsewhere(order: &OrderRow, allowed: &'static str) -> OrderError {
    OrderError::State {
        id: order.id.clone(),
        state: order.state,
        allowed,
    }
}
