//! Receives the judge's decisions, and carries them out: policy → plan → execute.
//!
//! [`tick`] runs one round after the other, never two at a time. A round judges on a reader; where there is something to do it judges again inside the
//! transaction that writes it down, so that nothing is done about a situation that is over: an instance that is clean
//! again, a last good image that moved, an operator's hold. Decision and ledger entry are one transaction.
//!
//! An order that began to execute is carried out by its fleet's replacer:
//!
//! - `probe`: the agent is told in its next verdict, its health probe turns unhealthy, and the autoscaler replaces the
//!   instance. Which machine is the replacement, the operator or the autoscaler's webhook says: `PUT
//!   /v1/orders/ID/replacement`. Nothing is guessed: an order whose replacement nobody named is never verified.
//! - `command`: the operator's program runs, see [`command`]. Its last line of JSON names the replacement.
//!
//! After a crash of the collector an order that was executing is executed again, with the same id and generation; in one
//! life of the collector no order is started twice.

mod carry_out;
pub mod command;
mod launch;
pub mod operator;
mod situation;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::clock;
use crate::judge::{OrderState, judge};
use crate::ledger;
use crate::policy::{Fleets, Policy, Reloaded, Replacer};
use crate::serve::App;
use crate::store::orders::{self, OrderRow};
use crate::store::{StoreError, artifacts, instances};

pub use launch::{Launched, Launcher};

/// Rounds in a row while there is something to do: more than an order has steps.
const STEPS: usize = 12;
/// The judge rests this many times as long as it looked, so that a large fleet leaves most of a core to ingest.
const REST: u32 = 5;
/// After a look that took no longer than this it does not rest at all.
const QUICK: Duration = Duration::from_millis(50);
/// And no longer than this, however large the fleet is.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// What a replacer did is written down again after this long where the database refused it.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// The replacers' commands that were started in this life of the collector.
#[derive(Debug, Default)]
pub struct Running {
    started: Mutex<HashSet<String>>,
    tasks: Mutex<JoinSet<()>>,
    rest_until: Mutex<Option<Instant>>,
}

impl Running {
    /// Ends all commands; the next collector executes their orders again.
    pub async fn end(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// Judges until there is nothing more to do, and starts what is to be started.
///
/// # Errors
/// The database's; nothing is half done, and the next tick tries again.
pub async fn tick(app: &Arc<App>, now_ms: i64) -> Result<(), StoreError> {
    let begun = Instant::now();
    let resting = *app
        .running
        .rest_until
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if resting.is_some_and(|until| begun < until) {
        return Ok(());
    }
    for _ in 0..STEPS {
        if round(app, now_ms).await? == 0 {
            break;
        }
    }
    start(app).await?;
    let took = begun.elapsed();
    let rest = (took > QUICK).then(|| Instant::now() + (took * REST).min(LONGEST_REST));
    *app.running
        .rest_until
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = rest;
    Ok(())
}

/// One round; how many decisions it carried out.
async fn round(app: &App, now_ms: i64) -> Result<usize, StoreError> {
    let fleets = app.fleets();
    let (heartbeat, since) = (app.config.heartbeat, app.listening_since_ms(now_ms));
    let judged = {
        let fleets = Arc::clone(&fleets);
        move |db: &rusqlite::Connection| -> Result<_, StoreError> {
            Ok(judge(
                &situation::load(db, &fleets, heartbeat, since, now_ms)?,
                now_ms,
            ))
        }
    };
    let again = judged.clone();
    if app.store.read(judged).await?.is_empty() {
        return Ok(0);
    }
    app.store
        .write(move |tx| Ok(carry_out::all(tx, &fleets, &again(tx)?, now_ms)?))
        .await
}

/// Starts the commands of executing orders that were not started in this life.
async fn start(app: &Arc<App>) -> Result<(), StoreError> {
    let runs = |order: &OrderRow| {
        order.state == OrderState::Executing && order.replacer == Replacer::COMMAND
    };
    let told = move |db: &rusqlite::Connection| -> Result<Vec<_>, StoreError> {
        let executing = orders::open_orders(db)?.into_iter().filter(runs);
        let told = |order: OrderRow| {
            let instance = instances::by_id(db, &order.instance)?;
            let artifacts = match &order.image {
                Some(image) => artifacts::of_build(db, &image.name, &image.version, &image.build)?,
                None => Vec::new(),
            };
            let request = command::Request::of(&order, instance.as_ref(), artifacts);
            Ok((request, order))
        };
        executing.map(told).collect()
    };
    let executing = app.store.read(told).await?;
    let fleets = app.fleets();
    let mut started = app
        .running
        .started
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut tasks = app
        .running
        .tasks
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    while tasks.try_join_next().is_some() {}
    started.retain(|id| executing.iter().any(|(_, order)| order.id == *id));
    for (request, order) in executing {
        if started.insert(order.id.clone()) {
            let policy = fleets.of(&order.fleet);
            tasks.spawn(execute(Arc::clone(app), order, request, policy));
        }
    }
    Ok(())
}

/// Runs the command of one order and writes down what came of it.
async fn execute(app: Arc<App>, order: OrderRow, request: command::Request, policy: Policy) {
    let outcome = match policy.replacer {
        Replacer::Command {
            program,
            arguments,
            timeout,
        } => {
            tracing::info!(
                order = order.id,
                fleet = order.fleet,
                "the replacer's command starts"
            );
            command::run(
                &app.launcher,
                &command::Program {
                    program,
                    arguments,
                    timeout,
                },
                &request,
            )
            .await
        }
        Replacer::Probe => command::Outcome::without_command(),
    };
    let actor = format!("replacer:{}", order.replacer);
    // A machine was replaced: until that is written down, nothing else is right. A collector that stops ends this too,
    // and the next one asks the command again.
    while let Err(error) = write_down(&app, &order, &outcome, &actor).await {
        tracing::error!(
            order = order.id,
            error = crate::api::error_chain(&error),
            "what a replacer did is not written down; it is tried again"
        );
        tokio::time::sleep(WRITE_AGAIN).await;
    }
    app.wake.notify_one();
}

async fn write_down(
    app: &App,
    order: &OrderRow,
    outcome: &command::Outcome,
    actor: &str,
) -> Result<(), operator::OrderError> {
    let (order, outcome, actor) = (order.clone(), outcome.clone(), actor.to_owned());
    app.store
        .write(move |tx| operator::executed(tx, &order, &outcome, &actor, clock::now_ms()))
        .await
}

/// Puts into the ledger that other policies hold, or that a fleets file was refused.
///
/// # Errors
/// The database's.
pub async fn note_policy(app: &App, reloaded: &Reloaded) -> Result<(), StoreError> {
    let (kind, reason, detail) = match reloaded {
        Reloaded::Same => return Ok(()),
        Reloaded::Changed(digest) => (
            "policy-changed",
            "the fleets file says something else".to_owned(),
            json!({"digest": digest}),
        ),
        Reloaded::Refused(error) => ("policy-refused", crate::api::error_chain(error), json!({})),
    };
    let actor = "collector".to_owned();
    let entry = ledger::Entry {
        kind,
        fleet: None,
        subject: None,
        reason,
        detail,
        actor,
    };
    app.store
        .write(move |tx| Ok::<_, StoreError>(ledger::append(tx, clock::now_ms(), &entry)?))
        .await?;
    Ok(())
}

/// The policies as `check-config` prints them: a line for each fleet.
pub fn shown_policies(fleets: &Fleets) -> Vec<String> {
    let line = |(name, policy): (&str, &Policy)| {
        let channel = policy.channel.as_deref().unwrap_or("-");
        let (mode, replacer) = (policy.mode.word(), policy.replacer.word());
        format!(
            "fleet {name}: {mode}, channel {channel}, replacer {replacer}, stop above {}",
            policy.stop_above
        )
    };
    fleets.iter().map(line).collect()
}
