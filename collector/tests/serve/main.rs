//! The collector as agents and operators meet it: real TLS, real SQLite, on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod artifacts;
mod crash;
mod hostile;
mod images;
mod packages;
mod who;
mod world;

use drift::finding::set_digest;
use drift::report::{InstanceState, Part, Phase, Report, RunId, StateUpdate};
use serde_json::json;
use world::{World, drift};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_enrols_reports_drifts_and_is_clean_again() {
    let world = World::start().await;
    world.register_image().await;
    let mut agent = world.agent("vm-1").await;
    assert!(driftmark_collector::instance::is_id(
        &agent.identity.instance
    ));
    assert_eq!(agent.identity.fleet, "web");

    let starting = Report {
        phase: Phase::Starting,
        coverage: Default::default(),
        ..agent.heartbeat()
    };
    assert_eq!(
        agent.send(&starting).await.unwrap().state,
        InstanceState::Enrolled
    );
    let clean = agent.heartbeat();
    let verdict = agent.send(&clean).await.unwrap();
    assert_eq!(
        (verdict.acknowledged, verdict.state, verdict.resend_all),
        (2, InstanceState::Clean, false)
    );
    assert_eq!(verdict.settings.heartbeat_seconds, 60);

    let report = agent.opening(vec![drift(1), drift(2)]);
    assert_eq!(
        agent.send(&report).await.unwrap().state,
        InstanceState::Drifted
    );
    let shown = world
        .get(&format!("/v1/instances/{}", agent.identity.instance))
        .await;
    assert_eq!(
        (shown["state"].as_str(), shown["open"].as_u64()),
        (Some("drifted"), Some(2))
    );
    assert_eq!(shown["drifts"][0]["drift"]["kind"], json!("added"));

    let closed = std::mem::take(&mut agent.open);
    let report = Report {
        closed,
        ..agent.heartbeat()
    };
    let verdict = agent.send(&report).await.unwrap();
    assert_eq!(
        (verdict.state, verdict.resend_all),
        (InstanceState::Clean, false)
    );

    let goodbye = Report {
        phase: Phase::Stopped,
        ..agent.heartbeat()
    };
    assert_eq!(
        agent.send(&goodbye).await.unwrap().state,
        InstanceState::Stopped
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_report_again_counts_once_even_after_a_restart() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let report = agent.opening(vec![drift(1)]);
    let first = agent.send(&report).await.unwrap();
    assert_eq!(agent.send(&report).await.unwrap(), first);
    let world = world.restart().await;
    let again = world::Agent::new(&world, agent.key, agent.identity);
    assert_eq!(
        again.send(&report).await.unwrap().acknowledged,
        first.acknowledged
    );
    let listed = world.get("/v1/instances").await;
    assert_eq!(listed["instances"][0]["open"], json!(1));
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_drifts_come_in_parts_and_count_when_all_are_there() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let drifts: Vec<_> = (0..100_000).map(drift).collect();
    let mut ids: Vec<_> = drifts.iter().map(|open| open.id).collect();
    ids.sort_unstable();
    let digest = set_digest(ids);
    let count = 100;
    let mut parts: Vec<Report> = drifts
        .chunks(1000)
        .enumerate()
        .map(|(index, chunk)| Report {
            part: Part {
                generation: 1,
                index: index as u32 + 1,
                count,
            },
            states: StateUpdate::Whole,
            opened: chunk.to_vec(),
            open_count: 100_000,
            set_digest: digest,
            ..agent.heartbeat()
        })
        .collect();
    // One that is missing until the end, and one that comes twice.
    let missing = parts.remove(40);
    parts.push(parts[7].clone());
    for part in &parts {
        let verdict = agent.send(part).await.unwrap();
        assert_ne!(verdict.state, InstanceState::Drifted);
        assert!(!verdict.resend_all);
    }
    let verdict = agent.send(&missing).await.unwrap();
    assert_eq!(
        (verdict.state, verdict.resend_all),
        (InstanceState::Drifted, false)
    );
    let shown = world
        .get(&format!(
            "/v1/instances/{}?limit=5",
            agent.identity.instance
        ))
        .await;
    assert_eq!(shown["open"], json!(100_000));
    assert_eq!(shown["set_digest"], json!(digest.to_string()));
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_set_that_differs_is_asked_for_whole() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let lost = agent.opening(vec![drift(1)]);
    let second = agent.opening(vec![drift(2)]);
    drop(lost);
    assert!(agent.send(&second).await.unwrap().resend_all);
    let whole = Report {
        states: StateUpdate::Whole,
        opened: vec![drift(1), drift(2)],
        ..agent.heartbeat()
    };
    let verdict = agent.send(&whole).await.unwrap();
    assert_eq!(
        (verdict.resend_all, verdict.state),
        (false, InstanceState::Drifted)
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_run_that_comes_late_changes_no_state() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let old = RunId([1; 16]);
    let late = agent.opening(vec![drift(1)]);
    agent.open.clear();
    agent.run = RunId([2; 16]);
    let current = Report {
        previous_run: Some(old),
        ..agent.heartbeat()
    };
    agent.send(&current).await.unwrap();
    agent.send(&late).await.unwrap();
    let listed = world.get("/v1/instances").await;
    assert_eq!(listed["instances"][0]["open"], json!(0));
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_an_enrolment_is_given_again_and_the_token_counts_once() {
    let world = World::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let token = world.token(None).await;
    let first = world.enrol(&token, &key, Some("vm-1")).await.unwrap();
    let again = world.enrol(&token, &key, Some("vm-1")).await.unwrap();
    assert_eq!(first.instance, again.instance);
    let other = rcgen::KeyPair::generate().unwrap();
    assert_eq!(
        world.enrol(&token, &other, None).await.unwrap_err().1,
        "token-used"
    );
    let tokens = world.get("/v1/tokens").await;
    assert_eq!(tokens[0]["uses"], json!(1));
    let listed = world.get("/v1/instances").await;
    assert_eq!(listed["instances"][0]["proven"], json!(false));
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_while_it_holds_and_after_it_expired() {
    let world =
        World::with(|config| config.certificate_life = std::time::Duration::from_secs(2)).await;
    let mut agent = world.agent("vm-1").await;
    let renewed = agent.renew(&agent.key).await.unwrap();
    assert_eq!(renewed.instance, agent.identity.instance);
    assert!(
        renewed.certificate.matches("BEGIN CERTIFICATE").count() == 2
            && renewed.trust.contains("BEGIN")
    );
    let other = rcgen::KeyPair::generate().unwrap();
    assert_eq!(agent.renew(&other).await.unwrap_err().1, "other-key");

    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let report = agent.heartbeat();
    let fresh = world::Agent::new(
        &world,
        rcgen::KeyPair::from_pem(&agent.key.serialize_pem()).unwrap(),
        agent.identity.clone(),
    );
    let refused = fresh
        .http
        .post(world.agents("/v1/reports"))
        .json(&report)
        .send()
        .await;
    assert!(
        refused.is_err(),
        "an expired certificate opens no connection"
    );
    let request = drift::enrolment::RenewRequest {
        csr: world::csr(&agent.key),
        expired: Some(agent.identity.certificate.clone()),
    };
    let renew = world
        .anonymous()
        .post(world.agents("/v1/renew"))
        .json(&request)
        .send()
        .await
        .unwrap();
    let identity: drift::enrolment::Identity = world::answer(renew).await.unwrap();
    let agent = world::Agent::new(&world, agent.key, identity);
    assert_eq!(agent.send(&report).await.unwrap().acknowledged, 1);
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_manifest_is_not_its_images_is_drifted() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let before = agent.heartbeat();
    assert_eq!(
        agent.send(&before).await.unwrap().state,
        InstanceState::Unverifiable
    );
    world.register_image().await;
    let known = agent.heartbeat();
    assert_eq!(
        agent.send(&known).await.unwrap().state,
        InstanceState::Clean
    );
    let mut swapped = agent.heartbeat();
    swapped.image.as_mut().unwrap().manifest = drift::Blake3::of(b"my own");
    assert_eq!(
        agent.send(&swapped).await.unwrap().state,
        InstanceState::Drifted
    );
    let shown = world
        .get(&format!("/v1/instances/{}", agent.identity.instance))
        .await;
    assert_eq!(shown["drifts"][0]["drift"]["kind"], json!("baseline"));
    assert_eq!(shown["drifts"][0]["raised"], json!(true));
    let back = agent.heartbeat();
    assert_eq!(agent.send(&back).await.unwrap().state, InstanceState::Clean);
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_after_two_and_a_half_heartbeats() {
    let world = World::with(|config| config.heartbeat = std::time::Duration::from_secs(1)).await;
    let mut agent = world.agent("vm-1").await;
    let report = agent.heartbeat();
    assert_eq!(
        agent
            .send(&report)
            .await
            .unwrap()
            .settings
            .heartbeat_seconds,
        1
    );
    tokio::time::sleep(std::time::Duration::from_millis(2700)).await;
    assert_eq!(
        world.get("/v1/instances").await["instances"][0]["state"],
        json!("silent")
    );
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_hold_release_and_retire_and_the_ledger_remembers() {
    let world = World::start().await;
    let mut agent = world.agent("vm-1").await;
    let id = agent.identity.instance.clone();
    let held = world
        .post(
            &format!("/v1/instances/{id}/hold"),
            json!({"reason": "forensics"}),
        )
        .await;
    assert_eq!(held["hold"], json!("forensics (first)"));
    let released = world
        .post(
            &format!("/v1/instances/{id}/release"),
            json!({"reason": "done"}),
        )
        .await;
    assert_eq!(released["hold"], json!(null));
    world
        .post(
            &format!("/v1/instances/{id}/retire"),
            json!({"reason": "sold"}),
        )
        .await;
    let report = agent.heartbeat();
    assert_eq!(agent.send(&report).await.unwrap_err().1, "retired");
    assert_eq!(agent.renew(&agent.key).await.unwrap_err().1, "retired");
    let kinds = world.ledger_kinds().await;
    for kind in [
        "instance-held",
        "instance-released",
        "instance-retired",
        "instance-enrolled",
        "token-created",
    ] {
        assert!(kinds.iter().any(|it| it == kind), "{kind} in {kinds:?}");
    }
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_route_and_every_route_answers() {
    let world = World::start().await;
    let document = world.get("/v1/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{:?}", paths.keys());
    for (path, operations) in paths {
        let url = path.replace("{id}", "x").replace("{name}", "x");
        for method in operations.as_object().unwrap().keys() {
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let response = world
                .anonymous()
                .request(method.clone(), world.operators(&url))
                .send()
                .await
                .unwrap();
            let status = response.status().as_u16();
            let open = path == "/healthz" || path == "/readyz";
            assert_eq!(status, if open { 200 } else { 401 }, "{method} {path}");
        }
    }
    world.collector.stop().await;
}

/// The members that a schema of a document has, and those that it requires.
fn members(document: &serde_json::Value, schema: &str) -> (Vec<String>, Vec<String>) {
    let schema = &document["components"]["schemas"][schema];
    let properties = schema["properties"].as_object().unwrap();
    let required = schema["required"].as_array().unwrap();
    (
        properties.keys().cloned().collect(),
        required
            .iter()
            .map(|it| it.as_str().unwrap().to_owned())
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_say_and_hear_is_what_their_document_says() {
    let world = World::start().await;
    world.register_image().await;
    let mut agent = world.agent("vm-1").await;
    let report = agent.opening(vec![drift(1)]);
    let verdict = agent.send(&report).await.unwrap();
    let document = world.get("/v1/openapi-agents.json").await;
    let served: serde_json::Value = world
        .anonymous()
        .get(world.agents("/v1/openapi.json"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(document, served, "both ports serve one document");
    let request = drift::enrolment::EnrolRequest {
        token: "secret".into(),
        csr: world::csr(&agent.key),
        cloud_id: Some("vm-1".into()),
        fleet: Some("web".into()),
        image: Some(world::image()),
        boot_id: "boot".into(),
    };
    for (schema, message) in [
        ("EnrolRequest", json!(request)),
        ("Report", json!(report)),
        ("Verdict", json!(verdict)),
        ("Identity", json!(agent.identity)),
    ] {
        let message = message.as_object().unwrap();
        let (known, required) = members(&document, schema);
        for member in message.keys() {
            assert!(known.contains(member), "{schema}.{member} is not described");
        }
        for member in required {
            assert!(
                message.contains_key(&member),
                "{schema}.{member} was not sent"
            );
        }
    }
    for path in document["paths"].as_object().unwrap().keys() {
        let answer = world.anonymous().post(world.agents(path)).send().await;
        let status = answer.unwrap().status().as_u16();
        assert!(matches!(status, 400 | 401), "{path}: {status}");
    }
    world.collector.stop().await;
}
