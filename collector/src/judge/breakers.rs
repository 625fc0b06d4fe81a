//! What stops replacements in one fleet: counted once for a round, and drawn down by every order that goes.

use drift::report::{ImageRef, InstanceState};

use super::{Fleet, Instance, Order, Situation};
use crate::policy::Share;

/// The slots and shares of one fleet in one round.
///
/// A **place** is a machine that the fleet should have: an order in flight is one, with its old instance and its named
/// replacement; every other proven instance that is not stopped, replaced or retired is one.
#[derive(Debug)]
pub(super) struct Fuse {
    places: usize,
    unhealthy: usize,
    in_flight: usize,
    parallel: usize,
    stop_above: Share,
    heard: usize,
    proven: usize,
}

impl Fuse {
    pub(super) fn of(fleet: &Fleet, situation: &Situation) -> Self {
        let flights: Vec<&Order> = fleet
            .orders
            .iter()
            .filter(|order| order.state.in_flight())
            .collect();
        let counted: Vec<&Instance> = fleet
            .instances
            .iter()
            .filter(|instance| instance.counts())
            .collect();
        let own_place =
            |instance: &&&Instance| !flights.iter().any(|order| concerns(order, instance));
        let places: Vec<&&Instance> = counted.iter().filter(own_place).collect();
        let heard_again = |instance: &&&Instance| {
            instance
                .heard_ms
                .is_some_and(|heard| heard >= situation.listening_since_ms)
        };
        Fuse {
            places: places.len() + flights.len(),
            unhealthy: places
                .iter()
                .filter(|instance| !instance.is_healthy())
                .count()
                + flights.len(),
            in_flight: flights.len(),
            parallel: fleet.policy.parallel,
            stop_above: fleet.policy.stop_above,
            heard: counted.iter().filter(heard_again).count(),
            proven: counted.len(),
        }
    }

    /// Whether data or share forbid that anything executes in this fleet now.
    pub(super) fn blown(&self) -> Option<String> {
        if self.heard * 2 <= self.proven {
            let Fuse { heard, proven, .. } = self;
            return Some(format!(
                "stale data: heard from {heard} of {proven} instances since this collector started"
            ));
        }
        if self.unhealthy > self.stop_above.of(self.places) {
            let Fuse {
                unhealthy,
                places,
                stop_above,
                ..
            } = self;
            return Some(format!(
                "unhealthy share: {unhealthy} of {places} are unhealthy, above {stop_above}"
            ));
        }
        None
    }

    /// Takes a slot, or says that none is free. The instance was unhealthy and stays so: the share does not change.
    pub(super) fn take_slot(&mut self) -> Result<(), String> {
        if self.in_flight >= self.parallel {
            let Fuse {
                in_flight,
                parallel,
                ..
            } = self;
            return Err(format!(
                "waits for a slot: {in_flight} in flight, {parallel} at a time"
            ));
        }
        self.in_flight += 1;
        Ok(())
    }
}

/// What forbids that this one instance is replaced now, whatever the rest of the fleet is like.
pub(super) fn forbids(instance: &Instance) -> Option<String> {
    if let Some(hold) = &instance.hold {
        return Some(format!("held by an operator: {}", hold.reason));
    }
    match instance.state {
        InstanceState::Drifted => None,
        InstanceState::Silent => Some("stale data: the instance is silent".into()),
        other => Some(format!("stale data: the instance is {}", other.word())),
    }
}

/// What forbids another replacement from this image: the instance is one, and drifts as the machine before it did. Only
/// another image, or an operator, ends that; a loop would cost a machine each time and leave the fleet as it was.
pub(super) fn loops(instance: &Instance, image: &ImageRef) -> Option<String> {
    let again = instance.again.as_ref()?;
    (again.image.as_ref() == Some(image)).then(|| {
        format!(
            "a replacement that drifts again: it replaced {} (order {}) from {} {}, and drifts in the same way; \
             find the cause, promote another image, or cancel",
            again.replaced, again.order, image.name, image.version
        )
    })
}

fn concerns(order: &Order, instance: &Instance) -> bool {
    let named = order
        .replacement
        .as_ref()
        .map(|replacement| replacement.cloud_id.as_str());
    order.instance == instance.id || (named.is_some() && named == instance.cloud_id.as_deref())
}
