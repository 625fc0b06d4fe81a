//! A world for tests: a situation, and the simplest executor that does what the judge says.

use std::collections::BTreeMap;
use std::time::Duration;

use drift::Blake3;
use drift::class::Severity;
use drift::report::{ImageRef, InstanceState};

use super::*;
use crate::policy::{Mode, Policy, Replacer, Share};

pub(super) const MINUTE: i64 = 60_000;

pub(super) struct World {
    pub(super) situation: Situation,
    pub(super) now_ms: i64,
    pub(super) over: Vec<Order>,
    issued: u64,
}

pub(super) fn policy(mode: Mode) -> Policy {
    Policy {
        channel: Some("web".into()),
        mode,
        grace: Duration::from_secs(300),
        parallel: 1,
        stop_above: Share::parse("20%").unwrap(),
        minimum_severity: Severity::Low,
        verify_within: Duration::from_secs(1_800),
        replacer: Replacer::Probe,
    }
}

pub(super) fn image(version: &str) -> ImageRef {
    ImageRef {
        name: "web".into(),
        version: version.into(),
        build: "amd64".into(),
        manifest: Blake3::of(version.as_bytes()),
    }
}

pub(super) fn good(version: &str) -> LastGood {
    let builds = BTreeMap::from([("amd64".to_owned(), image(version).manifest)]);
    LastGood {
        name: "web".into(),
        version: version.into(),
        builds,
    }
}

impl World {
    /// A fleet of clean, proven instances that were all heard, an hour after the collector started.
    pub(super) fn of(mode: Mode, count: usize) -> Self {
        let fleet = Fleet {
            name: "web".into(),
            policy: policy(mode),
            last_good: Ok(good("1")),
            instances: Vec::new(),
            orders: Vec::new(),
        };
        let situation = Situation {
            listening_since_ms: 0,
            heartbeat: Duration::from_secs(60),
            fleets: vec![fleet],
        };
        let mut world = World {
            situation,
            now_ms: 60 * MINUTE,
            over: Vec::new(),
            issued: 0,
        };
        (0..count).for_each(|number| world.enrol(&format!("vm-{number}"), Proof::Proven));
        world
    }

    pub(super) fn fleet(&mut self) -> &mut Fleet {
        &mut self.situation.fleets[0]
    }

    /// The instance of that number, in the order of enrolment.
    pub(super) fn instance(&mut self, number: usize) -> &mut Instance {
        &mut self.fleet().instances[number]
    }

    pub(super) fn enrol(&mut self, cloud_id: &str, proof: Proof) {
        let now_ms = self.now_ms;
        let instances = &mut self.fleet().instances;
        instances.push(Instance {
            id: format!("i-{}", instances.len()),
            cloud_id: Some(cloud_id.into()),
            proof,
            state: InstanceState::Clean,
            image: Some(image("1")),
            enrolled_ms: now_ms,
            heard_ms: Some(now_ms),
            drifts: None,
            again: None,
            hold: None,
            mark: None,
        });
    }

    pub(super) fn drift(&mut self, number: usize, worst: Severity) {
        let instance = self.instance(number);
        instance.state = InstanceState::Drifted;
        instance.drifts = Some(Drifts { count: 1, worst });
    }

    pub(super) fn put_back(&mut self, number: usize) {
        let instance = self.instance(number);
        instance.state = InstanceState::Clean;
        instance.drifts = None;
    }

    pub(super) fn pass(&mut self, minutes: i64) {
        self.now_ms += minutes * MINUTE;
    }

    /// One round: judge, and carry everything out.
    pub(super) fn round(&mut self) -> Vec<Decision> {
        let decisions = judge(&self.situation, self.now_ms);
        decisions
            .iter()
            .for_each(|decision| self.carry_out(decision));
        decisions
    }

    /// Rounds until there is nothing more to do.
    pub(super) fn settle(&mut self) {
        const ENOUGH: usize = 12;
        assert!(
            (0..ENOUGH).any(|_| self.round().is_empty()),
            "the judge does not come to rest"
        );
    }

    /// The states of all orders that are not over, in the order of planning.
    pub(super) fn states(&self) -> Vec<OrderState> {
        self.situation.fleets[0]
            .orders
            .iter()
            .map(|order| order.state)
            .collect()
    }

    /// The only order that is not over.
    pub(super) fn order(&mut self) -> &mut Order {
        let orders = &mut self.fleet().orders;
        assert_eq!(orders.len(), 1, "exactly one order is open: {orders:?}");
        &mut orders[0]
    }

    pub(super) fn name_replacement(&mut self, cloud_id: &str) {
        let old = {
            let order = self.order();
            order.replacement = Some(Replacement {
                cloud_id: cloud_id.into(),
            });
            order.state = OrderState::Replaced;
            order.instance.clone()
        };
        let instance = self
            .fleet()
            .instances
            .iter_mut()
            .find(|instance| instance.id == old)
            .unwrap();
        instance.state = InstanceState::Replaced;
    }

    fn carry_out(&mut self, decision: &Decision) {
        let now_ms = self.now_ms;
        self.issued += 1;
        let id = format!("o-{}", self.issued);
        let fleet = &mut self.situation.fleets[0];
        let find = |instances: &mut Vec<Instance>, id: &str| {
            instances
                .iter()
                .position(|instance| instance.id == id)
                .unwrap()
        };
        match decision {
            Decision::Mark {
                instance, reason, ..
            } => {
                let at = find(&mut fleet.instances, instance);
                let declined = fleet.instances[at]
                    .mark
                    .take()
                    .and_then(|mark| mark.declined);
                fleet.instances[at].mark = Some(Mark {
                    reason: reason.clone(),
                    declined,
                });
            }
            Decision::Unmark { instance, .. } => {
                let at = find(&mut fleet.instances, instance);
                fleet.instances[at].mark = None;
            }
            Decision::Plan {
                instance,
                image,
                why,
                ..
            } => fleet.orders.push(Order {
                id,
                generation: 1,
                instance: instance.clone(),
                image: image.clone(),
                state: if image.is_some() {
                    OrderState::Planned
                } else {
                    OrderState::Blocked
                },
                why: why.clone(),
                planned_ms: now_ms,
                grace_ms: None,
                approval: None,
                executing_ms: None,
                replacement: None,
            }),
            Decision::Move {
                order,
                from,
                to,
                why,
                ..
            } => {
                let at = fleet
                    .orders
                    .iter()
                    .position(|open| open.id == *order)
                    .unwrap();
                let order = &mut fleet.orders[at];
                assert_eq!(order.state, *from);
                assert!(
                    from == to || from.may_become(*to),
                    "{from:?} → {to:?} is not in the drawing"
                );
                (order.state, order.why) = (*to, why.clone());
                match to {
                    OrderState::InGrace => _ = order.grace_ms.get_or_insert(now_ms),
                    OrderState::Approved => _ = order.approval.get_or_insert(Approval::Policy),
                    OrderState::Executing => order.executing_ms = Some(now_ms),
                    _ => {}
                }
                if to.is_over() {
                    let order = fleet.orders.remove(at);
                    self.over.push(order);
                }
            }
        }
    }
}
