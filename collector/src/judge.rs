//! Receives what is so (policy, instances, orders, last good images) and the time, and hands on what is to be done about
//! it. It reads no clock and does no I/O: whoever asks twice gets the same answer.
//!
//! A **mark** is the standing decision that an instance is to be replaced; it opens when a proven instance has drift
//! that is worth it, in every mode, and closes when the instance is clean or gone. An **order** is one replacement to
//! carry out. Its content (instance, image, generation) never changes; what changes is its state:
//!
//! ```text
//!                  ┌─────────────── breaker clears ──────────────┐
//!                  ▼                                             │
//!  mark ──▶ planned ──▶ in-grace ──▶ approved ──▶ executing      │
//!              │            │            │            │          │
//!              ├────────────┼────────────┤            ▼          │
//!              │            │            ├──────▶ blocked ───────┘
//!              ▼            ▼            ▼            │        replacement named
//!          cancelled: clean again, gone, last good moved, operator      │
//!                                                     executing ──▶ replaced ──▶ verified
//!                                                         │            │
//!                                        time limit,      └─────┬──────┘
//!                                        replacer failed        ▼
//!                                                            failed ──▶ cancelled (an operator resolved it)
//! ```
//!
//! From `executing` on, until it is verified or an operator resolves it, an order is **in flight**: it takes a slot and
//! counts as unhealthy, whatever its replacement says of itself.
//!
//! What stops an order from executing: no last good image, an operator's hold, stale data (the instance is silent, or
//! this collector has not yet heard from most of the fleet), the unhealthy share, the parallel cap, and a replacement that
//! drifts again in the same way while last good is still the image that it came from. An empty set stops
//! everything: a fleet without instances has nothing to replace, and one that was not heard from is not acted upon.

mod breakers;
mod decision;
mod flight;
mod mark;
mod order;
#[cfg(test)]
mod properties;
mod situation;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod world;

pub use decision::{Decision, OrderState};
pub use situation::{
    Again, Approval, Drifts, Fleet, Hold, Instance, LastGood, Mark, Order, Proof, Replacement,
    Situation, wanted_image,
};

use breakers::Fuse;

/// What is to be done about a situation, at `now_ms` (milliseconds since 1970, by the collector's clock).
///
/// Decisions are in the order in which they are to be carried out. Carrying out all of them and judging again at the
/// same time gives at most the next step of each order, and in the end nothing.
#[must_use]
pub fn judge(situation: &Situation, now_ms: i64) -> Vec<Decision> {
    situation
        .fleets
        .iter()
        .flat_map(|fleet| judge_fleet(fleet, situation, now_ms))
        .collect()
}

fn judge_fleet(fleet: &Fleet, situation: &Situation, now_ms: i64) -> Vec<Decision> {
    let mut fuse = Fuse::of(fleet, situation);
    let mut decisions: Vec<Decision> = fleet
        .instances
        .iter()
        .filter_map(|instance| mark::judge(fleet, instance))
        .collect();
    for order in fleet.orders.iter().filter(|order| order.state.in_flight()) {
        decisions.extend(flight::judge(fleet, order, situation, now_ms));
    }
    for order in order::by_urgency(fleet) {
        decisions.extend(order::judge(fleet, order, &mut fuse, now_ms));
    }
    decisions.extend(
        fleet
            .instances
            .iter()
            .filter_map(|instance| order::plan(fleet, instance)),
    );
    decisions
}
