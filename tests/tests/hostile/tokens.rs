//! Join tokens that are wrong, over, used, for somebody else, guessed or tampered with.

use anyhow::{Context, Result, ensure};
use drift::Sha256;
use drift::enrolment::JoinToken;
use driftmark_tests::Program;
use driftmark_tests::patience::pause;
use driftmark_tests::process::finish;
use serde_json::json;
use std::time::Duration;

use crate::forge;
use crate::machine::{Machine, enrolment};
use crate::world::{FLEET, World};

#[test]
fn a_token_that_does_not_admit_is_refused_with_its_reason() -> Result<()> {
    let world = World::new()?;
    world.clean("vm-1")?;
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    let stranger = world.stranger()?;
    let refused = |secret: &str, cloud_id: Option<&str>, code: &str| -> Result<()> {
        println!("{code}");
        stranger
            .post(
                "/v1/enroll",
                &enrolment(secret, &forge::p256()?, cloud_id, None)?,
            )?
            .is_refused(403, code);
        Ok(())
    };
    let whole = world.collector.join_token(FLEET, None)?;
    for wrong in [
        "",
        "x",
        &"A".repeat(43),
        &whole,
        "' OR '1'='1",
        "\0",
        &"A".repeat(40_000),
    ] {
        refused(wrong, None, "token-unknown")?;
    }
    let short: serde_json::Value = world
        .ask(
            "POST",
            "/v1/tokens",
            &json!({"fleet": FLEET, "ttl_seconds": 1, "uses": 1}),
        )?
        .granted()?;
    let short = JoinToken::parse(short["text"].as_str().context("a token")?)?.secret;
    let for_one = world.secret(FLEET, Some("vm-2"), 1)?;
    refused(&for_one, Some("vm-3"), "token-for-other")?;
    let revoked: serde_json::Value = world
        .ask(
            "POST",
            "/v1/tokens",
            &json!({"fleet": FLEET, "ttl_seconds": 600, "uses": 1}),
        )?
        .granted()?;
    let id = revoked["id"].as_str().context("an id")?;
    world.ask(
        "POST",
        &format!("/v1/tokens/{id}/revoke"),
        &serde_json::Value::Null,
    )?;
    refused(
        &JoinToken::parse(revoked["text"].as_str().context("a token")?)?.secret,
        None,
        "token-expired",
    )?;
    pause(Duration::from_millis(1100));
    refused(&short, None, "token-expired")?;
    assert_eq!(
        world.everybody()?,
        before,
        "a refused token made an instance"
    );
    let used = world.secret(FLEET, None, 1)?;
    Machine::enrol(&world, &used, None, None)?;
    refused(&used, None, "token-used")?;
    assert_eq!(world.everybody()?.len(), before.len() + 1);
    let recorded = world.recorded(entries, "enrolment-refused")?;
    assert_eq!(recorded.len(), 11, "{recorded:#?}");
    let text = serde_json::to_string(&world.ledger()?)?;
    for secret in [&short, &for_one, &used] {
        assert!(!text.contains(secret.as_str()), "a secret is in the ledger");
    }
    Ok(())
}

#[test]
fn a_token_used_by_many_at_once_is_used_as_often_as_it_says() -> Result<()> {
    let world = World::new()?;
    let secret = world.secret(FLEET, None, 3)?;
    let enrolled = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| Machine::enrol(&world, &secret, None, None).is_ok()))
            .collect();
        tries
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .filter(|it| *it)
            .count()
    });
    assert_eq!(enrolled, 3);
    assert_eq!(world.everybody()?.len(), 3);
    Ok(())
}

#[test]
fn guessing_tokens_fills_neither_the_ledger_nor_hides_what_matters() -> Result<()> {
    let world = World::new()?;
    let victim = world.clean("vm-victim")?;
    let entries = world.ledger()?.len();
    let stranger = world.stranger()?;
    let key = forge::p256()?;
    for guess in 0..300 {
        let secret = format!("{guess:043}");
        stranger
            .post("/v1/enroll", &enrolment(&secret, &key, None, None)?)?
            .is_refused(403, "token-unknown");
    }
    let recorded = world.recorded(entries, "enrolment-refused")?.len();
    ensure!(
        (1..=200).contains(&recorded),
        "{recorded} of 300 guesses are in the ledger"
    );
    // The guessing must not have used up what records an attack on an instance.
    let second = world.secret(FLEET, Some("vm-victim"), 1)?;
    stranger
        .post("/v1/enroll", &enrolment(&second, &key, None, None)?)?
        .is_refused(409, "already-enrolled");
    let claims = world.recorded(entries, "second-claim")?;
    assert_eq!(
        claims.len(),
        1,
        "a second claim went unrecorded behind a flood of guesses"
    );
    assert_eq!(claims[0]["subject"], victim.id);
    Ok(())
}

/// Runs the real agent's `enroll` with this token; its exit code and standard error.
fn agent_enrols(world: &World, name: &str, token: &JoinToken) -> Result<(i32, String)> {
    let file = world.path(format!("{name}.token"));
    std::fs::write(&file, token.to_text())?;
    let mut command = Program::Agent.command()?;
    command
        .arg("enroll")
        .arg("--token-file")
        .arg(&file)
        .arg("--state")
        .arg(world.path(format!("{name}-state")));
    let output = finish(&mut command)?;
    Ok((
        output.status.code().context("an exit code")?,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn an_agent_talks_to_nobody_but_the_collector_of_its_token() -> Result<()> {
    let (world, middle) = (World::new()?, World::new()?);
    let token = JoinToken::parse(&world.collector.join_token(FLEET, None)?)?;
    let tampered = JoinToken {
        ca: Sha256::of(b"another CA"),
        ..token.clone()
    };
    let diverted = JoinToken {
        url: format!("https://{}", middle.collector.agents()),
        ..token.clone()
    };
    let before = middle.ledger()?.len();
    for (name, token) in [("tampered", &tampered), ("diverted", &diverted)] {
        let (code, said) = agent_enrols(&world, name, token)?;
        assert_ne!(code, 0, "{name}: {said}");
        assert!(
            said.contains("is not the collector that made this token"),
            "{name}: {said}"
        );
        assert!(
            !world
                .path(format!("{name}-state/identity/certificate.pem"))
                .exists()
        );
    }
    assert_eq!(
        middle.ledger()?.len(),
        before,
        "the man in the middle was shown the token"
    );
    assert!(middle.everybody()?.is_empty() && world.everybody()?.is_empty());
    let (code, said) = agent_enrols(&world, "honest", &token)?;
    assert_eq!(code, 0, "{said}");
    assert_eq!(world.everybody()?.len(), 1);
    let (code, said) = agent_enrols(&world, "late", &token)?;
    assert_ne!(code, 0);
    assert!(said.contains("token-used"), "{said}");
    Ok(())
}

#[test]
fn what_is_no_token_is_refused_where_it_is_made() -> Result<()> {
    let world = World::new()?;
    let entries = world.ledger()?.len();
    for (what, new) in [
        (
            "no uses",
            json!({"fleet": FLEET, "ttl_seconds": 600, "uses": 0}),
        ),
        (
            "no time",
            json!({"fleet": FLEET, "ttl_seconds": 0, "uses": 1}),
        ),
        (
            "for ever",
            json!({"fleet": FLEET, "ttl_seconds": u64::MAX, "uses": 1}),
        ),
        (
            "for an army",
            json!({"fleet": FLEET, "ttl_seconds": 600, "uses": u32::MAX}),
        ),
        (
            "one machine, twice",
            json!({"fleet": FLEET, "cloud_id": "vm", "ttl_seconds": 600, "uses": 2}),
        ),
        (
            "a fleet with a path",
            json!({"fleet": "../web", "ttl_seconds": 600, "uses": 1}),
        ),
        (
            "a fleet that draws",
            json!({"fleet": "\u{1b}[2Jweb", "ttl_seconds": 600, "uses": 1}),
        ),
        (
            "an endless cloud id",
            json!({"fleet": FLEET, "cloud_id": "v".repeat(257), "ttl_seconds": 600, "uses": 1}),
        ),
    ] {
        println!("{what}");
        world
            .ask("POST", "/v1/tokens", &new)?
            .is_refused(400, "bad-token");
    }
    let unknown = json!({"fleet": FLEET, "ttl_seconds": 600, "uses": 1, "admin": true});
    world
        .ask("POST", "/v1/tokens", &unknown)?
        .is_refused(422, "bad-request");
    assert_eq!(world.ledger()?.len(), entries);
    Ok(())
}
