//! The way of an order from planned to executing, and whatever ends it before.

use std::cmp::Reverse;

use drift::class::Severity;

use super::breakers::{Fuse, forbids, loops};
use super::mark::{Settled, worth_replacing};
use super::{Approval, Decision, Fleet, Instance, Order, OrderState, wanted_image};
use crate::policy::{Mode, shown_duration};

/// The orders that wait, the worst drift first, then the oldest: the same situation gives the same order of orders.
pub(super) fn by_urgency(fleet: &Fleet) -> Vec<&Order> {
    let worst = |order: &Order| {
        let drifts = fleet
            .instance(&order.instance)
            .and_then(|instance| instance.drifts.as_ref());
        drifts.map_or(Severity::Info, |drifts| drifts.worst.clone())
    };
    let mut waiting: Vec<&Order> = fleet
        .orders
        .iter()
        .filter(|order| order.state.is_waiting())
        .collect();
    waiting.sort_by_cached_key(|order| (Reverse(worst(order)), order.planned_ms, order.id.clone()));
    waiting
}

/// The next step of an order that waits.
pub(super) fn judge(
    fleet: &Fleet,
    order: &Order,
    fuse: &mut Fuse,
    now_ms: i64,
) -> Option<Decision> {
    let (to, why) = match next(fleet, order, fuse, now_ms) {
        Next::Cancel(why) => (OrderState::Cancelled, why),
        Next::Block(why) => (OrderState::Blocked, why),
        Next::Go(state, why) => (state, why),
    };
    if to == order.state && why == order.why {
        return None;
    }
    Some(Decision::Move {
        fleet: fleet.name.clone(),
        order: order.id.clone(),
        generation: order.generation,
        instance: order.instance.clone(),
        from: order.state,
        to,
        why,
    })
}

/// A new order for a marked instance that has none. The mark comes first: what is not yet marked is planned in the next
/// round.
pub(super) fn plan(fleet: &Fleet, instance: &Instance) -> Option<Decision> {
    let mark = instance.mark.as_ref()?;
    let has_order = fleet
        .orders
        .iter()
        .any(|order| order.instance == instance.id);
    if fleet.policy.mode == Mode::Observe || has_order || mark.declined.is_some() {
        return None;
    }
    let why = worth_replacing(fleet, instance).ok()?;
    let (image, why) = match wanted_image(&fleet.last_good, instance.image.as_ref()) {
        Ok(image) => (Some(image), why),
        Err(missing) => (None, format!("no last good image: {missing}")),
    };
    Some(Decision::Plan {
        fleet: fleet.name.clone(),
        instance: instance.id.clone(),
        image,
        why,
    })
}

enum Next {
    Cancel(String),
    Block(String),
    Go(OrderState, String),
}

fn next(fleet: &Fleet, order: &Order, fuse: &mut Fuse, now_ms: i64) -> Next {
    let Some(instance) = fleet.instance(&order.instance) else {
        return Next::Cancel("the instance is not of this fleet".into());
    };
    if fleet.policy.mode == Mode::Observe {
        return Next::Cancel("the fleet is only observed now".into());
    }
    if let Err(Settled::Over(why)) = worth_replacing(fleet, instance) {
        return Next::Cancel(why);
    }
    let image = match wanted_image(&fleet.last_good, instance.image.as_ref()) {
        Ok(image) if order.image.as_ref() != Some(&image) => {
            return Next::Cancel(format!("last good is {} {} now", image.name, image.version));
        }
        Ok(image) => image,
        Err(missing) => return Next::Block(format!("no last good image: {missing}")),
    };
    if let Some(why) = forbids(instance) {
        return Next::Block(why);
    }
    if let Some(why) = loops(instance, &image) {
        return Next::Block(why);
    }
    match (&order.approval, fleet.policy.mode) {
        (None, _) => return in_grace(fleet, order, now_ms),
        (Some(Approval::Policy), Mode::Approve) => {
            return Next::Cancel("orders of this fleet need approval now".into());
        }
        (Some(_), _) => {}
    }
    if let Some(why) = fuse.blown() {
        return Next::Block(why);
    }
    if order.state != OrderState::Approved {
        return Next::Go(OrderState::Approved, "nothing blocks it any more".into());
    }
    match fuse.take_slot() {
        Ok(()) => Next::Go(
            OrderState::Executing,
            format!("replace with {} {}", image.name, image.version),
        ),
        Err(why) => Next::Go(OrderState::Approved, why),
    }
}

/// An order that nobody approved yet.
fn in_grace(fleet: &Fleet, order: &Order, now_ms: i64) -> Next {
    let grace = fleet.policy.grace;
    let since = order
        .grace_ms
        .filter(|_| order.state != OrderState::Planned);
    let over = since.is_some_and(|since| now_ms.saturating_sub(since) >= milliseconds(grace));
    match fleet.policy.mode {
        Mode::Replace if over && order.state == OrderState::InGrace => Next::Go(
            OrderState::Approved,
            format!("the grace of {} is over", shown_duration(grace)),
        ),
        Mode::Approve if over => Next::Go(OrderState::InGrace, "waits for approval".into()),
        _ => Next::Go(
            OrderState::InGrace,
            format!("grace of {}", shown_duration(grace)),
        ),
    }
}

pub(super) fn milliseconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
