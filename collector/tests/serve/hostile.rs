//! Peers that lie: each gets a clear refusal, recorded where it matters.

use drift::enrolment::{EnrolRequest, RenewRequest};
use drift::report::{Part, Report};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{Agent, World, answer, csr, drift, image};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_opens_no_connection() {
    let world = World::start().await;
    let victim = world.agent("vm-1").await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let rogue = Issuer::new(params, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://driftmark/instance/{}", victim.identity.instance);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
    let mut identity = victim.identity.clone();
    identity.certificate = params.signed_by(&key, &rogue).unwrap().pem();
    let expired = identity.certificate.clone();
    let forged = csr(&key);
    let mut imposter = Agent::new(&world, key, identity);
    let report = imposter.heartbeat();
    let sent = imposter
        .http
        .post(world.agents("/v1/reports"))
        .json(&report)
        .send()
        .await;
    assert!(sent.is_err(), "{sent:?}");
    let request = RenewRequest {
        csr: forged,
        expired: Some(expired),
    };
    let renew = world
        .anonymous()
        .post(world.agents("/v1/renew"))
        .json(&request)
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer::<Value>(renew).await.unwrap_err(),
        (StatusCode::FORBIDDEN, "not-ours".into())
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_report() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let report = agent.heartbeat();
    let sent = world
        .anonymous()
        .post(world.agents("/v1/reports"))
        .json(&report)
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer::<Value>(sent).await.unwrap_err(),
        (StatusCode::UNAUTHORIZED, "no-certificate".into())
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_used_for_another_report_is_refused_and_recorded() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let report = agent.heartbeat();
    agent.send(&report).await.unwrap();
    let other = Report {
        uptime_seconds: 99,
        ..report
    };
    assert_eq!(
        agent.send(&other).await.unwrap_err(),
        (StatusCode::CONFLICT, "number-used".into())
    );
    assert!(
        world
            .ledger_kinds()
            .await
            .contains(&"report-refused".to_owned())
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_before_it_is_stored() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(Report::MAX_BYTES));
    let sent = agent
        .http
        .post(world.agents("/v1/reports"))
        .body(long)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let many = Report {
        opened: (0..1001).map(drift).collect(),
        ..agent.heartbeat()
    };
    assert_eq!(agent.send(&many).await.unwrap_err().1, "bad-report");
    let part = Report {
        part: Part {
            generation: 2,
            index: 3,
            count: 2,
        },
        ..agent.heartbeat()
    };
    assert_eq!(agent.send(&part).await.unwrap_err().1, "bad-report");
    let zero = Report {
        sequence: 0,
        ..agent.heartbeat()
    };
    assert_eq!(agent.send(&zero).await.unwrap_err().1, "bad-report");
    let sent = agent
        .http
        .post(world.agents("/v1/reports"))
        .body("{")
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer::<Value>(sent).await.unwrap_err().0,
        StatusCode::BAD_REQUEST
    );
    let request = json!({"token": "a".repeat(EnrolRequest::MAX_BYTES), "csr": ""});
    let sent = world
        .anonymous()
        .post(world.agents("/v1/enroll"))
        .json(&request)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        world.get("/v1/instances").await["instances"][0]["open"],
        json!(0)
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_place_of_an_instance_that_is_enrolled() {
    let world = World::start().await;
    let victim = world.agent("vm-1").await;
    // A tampered host with a fleet token claims the victim's cloud id.
    let key = KeyPair::generate().unwrap();
    let token = world.token(None).await;
    assert_eq!(
        world.enrol(&token, &key, Some("vm-1")).await.unwrap_err().1,
        "already-enrolled"
    );
    // And a second token for the very id does not help either.
    let token = world.token(Some("vm-1")).await;
    assert_eq!(
        world.enrol(&token, &key, Some("vm-1")).await.unwrap_err().1,
        "already-enrolled"
    );
    let kinds = world.ledger_kinds().await;
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "second-claim").count(),
        2
    );
    let listed = world.get("/v1/instances").await;
    assert_eq!(listed["instances"].as_array().unwrap().len(), 1);
    // Once an operator has retired the first, the same token works.
    let path = format!("/v1/instances/{}/retire", victim.identity.instance);
    world.post(&path, json!({"reason": "rebuilt"})).await;
    assert_ne!(
        world
            .enrol(&token, &key, Some("vm-1"))
            .await
            .unwrap()
            .instance,
        victim.identity.instance
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_cloud_id_is_for_no_other() {
    let world = World::start().await;
    let key = KeyPair::generate().unwrap();
    let token = world.token(Some("vm-1")).await;
    assert_eq!(
        world.enrol(&token, &key, Some("vm-2")).await.unwrap_err().1,
        "token-for-other"
    );
    let mut made_up = token.clone();
    made_up.secret = "x".repeat(43);
    assert_eq!(
        world.enrol(&made_up, &key, None).await.unwrap_err().1,
        "token-unknown"
    );
    assert!(world.enrol(&token, &key, None).await.is_ok());
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_another_fleet_than_its_token_is_refused_and_nothing_is_stored() {
    let world = World::start().await;
    let key = KeyPair::generate().unwrap();
    let token = world.token(None).await;
    let ask = async |fleet: Value| {
        let request = json!({
            "token": token.secret, "csr": csr(&key), "fleet": fleet, "boot_id": "boot",
        });
        let sent = world
            .anonymous()
            .post(world.agents("/v1/enroll"))
            .json(&request)
            .send()
            .await
            .unwrap();
        let status = sent.status();
        (status.as_u16(), sent.json::<Value>().await.unwrap())
    };
    let (status, refusal) = ask(json!("db")).await;
    assert_eq!(
        (status, refusal["code"].as_str()),
        (403, Some("token-for-other-fleet"))
    );
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.contains("fleet web") && message.contains("fleet db"),
        "{message}"
    );
    for hostile in ["", "we b", "\u{1b}[2J", "../web", &"w".repeat(65)] {
        let (status, refusal) = ask(json!(hostile)).await;
        assert_eq!(
            (status, refusal["code"].as_str()),
            (400, Some("bad-request")),
            "{hostile}"
        );
    }
    assert_eq!(world.get("/v1/instances").await["instances"], json!([]));
    assert_eq!(world.get("/v1/tokens").await[0]["uses"], 0);
    let ledger = world.get("/v1/ledger").await;
    let refused: Vec<_> = ledger
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["kind"] == "enrolment-refused")
        .collect();
    assert_eq!(refused.len(), 1, "what makes no sense is not recorded");
    assert_eq!(refused[0]["fleet"], "web");
    assert_eq!(refused[0]["detail"]["fleet"], "db");
    // The right fleet is let in, and an answer that was lost is given again to it alone.
    assert_eq!(ask(json!("web")).await.0, 200);
    assert_eq!(ask(Value::Null).await.0, 200);
    assert_eq!(
        ask(json!("db")).await.1["code"].as_str(),
        Some("token-for-other-fleet")
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_another_name_gets_its_own() {
    let world = World::start().await;
    let victim = world.agent("vm-1").await;
    let key = KeyPair::generate().unwrap();
    let mut asked = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let uri = format!("spiffe://driftmark/instance/{}", victim.identity.instance);
    asked
        .subject_alt_names
        .push(SanType::URI(uri.as_str().try_into().unwrap()));
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = EnrolRequest {
        token: world.token(None).await.secret,
        csr: asked.serialize_request(&key).unwrap().pem().unwrap(),
        cloud_id: None,
        fleet: None,
        image: Some(image()),
        boot_id: String::new(),
    };
    let sent = world
        .anonymous()
        .post(world.agents("/v1/enroll"))
        .json(&request)
        .send()
        .await
        .unwrap();
    let identity: drift::enrolment::Identity = answer(sent).await.unwrap();
    assert_ne!(identity.instance, victim.identity.instance);
    let own = identity.instance.clone();
    let mut agent = Agent::new(&world, key, identity);
    let report = agent.opening(vec![drift(1)]);
    agent.send(&report).await.unwrap();
    let victim = world
        .get(&format!("/v1/instances/{}", victim.identity.instance))
        .await;
    assert_eq!(victim["open"], json!(0));
    assert_eq!(
        world.get(&format!("/v1/instances/{own}")).await["open"],
        json!(1)
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_does_what_its_role_and_fleets_allow() {
    let world = World::start().await;
    let agent = world.agent("vm-1").await;
    let id = agent.identity.instance.clone();
    let other = world
        .post(
            "/v1/operators",
            json!({"name": "ann", "role": "admin", "fleets": ["db"]}),
        )
        .await;
    let other = other["token"].as_str().unwrap().to_owned();
    let viewer = world
        .post("/v1/operators", json!({"name": "bob", "role": "viewer"}))
        .await;
    let viewer = viewer["token"].as_str().unwrap().to_owned();
    let listed: Value = world.operate(&other, "/v1/instances", None).await.unwrap();
    assert_eq!(listed["instances"], json!([]));
    let seen = world
        .operate::<Value>(&other, &format!("/v1/instances/{id}"), None)
        .await;
    assert_eq!(seen.unwrap_err().0, StatusCode::NOT_FOUND);
    let token = json!({"fleet": "web", "ttl_seconds": 60, "uses": 1});
    for (operator, path, body) in [
        (&other, "/v1/tokens".to_owned(), token.clone()),
        (&viewer, "/v1/tokens".to_owned(), token),
        (
            &viewer,
            format!("/v1/instances/{id}/hold"),
            json!({"reason": "x"}),
        ),
        (
            &viewer,
            "/v1/operators".to_owned(),
            json!({"name": "eve", "role": "admin"}),
        ),
        (
            &other,
            "/v1/operators".to_owned(),
            json!({"name": "eve", "role": "admin"}),
        ),
    ] {
        let refused = world.operate::<Value>(operator, &path, Some(body)).await;
        assert_eq!(refused.unwrap_err().0, StatusCode::FORBIDDEN, "{path}");
    }
    let first =
        std::fs::read_to_string(world.directory.path().join("data/operator.token")).unwrap();
    let odd = json!({"fleet": "web", "ttl_seconds": 60, "uses": 1, "unheard": "of"});
    let odd = world
        .operate::<Value>(first.trim(), "/v1/tokens", Some(odd))
        .await;
    assert_eq!(odd.unwrap_err().1, "bad-request");
    let nobody = world
        .operate::<Value>("dmop1.made-up", "/v1/instances", None)
        .await;
    assert_eq!(nobody.unwrap_err().0, StatusCode::UNAUTHORIZED);
    assert!(
        world
            .ledger_kinds()
            .await
            .contains(&"request-refused".to_owned())
    );
    world.post("/v1/operators/bob/revoke", json!({})).await;
    let revoked = world.operate::<Value>(&viewer, "/v1/instances", None).await;
    assert_eq!(revoked.unwrap_err().0, StatusCode::UNAUTHORIZED);
    world.collector.stop().await;
}
