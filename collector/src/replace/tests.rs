//! The whole way of an order through a real database: judged, written down, executed, verified, and in the ledger.

mod labels;

use std::time::Duration;

use drift::class::Severity;
use drift::report::{ImageRef, Phase};
use drift::{Blake3, Sha256};
use rusqlite::Connection;

use super::command::{Outcome, Output};
use super::operator::{self, Afterwards, OrderError};
use super::{carry_out, situation};
use crate::image::change::{self, Decided};
use crate::judge::{OrderState, judge};
use crate::policy::{Fleets, merged, written};
use crate::store::instances::{self, Enrolled};
use crate::store::ledger::{Page, Verified};
use crate::store::orders::{self, Filter, OrderRow};
use crate::store::{images, ledger};

const HEARTBEAT: Duration = Duration::from_secs(60);
const SECOND: i64 = 1_000;

struct World {
    db: Connection,
    fleets: Fleets,
    now_ms: i64,
}

fn image() -> ImageRef {
    ImageRef {
        name: "web".into(),
        version: "1".into(),
        build: "amd64".into(),
        manifest: Blake3::of(b"1"),
    }
}

impl World {
    /// Three clean instances of image web 1, which channel `stable` gives out.
    fn new(mode: &str) -> Self {
        let mut db = Connection::open_in_memory().unwrap();
        for migration in [
            include_str!("../store/migrations/V1__instances.sql"),
            include_str!("../store/migrations/V2__images.sql"),
            include_str!("../store/migrations/V3__orders.sql"),
            include_str!("../store/migrations/V4__ledger.sql"),
            include_str!("../store/migrations/V5__artifacts_and_packages.sql"),
        ] {
            db.execute_batch(migration).unwrap();
        }
        let tx = db.transaction().unwrap();
        let (key, _) = drift::key::SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        images::add_key(&tx, key.public(), "alice", 1).unwrap();
        let new = images::NewBuild {
            image: image(),
            sha256: Sha256::of(b"1"),
            entries: 1,
            envelope: "{}".into(),
            statement: "{}".into(),
            signers: vec![key.public().id().to_string()],
            expires_at_ms: None,
        };
        images::register(&tx, &new, "alice", 1).unwrap();
        let decided = Decided {
            by: "alice".into(),
            reason: "first".into(),
            now_ms: 1,
        };
        change::promote(&tx, "stable", "web", "1", &decided).unwrap();
        tx.commit().unwrap();
        let text = format!(
            "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"{mode}\"\ngrace = \"10s\""
        );
        let fleets = Fleets::check(merged::merge(written::File::parse(&text).unwrap())).unwrap();
        let mut world = World {
            db,
            fleets,
            now_ms: 1_000_000,
        };
        (0..3).for_each(|number| world.enrol(&format!("vm-{number}"), true));
        world
    }

    fn enrol(&mut self, cloud_id: &str, proven: bool) {
        let tx = self.db.transaction().unwrap();
        let enrolled = Enrolled {
            id: format!("i-{cloud_id}"),
            fleet: "web".into(),
            cloud_id: Some(cloud_id.into()),
            proven,
            token: "t".into(),
            public_key: Sha256::of(cloud_id.as_bytes()).as_bytes().to_owned(),
            image: Some(image()),
            boot_id: "b".into(),
            certificate_until_ms: i64::MAX,
        };
        instances::insert(&tx, &enrolled, self.now_ms).unwrap();
        tx.commit().unwrap();
        self.report(cloud_id, 0);
    }

    /// Has an instance report so many drifts now.
    fn report(&mut self, cloud_id: &str, drifts: u64) {
        let tx = self.db.transaction().unwrap();
        let mut instance = instances::by_id(&tx, &format!("i-{cloud_id}"))
            .unwrap()
            .unwrap();
        instance.heard_at_ms = Some(self.now_ms);
        instance.phase = Some(Phase::Running);
        instance.first_scan = true;
        instance.image_known = true;
        instance.reported_manifest = Some(image().manifest);
        instance.open = drifts;
        instance.severity = (drifts > 0).then_some(Severity::High);
        instances::store_reported(&tx, &instance, None).unwrap();
        tx.commit().unwrap();
    }

    /// Has a drift open on an instance.
    fn open(&mut self, cloud_id: &str, path: &str) {
        let tx = self.db.transaction().unwrap();
        let instance = instances::by_id(&tx, &format!("i-{cloud_id}"))
            .unwrap()
            .unwrap();
        let drift: drift::finding::Drift = serde_json::from_value(serde_json::json!({
            "path": path, "kind": "added", "class": "program", "severity": "high",
        }))
        .unwrap();
        crate::store::drifts::open(
            &tx,
            instance.row,
            crate::store::drifts::Source::Agent,
            drift.id(),
            &drift,
            self.now_ms,
        )
        .unwrap();
        tx.commit().unwrap();
    }

    fn pass(&mut self, seconds: i64) {
        self.now_ms += seconds * SECOND;
    }

    fn settle(&mut self) {
        for _ in 0..super::STEPS {
            let tx = self.db.transaction().unwrap();
            let situation = situation::load(&tx, &self.fleets, HEARTBEAT, 0, self.now_ms).unwrap();
            let decisions = judge(&situation, self.now_ms);
            let changed = carry_out::all(&tx, &self.fleets, &decisions, self.now_ms).unwrap();
            assert_eq!(
                changed,
                decisions.len(),
                "what is judged in a transaction is never stale in it"
            );
            tx.commit().unwrap();
            if changed == 0 {
                return;
            }
        }
        panic!("the judge does not come to rest");
    }

    /// The latest order.
    fn order(&self) -> OrderRow {
        orders::orders(
            &self.db,
            &Filter {
                over: true,
                ..Filter::default()
            },
        )
        .unwrap()
        .remove(0)
    }

    /// An order for vm-0 that is executing.
    fn executing() -> Self {
        let mut world = World::new("replace");
        world.report("vm-0", 2);
        world.settle();
        assert_eq!(world.order().state, OrderState::InGrace);
        world.pass(10);
        world.settle();
        assert_eq!(world.order().state, OrderState::Executing);
        world.pass(1);
        world
    }

    fn name(&mut self, cloud_id: &str) -> Result<(), OrderError> {
        let order = self.order();
        let tx = self.db.transaction().unwrap();
        operator::name_replacement(&tx, &order, cloud_id, "alice", self.now_ms)?;
        tx.commit().unwrap();
        Ok(())
    }

    fn kinds(&self) -> Vec<String> {
        let page = Page {
            limit: 100,
            ..Page::default()
        };
        let listed = ledger::list(&self.db, &page).unwrap();
        listed
            .into_iter()
            .rev()
            .map(|(recorded, _)| recorded.kind)
            .collect()
    }
}

#[test]
fn an_order_goes_all_the_way_and_the_ledger_tells_the_story() {
    let mut world = World::executing();
    let told = orders::executing(&world.db, "i-vm-0").unwrap().unwrap();
    assert_eq!(
        (told.replacer.as_str(), told.id),
        ("probe", world.order().id)
    );
    world.name("vm-new").unwrap();
    let old = instances::by_id(&world.db, "i-vm-0").unwrap().unwrap();
    assert_eq!(old.standing, crate::instance::Standing::Replaced);
    assert_eq!(orders::executing(&world.db, "i-vm-0").unwrap(), None);
    world.settle();
    world.pass(5);
    world.enrol("vm-new", true);
    world.settle();
    assert_eq!(world.order().state, OrderState::Verified);
    let story = [
        "channel-promoted",
        "instance-marked",
        "order-planned",
        "order-in-grace",
        "order-approved",
        "order-executing",
        "order-replaced",
        "instance-unmarked",
        "order-verified",
    ];
    assert_eq!(world.kinds(), story);
    assert!(
        matches!(ledger::verify(&world.db, None).unwrap(), Verified::Holds(walked) if walked.entries == 9)
    );
}

#[test]
fn a_replacement_that_drifts_as_the_machine_before_it_did_is_not_replaced_from_the_same_image() {
    let mut world = World::executing();
    world.open("vm-0", "etc/passwd");
    world.name("vm-new").unwrap();
    world.settle();
    world.pass(5);
    world.enrol("vm-new", true);
    world.settle();
    assert_eq!(world.order().state, OrderState::Verified);
    world.report("vm-new", 1);
    world.open("vm-new", "etc/passwd");
    for _ in 0..3 {
        world.settle();
        world.pass(60);
        world.report("vm-1", 0);
        world.report("vm-2", 0);
        world.report("vm-new", 1);
    }
    world.settle();
    let order = world.order();
    assert_eq!(
        (order.state, order.instance.as_str()),
        (OrderState::Blocked, "i-vm-new")
    );
    assert!(
        order
            .why
            .starts_with("a replacement that drifts again: it replaced i-vm-0"),
        "{}",
        order.why
    );
    assert_eq!(
        world
            .kinds()
            .iter()
            .filter(|kind| *kind == "order-executing")
            .count(),
        1
    );
}

#[test]
fn a_replacement_that_drifts_otherwise_is_replaced_again() {
    let mut world = World::executing();
    world.open("vm-0", "etc/passwd");
    world.name("vm-new").unwrap();
    world.settle();
    world.pass(5);
    world.enrol("vm-new", true);
    world.settle();
    world.report("vm-new", 1);
    world.open("vm-new", "etc/shadow");
    world.settle();
    world.pass(60);
    for machine in ["vm-1", "vm-2"] {
        world.report(machine, 0);
    }
    world.report("vm-new", 1);
    world.settle();
    assert_eq!(world.order().state, OrderState::Executing);
}

#[test]
fn a_clean_replacement_that_only_claims_its_cloud_id_verifies_nothing() {
    let mut world = World::executing();
    world.name("vm-new").unwrap();
    world.pass(5);
    world.enrol("vm-new", false);
    world.settle();
    assert_eq!(world.order().state, OrderState::Replaced);
    assert_eq!(
        world.order().why,
        "vm-new only claims its cloud id, or is gone"
    );
}

#[test]
fn a_machine_that_cannot_replace_is_refused() {
    let mut world = World::executing();
    for cloud_id in ["vm-0", "", "vm new", "vm\n", &"x".repeat(257)] {
        assert!(
            matches!(world.name(cloud_id), Err(OrderError::Replacement { .. })),
            "{cloud_id:?}"
        );
    }
    world.name("vm-new").unwrap();
    assert!(
        matches!(world.name("vm-other"), Err(OrderError::State { .. })),
        "it is named once"
    );
}

#[test]
fn a_command_that_failed_leaves_its_slot_taken_until_an_operator_resolves_it() {
    let mut world = World::executing();
    let order = world.order();
    let output = Output {
        exit: Some(3),
        stdout: String::new(),
        stderr: "quota".into(),
    };
    let outcome = Outcome {
        replacement: Err("exit status: 3: quota".into()),
        output,
    };
    let tx = world.db.transaction().unwrap();
    operator::executed(&tx, &order, &outcome, "replacer:command", world.now_ms).unwrap();
    tx.commit().unwrap();
    assert_eq!(
        (world.order().state, world.order().why),
        (OrderState::Failed, "exit status: 3: quota".into())
    );
    world.settle();
    let tx = world.db.transaction().unwrap();
    let failed = orders::order(&tx, &order.id).unwrap().unwrap();
    operator::cancel(
        &tx,
        &failed,
        Afterwards::PlanAgain,
        "alice",
        "quota raised",
        world.now_ms,
    )
    .unwrap();
    tx.commit().unwrap();
    world.settle();
    let again = world.order();
    assert_eq!((again.generation, again.state), (2, OrderState::InGrace));
}

#[test]
fn what_a_command_says_of_a_stale_order_changes_nothing_and_is_noted() {
    let mut world = World::executing();
    let stale = world.order();
    world.name("vm-new").unwrap();
    let outcome = Outcome {
        replacement: Ok("vm-evil".into()),
        output: Output::default(),
    };
    let tx = world.db.transaction().unwrap();
    operator::executed(&tx, &stale, &outcome, "replacer:command", world.now_ms).unwrap();
    tx.commit().unwrap();
    assert_eq!(world.order().replacement.as_deref(), Some("vm-new"));
    assert_eq!(world.order().state, OrderState::Replaced);
    assert_eq!(
        world.kinds().last().map(String::as_str),
        Some("replacer-finished")
    );
}

#[test]
fn an_order_that_was_cancelled_is_not_planned_again_until_the_instance_was_clean() {
    let mut world = World::new("approve");
    world.report("vm-0", 1);
    world.settle();
    let order = world.order();
    let tx = world.db.transaction().unwrap();
    operator::cancel(
        &tx,
        &order,
        Afterwards::LeaveAlone,
        "alice",
        "we know",
        world.now_ms,
    )
    .unwrap();
    tx.commit().unwrap();
    world.settle();
    assert_eq!(world.order().id, order.id);
    world.report("vm-0", 0);
    world.settle();
    world.report("vm-0", 1);
    world.settle();
    assert_ne!(world.order().id, order.id);
}

#[test]
fn approval_lets_an_order_go_and_a_second_one_is_refused() {
    let mut world = World::new("approve");
    world.report("vm-0", 1);
    world.settle();
    world.pass(20);
    world.settle();
    assert_eq!(world.order().why, "waits for approval");
    let order = world.order();
    let tx = world.db.transaction().unwrap();
    operator::approve(&tx, &order, "bob", "go", world.now_ms).unwrap();
    tx.commit().unwrap();
    let order = world.order();
    let tx = world.db.transaction().unwrap();
    assert!(operator::approve(&tx, &order, "bob", "go", 1).is_err());
    drop(tx);
    world.settle();
    assert_eq!(
        (world.order().state, world.order().approval.as_deref()),
        (OrderState::Executing, Some("operator:bob"))
    );
}

#[test]
fn a_revoked_image_blocks_what_waits_for_it() {
    let mut world = World::new("approve");
    world.report("vm-0", 1);
    world.settle();
    let tx = world.db.transaction().unwrap();
    let decided = Decided {
        by: "alice".into(),
        reason: "backdoor".into(),
        now_ms: world.now_ms,
    };
    change::revoke(&tx, "web", "1", &decided).unwrap();
    tx.commit().unwrap();
    world.settle();
    assert_eq!(world.order().state, OrderState::Blocked);
    assert!(
        world
            .order()
            .why
            .starts_with("no last good image: web 1 of channel stable is revoked")
    );
}

#[test]
fn the_content_of_an_order_never_changes_and_no_order_is_forgotten() {
    let world = World::executing();
    for column in [
        "id",
        "generation",
        "fleet",
        "instance",
        "cloud_id",
        "image",
        "replacer",
        "reason",
        "planned_at_ms",
    ] {
        assert!(
            world
                .db
                .execute(&format!("UPDATE orders SET {column} = {column}"), [])
                .is_err(),
            "{column}"
        );
    }
    assert!(world.db.execute("DELETE FROM orders", []).is_err());
}
