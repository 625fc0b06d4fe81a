//! The operators' port: without a token nothing, with a token what its role and fleets allow, whatever is written.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::machine::intrusion;
use crate::wire::Wire;
use crate::world::World;

fn token(world: &World, name: &str, role: &str, fleets: Option<&[&str]>) -> Result<String> {
    let new = json!({"name": name, "role": role, "fleets": fleets});
    let new = if fleets.is_none() {
        json!({"name": name, "role": role})
    } else {
        new
    };
    let made: Value = world.ask("POST", "/v1/operators", &new)?.granted()?;
    Ok(made["token"].as_str().context("a token")?.to_owned())
}

#[test]
fn without_a_good_token_nothing_is_said() -> Result<()> {
    let world = World::new()?;
    let victim = world.clean("vm-1")?;
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    let admin = world.admin_token()?;
    let wire = Wire::to(world.collector.operators(), None)?;
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {admin}"),
        format!("Bearer {admin}x"),
        format!("Bearer {}", &admin[..admin.len() - 1]),
        format!("Bearer  {admin}"),
        format!("Bearer {admin},{admin}"),
        format!("Bearer {}", "A".repeat(8_000)),
        format!("Bearer {}", world.secret("web", None, 1)?),
        "Bearer ' OR 1=1 --".to_owned(),
    ];
    for header in &wrong {
        wire.send(
            "GET",
            "/v1/instances",
            &[("authorization", header)],
            Vec::new(),
        )?
        .is_refused(401, "unauthenticated");
    }
    wire.send("GET", "/v1/instances", &[], Vec::new())?
        .is_refused(401, "unauthenticated");
    wire.send(
        "GET",
        &format!("/v1/instances?token={admin}"),
        &[],
        Vec::new(),
    )?
    .is_refused(401, "unauthenticated");
    let path = format!("/v1/instances/{}/retire", victim.id);
    wire.send(
        "POST",
        &path,
        &[("content-type", "application/json")],
        b"{".to_vec(),
    )?
    .is_refused(401, "unauthenticated");
    assert_eq!(world.everybody()?, before);
    let recorded = world.recorded(entries, "request-refused")?;
    assert_eq!(recorded.len(), wrong.len() + 3);
    assert!(
        !serde_json::to_string(&recorded)?.contains(&admin),
        "the token is in the ledger"
    );
    Ok(())
}

#[test]
fn a_role_does_what_it_may_and_no_more() -> Result<()> {
    let world = World::new()?;
    let machine = world.clean("vm-1")?;
    let before = world.everybody()?;
    let entries = world.ledger()?.len();
    let id = &machine.id;
    let reason = json!({"reason": "because"});
    let order = format!("o-{}", "0".repeat(32));
    let key = "0".repeat(64);
    let attempts = [
        (
            "viewer",
            "POST",
            "/v1/tokens".to_owned(),
            json!({"fleet": "web", "ttl_seconds": 60, "uses": 1}),
        ),
        (
            "viewer",
            "POST",
            format!("/v1/instances/{id}/hold"),
            reason.clone(),
        ),
        (
            "viewer",
            "POST",
            format!("/v1/instances/{id}/release"),
            reason.clone(),
        ),
        (
            "operator",
            "POST",
            format!("/v1/instances/{id}/retire"),
            reason.clone(),
        ),
        (
            "operator",
            "POST",
            format!("/v1/instances/{id}/release"),
            json!({"reason": "because", "renewal": true}),
        ),
        (
            "approver",
            "POST",
            "/v1/operators".to_owned(),
            json!({"name": "me", "role": "admin"}),
        ),
        ("approver", "GET", "/v1/operators".to_owned(), Value::Null),
        (
            "approver",
            "POST",
            "/v1/operators/first/revoke".to_owned(),
            Value::Null,
        ),
        (
            "approver",
            "POST",
            "/v1/keys".to_owned(),
            json!({"pem": "x"}),
        ),
        (
            "approver",
            "POST",
            format!("/v1/keys/{key}/revoke"),
            reason.clone(),
        ),
        (
            "approver",
            "POST",
            "/v1/images?signature_bytes=0".to_owned(),
            Value::Null,
        ),
        (
            "approver",
            "POST",
            "/v1/images/web/1/revoke".to_owned(),
            reason.clone(),
        ),
        (
            "approver",
            "POST",
            "/v1/images/web/1/restore".to_owned(),
            reason.clone(),
        ),
        (
            "approver",
            "POST",
            "/v1/images/web/1/test/artifacts".to_owned(),
            json!({}),
        ),
        (
            "viewer",
            "POST",
            "/v1/channels/stable".to_owned(),
            json!({"name": "web", "version": "1", "reason": "x"}),
        ),
    ];
    let mut tokens = std::collections::BTreeMap::new();
    for role in ["viewer", "operator", "approver"] {
        tokens.insert(role, token(&world, role, role, None)?);
    }
    let made = world.ledger()?.len() - entries;
    for (role, method, path, body) in &attempts {
        println!("{role}: {method} {path}");
        world
            .ask_as(&tokens[role], method, path, body)?
            .is_refused(403, "role");
    }
    // Who may not is told so before whether there is such an order.
    for verb in ["approve", "cancel"] {
        let answer = world.ask_as(
            &tokens["operator"],
            "POST",
            &format!("/v1/orders/{order}/{verb}"),
            &reason,
        )?;
        assert!(matches!(answer.status, 403 | 404), "{answer:?}");
    }
    assert_eq!(world.everybody()?, before);
    let recorded = world.recorded(entries + made, "request-refused")?;
    assert!(
        recorded.len() >= attempts.len(),
        "{} of {}",
        recorded.len(),
        attempts.len()
    );
    assert!(
        recorded
            .iter()
            .all(|entry| tokens.contains_key(entry["actor"].as_str().unwrap_or_default()))
    );
    world
        .ask("POST", "/v1/operators/viewer/revoke", &Value::Null)?
        .granted::<Value>()?;
    world
        .ask_as(&tokens["viewer"], "GET", "/v1/instances", &Value::Null)?
        .is_refused(401, "unauthenticated");
    Ok(())
}

#[test]
fn a_token_of_one_fleet_sees_nothing_of_another() -> Result<()> {
    let world = World::new()?;
    let mut web = world.clean("vm-web")?;
    web.report_drift(&[intrusion(1)])?;
    let db = world.enrol_in("db", Some("vm-db"), Some(world.image.clone()))?;
    let before = world.everybody()?;
    let only_db = token(&world, "db-admin", "admin", Some(&["db"]))?;
    let ask = |method: &str, path: &str, body: &Value| world.ask_as(&only_db, method, path, body);
    let reason = json!({"reason": "because"});
    for (method, verb, body) in [
        ("GET", "", &Value::Null),
        ("POST", "/hold", &reason),
        ("POST", "/release", &reason),
        ("POST", "/retire", &reason),
    ] {
        ask(method, &format!("/v1/instances/{}{verb}", web.id), body)?.is_refused(404, "not-found");
    }
    for path in [
        "/v1/instances",
        "/v1/tokens",
        "/v1/orders?all=true",
        "/v1/ledger?limit=1000",
    ] {
        let answer = ask("GET", path, &Value::Null)?;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            !text.contains("\"fleet\":\"web\"")
                && !text.contains(&web.id)
                && !text.contains("vm-web"),
            "{path}: {text}"
        );
    }
    let own: Value = ask("GET", "/v1/instances", &Value::Null)?.granted()?;
    assert_eq!(own["instances"][0]["id"], db.id);
    for path in [
        "/v1/instances?fleet=web",
        "/v1/orders?fleet=web",
        "/v1/ledger?fleet=web",
    ] {
        ask("GET", path, &Value::Null)?.is_refused(403, "fleet");
    }
    let subject = ask(
        "GET",
        &format!("/v1/ledger?subject={}", web.id),
        &Value::Null,
    )?;
    assert_eq!(subject.granted::<Vec<Value>>()?, Vec::<Value>::new());
    ask(
        "POST",
        "/v1/tokens",
        &json!({"fleet": "web", "ttl_seconds": 60, "uses": 1}),
    )?
    .is_refused(403, "fleet");
    for (path, body) in [
        ("/v1/operators", json!({"name": "me", "role": "admin"})),
        ("/v1/keys", json!({"pem": "x"})),
        ("/v1/images/web/1/revoke", reason.clone()),
        (
            "/v1/channels/stable",
            json!({"name": "web", "version": "1", "reason": "x"}),
        ),
    ] {
        ask("POST", path, &body)?.is_refused(403, "fleet");
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn ids_that_are_no_ids_lead_nowhere() -> Result<()> {
    let world = World::new()?;
    world.clean("vm-1")?;
    let before = world.everybody()?;
    let odd = [
        "..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fca.key",
        "..%2f..%2foperator.token",
        "%00",
        "i-%00",
        "%ff%fe",
        "%0d%0aset-cookie:x",
        "'%20OR%20'1'='1",
        "%27%3B%20DROP%20TABLE%20instances%3B--",
        "%1b%5b2J",
        "i-*",
        "%25s%25n",
        "%F0%9F%92%A9",
    ];
    for odd in odd {
        for (method, path, body) in [
            ("GET", format!("/v1/instances/{odd}"), Value::Null),
            (
                "POST",
                format!("/v1/instances/{odd}/retire"),
                json!({"reason": "x"}),
            ),
            ("GET", format!("/v1/orders/{odd}"), Value::Null),
            ("GET", format!("/v1/images/{odd}/{odd}"), Value::Null),
            (
                "POST",
                format!("/v1/keys/{odd}/revoke"),
                json!({"reason": "x"}),
            ),
            ("POST", format!("/v1/operators/{odd}/revoke"), Value::Null),
            ("POST", format!("/v1/tokens/{odd}/revoke"), Value::Null),
        ] {
            let answer = world.ask(method, &path, &body)?;
            let code = answer.json()?["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(
                matches!(answer.status, 400 | 404 | 405),
                "{method} {path}: {answer:?}"
            );
            answer.is_refused(answer.status, &code);
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
    let long = format!("/v1/instances/{}", "a".repeat(8_000));
    assert!(matches!(
        world.ask("GET", &long, &Value::Null)?.status,
        404 | 414 | 431
    ));
    for query in [
        "limit=-1",
        "limit=x",
        "limit=4294967296",
        "after=x",
        "nonsense=1",
        "limit=1&limit=2",
    ] {
        let answer = world.ask("GET", &format!("/v1/instances?{query}"), &Value::Null)?;
        answer.is_refused(400, "bad-request");
    }
    assert_eq!(world.everybody()?, before);
    Ok(())
}

#[test]
fn what_an_operator_writes_is_kept_as_data_and_shown_harmless() -> Result<()> {
    let world = World::new()?;
    let machine = world.clean("vm-1")?;
    let odd = "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{9b}31m\u{202e}\u{7f}'; DROP TABLE ledger; --";
    let because = json!({ "reason": odd });
    world
        .ask(
            "POST",
            &format!("/v1/instances/{}/hold", machine.id),
            &because,
        )?
        .granted::<Value>()?;
    let new = json!({"name": odd, "role": "viewer"});
    let made = world.ask("POST", "/v1/operators", &new)?;
    assert!(made.status == 200 || made.status == 400, "{made:?}");
    let for_odd = json!({"fleet": "web", "cloud_id": odd, "ttl_seconds": 60, "uses": 1});
    let made = world.ask("POST", "/v1/tokens", &for_odd)?;
    assert!(made.status == 200 || made.status == 400, "{made:?}");
    world
        .ask("POST", "/v1/images/web/1/revoke", &because)?
        .granted::<Value>()?;
    for list in [
        vec!["instance", "list"],
        vec!["instance", "show", &machine.id],
        vec!["operator", "list"],
        vec!["token", "list"],
        vec!["image", "list"],
        vec!["image", "channels"],
        vec!["image", "show", "web", "1"],
        vec!["key", "list"],
        vec!["order", "list", "--all"],
        vec!["ledger", "list"],
        vec!["image", "restore", "web", "1", "--reason", odd],
        vec!["image", "revoke", "web", "1", "--reason", odd],
        vec!["instance", "release", &machine.id, "--reason", odd],
    ] {
        for json in [false, true] {
            let mut arguments = list.clone();
            arguments.extend(json.then_some("--json"));
            let output = world.collector.try_cli(&arguments)?;
            for stream in [&output.stdout, &output.stderr] {
                let text =
                    String::from_utf8(stream.clone()).with_context(|| format!("{arguments:?}"))?;
                let raw = text
                    .chars()
                    .find(|letter| letter.is_control() && *letter != '\n');
                assert_eq!(raw, None, "{arguments:?} draws: {text:?}");
            }
        }
    }
    for odd in ["i-\u{1b}[2J", "\u{9b}31m"] {
        let output = world.collector.try_cli(["instance", "show", odd])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            !said
                .chars()
                .any(|letter| letter.is_control() && letter != '\n'),
            "{said:?}"
        );
    }
    world.collector.cli(["ledger", "verify"])?;
    Ok(())
}
