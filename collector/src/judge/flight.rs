//! The way of an order from executing to verified, by exactly the machine that its replacer named.

use drift::report::InstanceState;

use super::order::milliseconds;
use super::{Decision, Fleet, Instance, Order, OrderState, Proof, Situation};

/// After so many heartbeats every living agent was heard again by a collector that just started.
const HEARTBEATS_TO_CATCH_UP: i64 = 3;

/// The next step of an order in flight: verified, failed, or another sentence on what is missing.
pub(super) fn judge(
    fleet: &Fleet,
    order: &Order,
    situation: &Situation,
    now_ms: i64,
) -> Option<Decision> {
    if order.state == OrderState::Failed {
        return None;
    }
    let (to, why) = match verified(fleet, order) {
        Ok(replacement) if order.state == OrderState::Replaced => (
            OrderState::Verified,
            format!(
                "replacement {} is enrolled with proof, on the image, and clean",
                replacement.id
            ),
        ),
        Ok(_) => return None,
        Err(missing) if out_of_time(fleet, order, situation, now_ms) => (
            OrderState::Failed,
            format!("not verified in time: {missing}"),
        ),
        Err(missing) => (order.state, missing),
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

/// The one instance that verifies an order, or what is missing.
///
/// Another instance, a claimed cloud id, an enrolment from before the order, another image or an open drift is not it,
/// however clean it says it is.
fn verified<'a>(fleet: &'a Fleet, order: &Order) -> Result<&'a Instance, String> {
    let executing_ms = order.executing_ms.ok_or("it is not executing")?;
    let named = order
        .replacement
        .as_ref()
        .ok_or("the replacement is not named yet")?;
    let is_named = |instance: &&Instance| {
        instance.cloud_id.as_deref() == Some(named.cloud_id.as_str())
            && instance.id != order.instance
    };
    let enrolled_since = |instance: &&Instance| instance.enrolled_ms > executing_ms;
    let candidate = fleet
        .instances
        .iter()
        .filter(is_named)
        .filter(enrolled_since);
    let proven = candidate
        .clone()
        .find(|instance| instance.proof == Proof::Proven && !instance.is_gone());
    let instance = match proven {
        Some(instance) => instance,
        None if candidate.count() > 0 => {
            return Err(format!(
                "{} only claims its cloud id, or is gone",
                named.cloud_id
            ));
        }
        None => {
            return Err(format!(
                "replacement {} has not enrolled since",
                named.cloud_id
            ));
        }
    };
    if instance.image.is_none() || instance.image != order.image {
        return Err(format!(
            "replacement {} is not on the order's image",
            instance.id
        ));
    }
    if instance.state != InstanceState::Clean {
        return Err(format!(
            "replacement {} is {}",
            instance.id,
            instance.state.word()
        ));
    }
    Ok(instance)
}

/// Whether the time limit is over, in which this collector was able to hear.
fn out_of_time(fleet: &Fleet, order: &Order, situation: &Situation, now_ms: i64) -> bool {
    let begun = order.executing_ms.unwrap_or(order.planned_ms);
    let catching_up = HEARTBEATS_TO_CATCH_UP
        * milliseconds(situation.heartbeat).min(i64::MAX / HEARTBEATS_TO_CATCH_UP);
    now_ms.saturating_sub(begun) >= milliseconds(fleet.policy.verify_within)
        && now_ms.saturating_sub(situation.listening_since_ms) >= catching_up
}
