//! What holds of the judge in random stories.

use drift::class::Severity;
use drift::report::InstanceState;
use proptest::prelude::*;

use super::world::{World, good};
use super::*;
use crate::policy::Mode;

#[derive(Debug, Clone)]
enum Event {
    Drift(usize, Severity),
    PutBack(usize),
    Become(usize, InstanceState),
    Hold(usize),
    Release(usize),
    Enrol(Proof),
    LastGood(Option<&'static str>),
    Replace,
    Restart,
    Hear(usize),
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    use InstanceState::{Enrolled, Retired, Silent, Stopped, Unverifiable};
    let severity = prop_oneof![
        Just(Severity::Info),
        Just(Severity::Low),
        Just(Severity::Critical)
    ];
    let state = prop_oneof![
        Just(Silent),
        Just(Stopped),
        Just(Unverifiable),
        Just(Enrolled),
        Just(Retired)
    ];
    prop_oneof![
        4 => (0..30usize, severity).prop_map(|(number, severity)| Event::Drift(number, severity)),
        2 => (0..30usize).prop_map(Event::PutBack),
        1 => (0..30usize, state).prop_map(|(number, state)| Event::Become(number, state)),
        1 => (0..30usize).prop_map(Event::Hold),
        1 => (0..30usize).prop_map(Event::Release),
        2 => prop_oneof![Just(Proof::Proven), Just(Proof::Claimed)].prop_map(Event::Enrol),
        1 => prop_oneof![Just(None), Just(Some("1")), Just(Some("2"))].prop_map(Event::LastGood),
        2 => Just(Event::Replace),
        1 => Just(Event::Restart),
        2 => (0..30usize).prop_map(Event::Hear),
        6 => (0..10i64).prop_map(Event::Pass),
    ]
}

fn happen(world: &mut World, event: Event) {
    let count = world.fleet().instances.len();
    let now_ms = world.now_ms;
    match event {
        Event::Drift(number, severity) => world.drift(number % count, severity),
        Event::PutBack(number) => world.put_back(number % count),
        Event::Become(number, state) => world.instance(number % count).state = state,
        Event::Hold(number) => {
            world.instance(number % count).hold = Some(Hold {
                reason: "look".into(),
            });
        }
        Event::Release(number) => world.instance(number % count).hold = None,
        Event::Enrol(proof) => world.enrol(&format!("vm-{count}"), proof),
        Event::LastGood(version) => {
            world.fleet().last_good = version.map(good).ok_or_else(|| "there is none".to_owned());
        }
        Event::Replace => {
            let named = format!("vm-{count}");
            let executing = world
                .fleet()
                .orders
                .iter_mut()
                .find(|order| order.state == OrderState::Executing);
            let Some(order) = executing else { return };
            order.state = OrderState::Replaced;
            order.replacement = Some(Replacement {
                cloud_id: named.clone(),
            });
            let old = order.instance.clone();
            let old = world
                .fleet()
                .instances
                .iter_mut()
                .find(|instance| instance.id == old)
                .unwrap();
            old.state = InstanceState::Replaced;
            world.pass(1);
            world.enrol(&named, Proof::Proven);
        }
        Event::Restart => world.situation.listening_since_ms = now_ms,
        Event::Hear(number) => world.instance(number % count).heard_ms = Some(now_ms),
        Event::Pass(minutes) => world.pass(minutes),
    }
}

/// Checks one round's decisions against the situation that they were made in.
fn check_round(before: &Situation, decisions: &[Decision], world: &World) {
    let fleet = &before.fleets[0];
    let starts = |decision: &&Decision| {
        matches!(
            decision,
            Decision::Move {
                from: OrderState::Approved,
                to: OrderState::Executing,
                ..
            }
        )
    };
    let flying = world.situation.fleets[0]
        .orders
        .iter()
        .filter(|order| order.state.in_flight())
        .count();
    assert!(flying <= fleet.policy.parallel, "{flying} in flight");
    let counted: Vec<_> = fleet
        .instances
        .iter()
        .filter(|instance| instance.counts())
        .collect();
    for decision in decisions.iter().filter(starts) {
        let Decision::Move {
            instance, order, ..
        } = decision
        else {
            unreachable!("filtered")
        };
        let instance = fleet.instance(instance).unwrap();
        let order = fleet.orders.iter().find(|open| open.id == *order).unwrap();
        assert_eq!(
            instance.proof,
            Proof::Proven,
            "a claimed instance is ordered"
        );
        assert_eq!(
            instance.state,
            InstanceState::Drifted,
            "only what is drifted now is replaced"
        );
        assert!(instance.hold.is_none(), "a held instance is replaced");
        assert_eq!(
            order.image,
            wanted_image(&fleet.last_good, instance.image.as_ref()).ok()
        );
        assert!(order.image.is_some(), "executing without a last good image");
        let heard = counted
            .iter()
            .filter(|instance| instance.heard_ms >= Some(before.listening_since_ms))
            .count();
        assert!(heard * 2 > counted.len(), "executing on stale data");
        let unhealthy = counted
            .iter()
            .filter(|instance| instance.state != InstanceState::Clean)
            .count();
        let share = fleet.policy.stop_above.of(counted.len() + flying);
        assert!(
            unhealthy <= share,
            "{unhealthy} unhealthy of {}",
            counted.len()
        );
    }
    for decision in decisions {
        if let Decision::Plan { instance, .. } | Decision::Mark { instance, .. } = decision {
            assert_eq!(fleet.instance(instance).unwrap().proof, Proof::Proven);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_breakers_hold(
        count in 1..25usize,
        parallel in 1..4usize,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::of(Mode::Replace, count);
        world.fleet().policy.parallel = parallel;
        for event in events {
            happen(&mut world, event);
            let before = world.situation.clone();
            let decisions = world.round();
            check_round(&before, &decisions, &world);
        }
        world.settle();
    }

    #[test]
    fn only_replace_and_an_approver_make_anything_execute(
        count in 1..25usize,
        observe in any::<bool>(),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::of(if observe { Mode::Observe } else { Mode::Approve }, count);
        for event in events {
            happen(&mut world, event);
            world.round();
            prop_assert!(world.states().iter().all(|state| state.is_waiting()));
            prop_assert!(!observe || world.states().is_empty());
        }
    }

    #[test]
    fn the_judge_is_a_function(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::of(Mode::Replace, 10);
        for event in events {
            happen(&mut world, event);
            world.round();
            prop_assert_eq!(judge(&world.situation, world.now_ms), judge(&world.situation, world.now_ms));
        }
    }

    #[test]
    fn more_trouble_never_makes_more_execute(
        drifts in prop::collection::vec(0..20usize, 1..6),
        trouble in prop::collection::vec(0..20usize, 1..6),
    ) {
        let mut world = World::of(Mode::Replace, 20);
        world.fleet().policy.parallel = 20;
        drifts.iter().for_each(|&number| world.drift(number, Severity::High));
        world.settle();
        world.pass(5);
        world.round();
        let started = |world: &World| judge(&world.situation, world.now_ms)
            .iter()
            .filter(|decision| matches!(decision, Decision::Move { to: OrderState::Executing, .. }))
            .count();
        let calm = started(&world);
        trouble.iter().for_each(|&number| world.instance(number).state = InstanceState::Silent);
        prop_assert!(started(&world) <= calm);
    }
}
