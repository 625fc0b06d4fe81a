//! One machine speaking for another, or for its own past: never heard as the other, never counted twice.

use anyhow::Result;
use drift::report::Verdict;
use serde_json::Value;

use crate::forge::{self, Ca, Leaf};
use crate::machine::{Machine, intrusion};
use crate::wire::Wire;
use crate::world::World;

#[test]
fn the_run_and_number_of_another_are_nobodys_but_its_own() -> Result<()> {
    let world = World::new()?;
    let mut victim = world.clean("vm-victim")?;
    let mut attacker = world.clean("vm-attacker")?;
    let before = world.everybody()?;
    let (run, sequence) = (victim.run, victim.sequence);
    attacker.run = run;
    attacker.sequence = sequence - 1;
    attacker.report_drift(&[intrusion(1)])?;
    attacker.sequence = sequence + 99;
    attacker.report_drift(&[intrusion(2)])?;
    let after = world.everybody()?;
    assert_eq!(after[&victim.id], before[&victim.id]);
    let verdict = victim.report_clean()?;
    assert_eq!(
        (verdict.acknowledged, verdict.state.word()),
        (sequence + 1, "clean")
    );
    Ok(())
}

#[test]
fn the_same_number_with_another_body_is_refused_and_recorded() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.clean("vm-1")?;
    let first = machine.next(&[intrusion(1)]);
    let accepted: Verdict = machine.send(&first)?.granted()?;
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    let mut second = first.clone();
    second.opened.clear();
    machine.send(&second)?.is_refused(409, "number-used");
    assert_eq!(world.everybody()?, before);
    let recorded = world.recorded(entries, "report-refused")?;
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0]["subject"], machine.id);
    assert_eq!(recorded[0]["detail"]["run"], machine.run.to_string());
    let again: Verdict = machine.send(&first)?.granted()?;
    assert_eq!(again.acknowledged, accepted.acknowledged);
    Ok(())
}

#[test]
fn what_was_said_before_changes_nothing_when_it_is_said_again() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.enrol(Some("vm-1"))?;
    let clean: Vec<_> = (0..3).map(|_| machine.next(&[])).collect();
    for report in &clean {
        assert_eq!(machine.send(report)?.status, 200);
    }
    machine.report_drift(&[intrusion(1)])?;
    let old_run = machine.run;
    machine.run = crate::machine::fresh_run();
    (machine.sequence, machine.generation) = (0, 0);
    let mut report = machine.next(&[intrusion(1), intrusion(2)]);
    report.previous_run = Some(old_run);
    assert_eq!(machine.send(&report)?.status, 200);
    let before = world.everybody()?;
    for report in clean.iter().rev() {
        let verdict: Verdict = machine.send(report)?.granted()?;
        assert_eq!(verdict.state.word(), "drifted");
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_report_of_a_run_long_ago_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.enrol(Some("vm-1"))?;
    let first = machine.next(&[]);
    assert_eq!(machine.send(&first)?.status, 200);
    // More starts of the agent than the collector remembers one by one.
    for _ in 0..20 {
        let previous = machine.run;
        machine.run = crate::machine::fresh_run();
        (machine.sequence, machine.generation) = (0, 0);
        let mut report = machine.next(&[intrusion(1)]);
        report.previous_run = Some(previous);
        assert_eq!(machine.send(&report)?.status, 200);
    }
    let before = world.everybody()?;
    let verdict: Verdict = machine.send(&first)?.granted()?;
    assert_eq!(verdict.state.word(), "drifted");
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_certificate_is_renewed_for_its_own_key_alone() -> Result<()> {
    let world = World::new()?;
    let (victim, attacker) = (world.clean("vm-victim")?, world.clean("vm-attacker")?);
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    let stranger = world.stranger()?;
    let own = forge::p256()?;
    let ours = Ca::of_the_collector(&world)?;
    let expired = Leaf {
        from: -7200,
        until: -60,
        ..Leaf::of(&victim.id)
    };
    let victims_expired = forge::pem(&ours.sign_for(&expired, &victim.key)?.chain[0]);
    let victims = forge::pem(&victim.credentials()?.chain[0]);
    Machine::renew_over(&attacker.wire, &own, None)?.is_refused(403, "other-key");
    Machine::renew_over(&stranger, &own, Some(victims_expired.clone()))?
        .is_refused(403, "other-key");
    Machine::renew_over(&stranger, &attacker.key, Some(victims_expired.clone()))?
        .is_refused(403, "other-key");
    Machine::renew_over(&stranger, &own, Some(victims))?.is_refused(403, "other-key");
    let recorded = world.recorded(entries, "renewal-refused")?;
    assert_eq!(recorded.len(), 4, "{recorded:#?}");
    assert_eq!(recorded[1]["subject"], victim.id);
    // A certificate in the body does not change who the connection is.
    let identity: Value =
        Machine::renew_over(&attacker.wire, &attacker.key, Some(victims_expired))?.granted()?;
    assert_eq!(identity["instance"], attacker.id);
    let after = world.everybody()?;
    assert_eq!(after[&victim.id], before[&victim.id]);
    Ok(())
}

#[test]
fn an_old_certificate_that_is_not_ours_renews_nothing() -> Result<()> {
    let world = World::new()?;
    let victim = world.clean("vm-victim")?;
    let before = world.everybody()?;
    let stranger = world.stranger()?;
    let expired = Leaf {
        from: -7200,
        until: -60,
        ..Leaf::of(&victim.id)
    };
    let long_expired = Leaf {
        from: -86_400 * 40,
        until: -86_400 * 31,
        ..Leaf::of(&victim.id)
    };
    let for_servers = Leaf {
        purpose: Some(rcgen::ExtendedKeyUsagePurpose::ServerAuth),
        ..expired.clone()
    };
    let (ours, other) = (Ca::of_the_collector(&world)?, Ca::own("another")?);
    let forged = |ca: &Ca, leaf: &Leaf| -> Result<String> {
        Ok(forge::pem(&ca.sign_for(leaf, &victim.key)?.chain[0]))
    };
    for (what, old, code) in [
        ("another CA", forged(&other, &expired)?, "not-ours"),
        ("a server's", forged(&ours, &for_servers)?, "not-ours"),
        ("the CA's own", forge::pem(ours.certificate()), "not-ours"),
        (
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "not-ours",
        ),
        ("nothing", String::new(), "not-ours"),
        (
            "long expired",
            forged(&ours, &long_expired)?,
            "approval-required",
        ),
    ] {
        println!("{what}");
        Machine::renew_over(&stranger, &victim.key, Some(old))?.is_refused(403, code);
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_copy_of_a_machine_is_noticed() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.clean("vm-1")?;
    // The copy has key, certificate and run, and goes on counting by itself.
    let copy = Wire::to(world.collector.agents(), Some(&machine.credentials()?))?;
    let report = machine.next(&[]);
    assert_eq!(machine.send(&report)?.status, 200);
    let mut other = report.clone();
    other.uptime_seconds += 1000;
    copy.post("/v1/reports", &other)?
        .is_refused(409, "number-used");
    assert_eq!(world.recorded(0, "report-refused")?.len(), 1);
    Ok(())
}
