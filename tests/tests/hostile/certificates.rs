//! Certificates that are not the collector's, not for this, not yet, not any more: whoever shows one is nobody.

use anyhow::{Context, Result};
use driftmark_tests::patience::pause;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::json;

use crate::forge::{Ca, Leaf};
use crate::machine::{Machine, intrusion};
use crate::wire::{Credentials, Wire, handshake_refusal};
use crate::world::World;

#[test]
fn without_a_certificate_nobody_is_heard() -> Result<()> {
    let world = World::new()?;
    let mut machine = world.clean("vm-1")?;
    let before = world.everybody()?;
    let report = machine.next(&[intrusion(1)]);
    let stranger = world.stranger()?;
    stranger
        .post("/v1/reports", &report)?
        .is_refused(401, "no-certificate");
    Machine::renew_over(&stranger, &machine.key, None)?.is_refused(401, "no-certificate");
    let operators = Wire::to(world.collector.operators(), Some(&machine.credentials()?))?;
    operators
        .send("GET", "/v1/instances", &[], Vec::new())?
        .is_refused(401, "unauthenticated");
    operators
        .post("/v1/reports", &report)?
        .is_refused(404, "no-such-route");
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_certificate_that_is_not_good_is_refused_in_the_handshake() -> Result<()> {
    let world = World::new()?;
    let victim = world.clean("vm-1")?;
    let before = world.everybody()?;
    let ours = Ca::of_the_collector(&world)?;
    let name = x509_name(&ours)?;
    let (other, alike) = (Ca::own("another CA")?, Ca::own(&name)?);
    let good = Leaf::of(&victim.id);
    let expired = Leaf {
        from: -7200,
        until: -60,
        ..good.clone()
    };
    let not_yet = Leaf {
        from: 600,
        until: 7200,
        ..good.clone()
    };
    let for_servers = Leaf {
        purpose: Some(ExtendedKeyUsagePurpose::ServerAuth),
        ..good.clone()
    };
    let authority = Leaf {
        authority: true,
        ..good.clone()
    };
    let mixed = |chain: Credentials, key: Credentials| Credentials {
        chain: chain.chain,
        key: key.key,
    };
    let cases = [
        ("another CA", other.sign(&good)?),
        ("a CA that calls itself ours", alike.sign(&good)?),
        ("another CA with our certificate behind it", {
            let mut forged = alike.sign(&good)?;
            forged.chain[1] = ours.certificate().clone();
            forged
        }),
        ("an expired one", ours.sign(&expired)?),
        ("one of the future", ours.sign(&not_yet)?),
        ("a server's", ours.sign(&for_servers)?),
        (
            "one signed with an instance's own",
            Ca::sign_below(victim.credentials()?, &good)?,
        ),
        ("one that says it is a CA itself", ours.sign(&authority)?),
        (
            "the victim's, without its key",
            mixed(victim.credentials()?, ours.sign(&good)?),
        ),
        (
            "the CA's own, without its key",
            mixed(
                Credentials {
                    chain: vec![ours.certificate().clone()],
                    ..victim.credentials()?
                },
                victim.credentials()?,
            ),
        ),
    ];
    for (what, credentials) in cases {
        let refusal = handshake_refusal(world.collector.agents(), &credentials)?;
        println!("{what}: {refusal:?}");
        let refusal = refusal.with_context(|| format!("{what} was taken"))?;
        assert!(
            refusal.contains("alert") || refusal.contains("Alert"),
            "{what}: no clear refusal: {refusal}"
        );
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_certificate_of_ours_that_names_no_instance_is_nobodys() -> Result<()> {
    let world = World::new()?;
    let mut victim = world.clean("vm-1")?;
    let before = world.everybody()?;
    let ours = Ca::of_the_collector(&world)?;
    let never_issued = format!("i-{}", "f".repeat(32));
    let upper = victim.id.to_uppercase();
    let longer = format!("{}/../{}", victim.id, victim.id);
    for (name, status, code) in [
        ("nobody", 401, "no-certificate"),
        (&upper, 401, "no-certificate"),
        (&longer, 401, "no-certificate"),
        (&never_issued, 403, "unknown-instance"),
    ] {
        let credentials = ours.sign(&Leaf::of(name))?;
        let wire = Wire::to(world.collector.agents(), Some(&credentials))?;
        let report = victim.next(&[intrusion(1)]);
        println!("{name}");
        wire.post("/v1/reports", &report)?.is_refused(status, code);
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn a_certificate_of_ours_for_another_key_does_not_speak_for_the_instance() -> Result<()> {
    let world = World::new()?;
    let mut victim = world.clean("vm-1")?;
    let before = world.everybody()?;
    let credentials = Ca::of_the_collector(&world)?.sign(&Leaf::of(&victim.id))?;
    let wire = Wire::to(world.collector.agents(), Some(&credentials))?;
    let report = victim.next(&[intrusion(1)]);
    wire.post("/v1/reports", &report)?
        .is_refused(403, "other-key");
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn who_was_retired_is_refused_with_a_certificate_that_is_still_good() -> Result<()> {
    let world = World::new()?;
    let mut gone = world.clean("vm-1")?;
    world
        .collector
        .cli(["instance", "retire", &gone.id, "--reason", "stolen"])?;
    let before = world.everybody()?;
    let report = gone.next(&[]);
    gone.send(&report)?.is_refused(403, "retired");
    Machine::renew_over(&gone.wire, &gone.key, None)?.is_refused(403, "retired");
    let old = crate::forge::pem(&gone.credentials()?.chain[0]);
    Machine::renew_over(&world.stranger()?, &gone.key, Some(old))?.is_refused(403, "retired");
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn an_open_connection_outlives_neither_its_certificate_nor_a_retirement() -> Result<()> {
    let world = World::with(crate::world::OBSERVED, "certificate-life = \"3s\"")?;
    let mut machine = world.enrol(Some("vm-1"))?;
    machine.report_clean()?;
    pause(std::time::Duration::from_secs(4));
    let report = machine.next(&[]);
    machine
        .send(&report)?
        .is_refused(401, "certificate-expired");
    let refusal = handshake_refusal(world.collector.agents(), &machine.credentials()?)?;
    assert!(
        refusal.is_some(),
        "an expired certificate was taken in a new handshake"
    );
    let old = crate::forge::pem(&machine.credentials()?.chain[0]);
    let renewed = Machine::renew_over(&world.stranger()?, &machine.key, Some(old))?;
    let renewed = Machine::of(&world, renewed.granted()?, machine.key, machine.image)?;
    assert_eq!(renewed.id, machine.id);
    world
        .collector
        .cli(["instance", "retire", &renewed.id, "--reason", "stolen"])?;
    renewed.send(&report)?.is_refused(403, "retired");
    Ok(())
}

#[test]
fn the_servers_certificate_is_of_its_own_ca_for_its_names_alone() -> Result<()> {
    let world = World::new()?;
    let stream = crate::wire::raw(world.collector.agents(), None)?;
    let shown = stream.conn.peer_certificates().context("a chain")?.to_vec();
    let ca = Ca::of_the_collector(&world)?;
    assert_eq!(
        shown[1].as_ref(),
        ca.certificate().as_ref(),
        "the CA is in the chain"
    );
    let (_, leaf) = x509_parser::parse_x509_certificate(&shown[0])?;
    let usage = leaf.extended_key_usage()?.context("a purpose")?.value;
    assert!(
        usage.server_auth && !usage.client_auth && !usage.any,
        "{usage:?}"
    );
    assert!(!leaf.is_ca());
    let (_, root) = x509_parser::parse_x509_certificate(&shown[1])?;
    let limits = root.basic_constraints()?.context("limits")?.value;
    assert_eq!(
        json!([limits.ca, limits.path_len_constraint]),
        json!([true, 0])
    );
    Ok(())
}

fn x509_name(ca: &Ca) -> Result<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(ca.certificate())?;
    let name = parsed
        .subject()
        .iter_common_name()
        .next()
        .context("a name")?;
    Ok(name.as_str()?.to_owned())
}
