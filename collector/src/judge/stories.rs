//! What holds of the judge, as stories.

use drift::class::Severity;
use drift::report::InstanceState;

use super::world::{World, good, image};
use super::*;
use crate::policy::Mode;

fn drifted(mode: Mode, count: usize) -> World {
    let mut world = World::of(mode, count);
    world.drift(0, Severity::High);
    world.settle();
    world
}

fn executing(count: usize) -> World {
    let mut world = drifted(Mode::Replace, count);
    world.pass(5);
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
    world.pass(1);
    world
}

#[test]
fn a_replacement_that_drifts_in_the_same_way_blocks_until_another_image_is_last_good() {
    let mut world = drifted(Mode::Replace, 10);
    world.instance(0).again = Some(Again {
        order: "o-0".into(),
        replaced: "i-before".into(),
        image: Some(image("1")),
    });
    for _ in 0..5 {
        world.pass(5);
        world.settle();
        assert_eq!(world.states(), [OrderState::Blocked]);
    }
    let why = world.order().why.clone();
    assert!(
        why.starts_with(
            "a replacement that drifts again: it replaced i-before (order o-0) from web 1"
        ),
        "{why}"
    );
    world.order().approval = Some(Approval::Operator("alice".into()));
    world.settle();
    assert_eq!(
        world.states(),
        [OrderState::Blocked],
        "the breakers still hold"
    );
    world.fleet().last_good = Ok(good("2"));
    world.settle();
    world.pass(5);
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn a_clean_fleet_gives_nothing_to_do() {
    assert_eq!(World::of(Mode::Replace, 3).round(), []);
}

#[test]
fn an_empty_fleet_gives_nothing_to_do() {
    assert_eq!(World::of(Mode::Replace, 0).round(), []);
}

#[test]
fn observe_marks_says_what_would_happen_and_orders_nothing() {
    let mut world = drifted(Mode::Observe, 3);
    world.pass(60);
    world.settle();
    let reason = world.instance(0).mark.clone().unwrap().reason;
    assert_eq!(
        reason,
        "1 drift is open, the worst high; observed only, it would be replaced with web 1 (amd64)"
    );
    assert_eq!(world.states(), []);
}

#[test]
fn approve_waits_for_an_approver_however_long() {
    let mut world = drifted(Mode::Approve, 3);
    world.pass(600);
    world.settle();
    assert_eq!(world.order().why, "waits for approval");
    world.order().state = OrderState::Approved;
    world.order().approval = Some(Approval::Operator("alice".into()));
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn replace_executes_after_the_grace_and_not_before() {
    let mut world = drifted(Mode::Replace, 3);
    world.pass(4);
    world.settle();
    assert_eq!(world.states(), [OrderState::InGrace]);
    world.pass(1);
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn an_instance_that_is_clean_again_before_executing_is_left_alone() {
    let mut world = drifted(Mode::Replace, 3);
    world.put_back(0);
    world.pass(60);
    world.settle();
    assert_eq!(world.states(), []);
    assert_eq!(world.instance(0).mark, None);
}

#[test]
fn drift_below_the_minimum_severity_is_not_marked() {
    let mut world = World::of(Mode::Replace, 3);
    world.drift(0, Severity::Info);
    assert_eq!(world.round(), []);
}

#[test]
fn a_severity_of_a_later_version_is_not_below_any() {
    let mut world = World::of(Mode::Replace, 3);
    world.drift(0, Severity::Unknown("apocalyptic".into()));
    assert_eq!(world.round().len(), 1);
}

#[test]
fn a_claimed_instance_is_never_marked_nor_ordered_nor_counted() {
    let mut world = World::of(Mode::Replace, 3);
    world.enrol("vm-of-another", Proof::Claimed);
    world.drift(3, Severity::Critical);
    assert_eq!(world.round(), []);
    world.drift(0, Severity::Low);
    world.pass(5);
    world.settle();
    world.pass(5);
    world.settle();
    assert_eq!(
        world.states(),
        [OrderState::Executing],
        "the claimed one does not make the share unhealthy"
    );
}

#[test]
fn a_held_instance_is_not_replaced_until_it_is_released() {
    let mut world = drifted(Mode::Replace, 3);
    world.instance(0).hold = Some(Hold {
        reason: "forensics".into(),
    });
    world.pass(60);
    world.settle();
    assert_eq!(world.order().why, "held by an operator: forensics");
    world.instance(0).hold = None;
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn no_last_good_image_blocks_and_says_so() {
    let mut world = World::of(Mode::Replace, 3);
    world.fleet().last_good = Err("every image of channel web is revoked".into());
    world.drift(0, Severity::High);
    world.pass(600);
    world.settle();
    assert_eq!(world.states(), [OrderState::Blocked]);
    assert_eq!(
        world.order().why,
        "no last good image: every image of channel web is revoked"
    );
}

#[test]
fn an_order_for_an_image_that_is_no_longer_last_good_is_cancelled_and_planned_anew() {
    let mut world = drifted(Mode::Replace, 3);
    world.fleet().last_good = Ok(good("2"));
    world.settle();
    assert_eq!(world.over[0].state, OrderState::Cancelled);
    assert_eq!(world.order().image, Some(image("2")));
    assert_eq!(
        world.states(),
        [OrderState::InGrace],
        "and its grace begins anew"
    );
}

#[test]
fn too_many_drifted_at_once_are_marked_and_none_is_replaced() {
    let mut world = World::of(Mode::Replace, 10);
    (0..3).for_each(|number| world.drift(number, Severity::Critical));
    world.settle();
    world.pass(60);
    world.settle();
    assert_eq!(world.states(), [OrderState::Blocked; 3]);
    let why = world.fleet().orders[0].why.clone();
    assert_eq!(why, "unhealthy share: 3 of 10 are unhealthy, above 20%");
    assert!((0..3).all(|number| world.instance(number).mark.is_some()));
}

#[test]
fn silent_instances_count_as_unhealthy() {
    let mut world = drifted(Mode::Replace, 9);
    world.instance(1).state = InstanceState::Silent;
    world.pass(60);
    world.settle();
    assert_eq!(world.states(), [OrderState::Blocked]);
}

#[test]
fn a_silent_instance_keeps_its_mark_and_is_not_replaced() {
    let mut world = drifted(Mode::Replace, 3);
    world.instance(0).state = InstanceState::Silent;
    world.pass(60);
    world.settle();
    assert!(world.instance(0).mark.is_some());
    assert_eq!(world.order().why, "stale data: the instance is silent");
}

#[test]
fn a_collector_that_just_started_executes_nothing_until_it_heard_from_most() {
    let mut world = drifted(Mode::Replace, 3);
    world.pass(60);
    world.situation.listening_since_ms = world.now_ms;
    world.settle();
    assert_eq!(
        world.order().why,
        "stale data: heard from 0 of 3 instances since this collector started"
    );
    let now_ms = world.now_ms;
    (0..2).for_each(|number| world.instance(number).heard_ms = Some(now_ms));
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn the_worst_drift_goes_first() {
    let mut world = World::of(Mode::Replace, 10);
    world.drift(0, Severity::Low);
    world.drift(1, Severity::Critical);
    world.settle();
    world.pass(5);
    world.settle();
    assert_eq!(
        world.states(),
        [OrderState::Approved, OrderState::Executing]
    );
    assert_eq!(
        world.fleet().orders[0].why,
        "waits for a slot: 1 in flight, 1 at a time"
    );
}

#[test]
fn an_order_that_an_operator_cancelled_is_not_planned_again() {
    let mut world = drifted(Mode::Replace, 3);
    world.fleet().orders.clear();
    world.instance(0).mark.as_mut().unwrap().declined = Some("we know".into());
    world.pass(60);
    world.settle();
    assert_eq!(world.states(), []);
}

#[test]
fn an_order_that_waited_under_replace_is_not_executed_under_approve_or_observe() {
    for mode in [Mode::Approve, Mode::Observe] {
        let mut world = drifted(Mode::Replace, 3);
        world.pass(5);
        world.round();
        assert_eq!(world.states(), [OrderState::Approved]);
        world.fleet().policy.mode = mode;
        world.pass(60);
        world.settle();
        assert!(
            world.states().iter().all(|state| state.is_waiting()),
            "{mode:?}"
        );
    }
}

#[test]
fn exactly_the_named_replacement_verifies_and_frees_the_slot() {
    let mut world = executing(3);
    world.name_replacement("vm-new");
    world.settle();
    assert_eq!(
        world.order().why,
        "replacement vm-new has not enrolled since"
    );
    world.enrol("vm-new", Proof::Proven);
    world.settle();
    assert_eq!(world.over[0].state, OrderState::Verified);
}

#[test]
fn a_goodbye_takes_nobody_out_of_a_mark() {
    let mut world = World::of(Mode::Replace, 10);
    world.drift(0, Severity::High);
    world.settle();
    world.instance(0).state = InstanceState::Stopped;
    world.settle();
    assert!(world.instance(0).mark.is_some());
    assert_eq!(world.order().state, OrderState::Blocked);
    world.put_back(0);
    world.settle();
    assert!(world.instance(0).mark.is_none(), "it is back, and clean");
    assert!(world.states().is_empty());
}

#[test]
fn without_a_named_replacement_nothing_verifies() {
    let mut world = executing(3);
    world.instance(0).state = InstanceState::Stopped;
    world.enrol("vm-new", Proof::Proven);
    world.settle();
    assert_eq!(world.order().why, "the replacement is not named yet");
}

#[test]
fn a_forged_clean_replacement_never_verifies() {
    type Forge = fn(&mut World);
    let forgeries: [(&str, Forge); 7] = [
        ("another instance", |world| {
            world.enrol("vm-other", Proof::Proven);
        }),
        ("a claimed cloud id", |world| {
            world.enrol("vm-new", Proof::Claimed);
        }),
        ("an enrolment from before", |world| {
            world.enrol("vm-new", Proof::Proven);
            world.instance(3).enrolled_ms = 0;
        }),
        ("another version", |world| {
            world.enrol("vm-new", Proof::Proven);
            world.instance(3).image = Some(image("0"));
        }),
        ("another manifest of the same name", |world| {
            world.enrol("vm-new", Proof::Proven);
            world.instance(3).image.as_mut().unwrap().manifest = drift::Blake3::of(b"forged");
        }),
        ("a drifted one", |world| {
            world.enrol("vm-new", Proof::Proven);
            world.drift(3, Severity::Info);
        }),
        ("the old one", |world| {
            world.order().replacement = Some(Replacement {
                cloud_id: "vm-0".into(),
            });
        }),
    ];
    for (forgery, forge) in forgeries {
        let mut world = executing(3);
        world.name_replacement("vm-new");
        forge(&mut world);
        world.settle();
        assert_eq!(world.states(), [OrderState::Replaced], "{forgery}");
        world.pass(30);
        world.settle();
        assert_eq!(world.states(), [OrderState::Failed], "{forgery}");
    }
}

#[test]
fn a_failed_order_keeps_its_slot_until_an_operator_resolves_it() {
    let mut world = executing(10);
    world.pass(30);
    world.settle();
    assert_eq!(world.states(), [OrderState::Failed]);
    world.drift(1, Severity::Critical);
    world.settle();
    world.pass(60);
    world.settle();
    assert_eq!(world.states(), [OrderState::Failed, OrderState::Approved]);
    world.fleet().orders.remove(0);
    world.instance(0).state = InstanceState::Retired;
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
}

#[test]
fn the_time_limit_does_not_run_out_while_the_collector_could_not_hear() {
    let mut world = executing(3);
    world.pass(600);
    world.situation.listening_since_ms = world.now_ms;
    world.settle();
    assert_eq!(world.states(), [OrderState::Executing]);
    world.pass(3);
    world.settle();
    assert_eq!(world.states(), [OrderState::Failed]);
}

#[test]
fn a_build_is_replaced_with_the_same_build_and_never_with_another() {
    let mut several = good("1");
    several
        .builds
        .insert("arm64".into(), drift::Blake3::of(b"arm"));
    let several = Ok(several);
    assert_eq!(
        wanted_image(&several, Some(&image("0"))).unwrap(),
        image("1")
    );
    let odd = drift::report::ImageRef {
        build: "riscv".into(),
        ..image("0")
    };
    assert!(wanted_image(&several, Some(&odd)).is_err());
    assert!(
        wanted_image(&several, None).is_err(),
        "with several builds, which one is not guessed"
    );
    assert!(wanted_image(&Ok(good("1")), None).is_ok());
}
