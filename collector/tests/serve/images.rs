//! Registering images: what a hostile or mistaken pipeline hands in is refused, clearly, and nothing of it is kept.

use drift::entry::{AttributeSet, Entry, FileFlags, Node, Xattrs};
use drift::key::SigningKey;
use drift::manifest::{BakedManifest, Builder};
use drift::rules::Rules;
use drift::signature::Envelope;
use drift::statement::{Predicate, Provenance, Statement, Subject, SubjectDigest};
use drift::{Sha256, TreePath};
use reqwest::StatusCode;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::world::{Answer, World, answer};

/// A manifest of a directory or two.
pub(crate) fn baked(mode: u16) -> BakedManifest {
    let mut builder = Builder::default();
    let entry = Entry {
        path: TreePath::root(),
        mode,
        uid: 0,
        gid: 0,
        node: Node::Directory,
        xattrs: Xattrs::default(),
        flags: FileFlags::default(),
        links: None,
    };
    builder.push(entry, None, None, (0, 0));
    builder
        .finish(Rules::none(), Vec::new(), AttributeSet::EMPTY)
        .unwrap()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap().0
}

pub(crate) fn signature(baked: &BakedManifest, version: &str, key: &SigningKey) -> Vec<u8> {
    let digest = SubjectDigest {
        sha256: baked.identity.sha256,
        blake3: Some(baked.identity.blake3),
    };
    let provenance = Provenance {
        name: "web".parse().unwrap(),
        version: version.parse().unwrap(),
        build: Some("amd64".parse().unwrap()),
        architecture: None,
        build_time: None,
        builder: None,
        source_revision: None,
        approved_by: None,
        sbom_sha256: None,
        parent: None,
    };
    let subject = Subject {
        name: "image.manifest".parse().unwrap(),
        digest,
    };
    let statement = Statement {
        subject,
        predicate: Predicate::Manifest(provenance),
    };
    Envelope::sign(statement.to_json(), key, &SystemRandom::new())
        .unwrap()
        .to_json()
}

pub(crate) async fn trust(world: &World, key: &SigningKey) {
    world
        .post("/v1/keys", json!({"pem": key.public().to_pem()}))
        .await;
}

async fn register(world: &World, signature: &[u8], manifest: &[u8]) -> Answer<Value> {
    let token =
        std::fs::read_to_string(world.collector.app.config.data.join("operator.token")).unwrap();
    let path = format!("/v1/images?signature_bytes={}", signature.len());
    let request = world
        .anonymous()
        .post(world.operators(&path))
        .bearer_auth(token.trim());
    answer(
        request
            .body([signature, manifest].concat())
            .send()
            .await
            .unwrap(),
    )
    .await
}

pub(crate) fn refused(answer: Answer<Value>) -> (u16, String) {
    let (status, code) = answer.unwrap_err();
    (status.as_u16(), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_manifest_is_registered_and_its_channel_gives_it_out() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let added = register(&world, &signature(&image, "1", &key), &image.bytes)
        .await
        .unwrap();
    assert_eq!(added["blake3"], image.identity.blake3.to_string());
    let promotion = json!({"name": "web", "version": "1", "reason": "first"});
    let channel = world.post("/v1/channels/stable", promotion).await;
    assert_eq!(channel["last_good"]["version"], "1");
    assert!(
        world
            .collector
            .app
            .shelf
            .expected(image.identity.blake3, &TreePath::root())
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_a_trusted_key_for_this_manifest_is_refused() {
    let (world, good, stranger) = (World::start().await, key(), key());
    trust(&world, &good).await;
    let (image, other) = (baked(0o755), baked(0o777));
    let strangers = signature(&image, "1", &stranger);
    assert_eq!(
        refused(register(&world, &strangers, &image.bytes).await),
        (403, "bad-signature".into())
    );
    let swapped = signature(&other, "1", &good);
    assert_eq!(
        refused(register(&world, &swapped, &image.bytes).await),
        (403, "bad-signature".into())
    );
    assert_eq!(
        refused(register(&world, b"{}", &image.bytes).await),
        (400, "bad-signature".into())
    );
    assert_eq!(world.get("/v1/images").await, json!([]));
    let kept = std::fs::read_dir(world.collector.app.config.data.join("manifests"))
        .unwrap()
        .count();
    assert_eq!(kept, 0, "nothing of a refused upload stays on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_flipped_manifest_is_refused_wherever_it_is_damaged() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let signature = signature(&image, "1", &key);
    for length in [0, 1, 39, image.bytes.len() / 2] {
        assert!(
            register(&world, &signature, &image.bytes[..length])
                .await
                .is_err(),
            "{length} bytes of it"
        );
    }
    for at in (0..image.bytes.len()).step_by(7) {
        let mut flipped = image.bytes.clone();
        flipped[at] ^= 1;
        if let Ok(added) = register(&world, &signature, &flipped).await {
            // What lies outside the identity (modification times) is never compared.
            assert_eq!(
                added["sha256"],
                image.identity.sha256.to_string(),
                "byte {at}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_version_and_build_with_another_digest_is_refused_for_ever() {
    let (world, key) = (World::start().await, key());
    trust(&world, &key).await;
    let (image, other) = (baked(0o755), baked(0o777));
    register(&world, &signature(&image, "1", &key), &image.bytes)
        .await
        .unwrap();
    register(&world, &signature(&image, "1", &key), &image.bytes)
        .await
        .unwrap();
    let answer = register(&world, &signature(&other, "1", &key), &other.bytes).await;
    assert_eq!(
        refused(answer),
        (StatusCode::CONFLICT.as_u16(), "refused".into())
    );
    register(&world, &signature(&other, "2", &key), &other.bytes)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_revoked_key_is_refused_and_its_channel_has_no_last_good() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    register(&world, &signature(&image, "1", &key), &image.bytes)
        .await
        .unwrap();
    world
        .post(
            "/v1/channels/stable",
            json!({"name": "web", "version": "1", "reason": "first"}),
        )
        .await;
    let path = format!("/v1/keys/{}/revoke", key.public().id());
    let revoked = world.post(&path, json!({"reason": "stolen"})).await;
    assert_eq!(revoked["moved"][0]["version"], Value::Null);
    assert_eq!(world.get("/v1/channels").await[0]["last_good"], Value::Null);
    assert_eq!(
        refused(register(&world, &signature(&image, "2", &key), &image.bytes).await),
        (403, "bad-signature".into())
    );
    let token = first_token(&world);
    let again = world.operate::<Value>(
        &token,
        "/v1/keys",
        Some(json!({"pem": key.public().to_pem()})),
    );
    assert_eq!(refused(again.await), (409, "already".into()));
}

pub(crate) fn first_token(world: &World) -> String {
    let path = world.collector.app.config.data.join("operator.token");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drifted_instance_is_replaced_and_verified_by_the_named_machine_alone() {
    let world = World::start().await;
    world.register_image().await;
    let fleets =
        "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"replace\"\ngrace = \"0s\"";
    std::fs::write(&world.collector.app.config.fleets, fleets).unwrap();
    let mut agents = Vec::new();
    for number in 0..3 {
        let mut agent = world.agent(&format!("vm-{number}")).await;
        let report = agent.heartbeat();
        agent.send(&report).await.unwrap();
        agents.push(agent);
    }
    let report = agents[0].opening(vec![crate::world::drift(1)]);
    agents[0].send(&report).await.unwrap();
    let blocked = until(&world, "blocked").await;
    assert!(
        blocked["why"]
            .as_str()
            .unwrap()
            .starts_with("no last good image"),
        "{blocked}"
    );
    let (key, image) = (key(), baked(0o755));
    trust(&world, &key).await;
    register(&world, &signature(&image, "9", &key), &image.bytes)
        .await
        .unwrap();
    world
        .post(
            "/v1/channels/stable",
            json!({"name": "web", "version": "9", "reason": "first"}),
        )
        .await;
    // The instances were baked for amd64, and so is version 9.
    let executing = until(&world, "executing").await;
    assert_eq!(executing["image"]["version"], "9");
    let order = agents[0].heartbeat();
    let verdict = agents[0].send(&order).await.unwrap();
    assert_eq!(
        verdict.order.map(|order| order.replacer).as_deref(),
        Some("probe")
    );
    let path = format!(
        "/v1/orders/{}/replacement",
        executing["id"].as_str().unwrap()
    );
    let put = world
        .anonymous()
        .put(world.operators(&path))
        .bearer_auth(first_token(&world));
    let named: Answer<Value> = answer(
        put.json(&json!({"cloud_id": "vm-new"}))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(named.unwrap()["state"], "replaced");
    let late = agents[0].heartbeat();
    assert!(
        agents[0].send(&late).await.is_err(),
        "who is replaced is not heard any more"
    );
    let mut forged = world.agent("vm-new").await;
    let report = forged.heartbeat();
    forged.send(&report).await.unwrap();
    let why = until(&world, "replaced").await["why"].clone();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let after = until(&world, "replaced").await;
    assert!(
        after["why"]
            .as_str()
            .unwrap()
            .ends_with("is not on the order's image"),
        "{why} {after}"
    );
    let verified = world.get("/v1/ledger/verify").await;
    assert_eq!(verified["holds"], true);
}

/// The latest order, once it is in that state.
async fn until(world: &World, state: &str) -> Value {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let order = world.get("/v1/orders").await[0].clone();
        if order["state"] == state {
            return order;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!(
        "no order is {state}: {}",
        world.get("/v1/orders?all=true").await
    );
}

#[test]
fn a_manifest_of_the_tests_is_about_what_it_says() {
    assert_ne!(baked(0o755).identity.sha256, baked(0o777).identity.sha256);
    assert_ne!(baked(0o755).identity.sha256, Sha256::of(b""));
}
