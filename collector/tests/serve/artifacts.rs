//! What builds are called where they run: handed in with them or later, refused where it does not fit, found by id.

use drift::TreePath;
use drift::coverage::VerityRoot;
use drift::report::InstanceState;
use drift::signature::Envelope;
use drift::statement::{Artifact, Predicate, Statement, Subject, SubjectDigest};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::images::{baked, first_token, key, refused, signature, trust};
use crate::world::{Agent, Answer, World, answer};

/// Uploads signature, artifact files and manifest.
async fn upload(
    world: &World,
    query: &str,
    signature: &[u8],
    files: &[&[u8]],
    manifest: &[u8],
) -> Answer<Value> {
    let lengths: Vec<String> = files.iter().map(|file| file.len().to_string()).collect();
    let mut path = format!("/v1/images?signature_bytes={}{query}", signature.len());
    if !files.is_empty() {
        path.push_str(&format!("&artifact_bytes={}", lengths.join(",")));
    }
    let body = [&[signature], files, &[manifest]].concat().concat();
    send(world, &path, body).await
}

async fn add(world: &World, place: &str, file: &[u8]) -> Answer<Value> {
    send(
        world,
        &format!("/v1/images/{place}/artifacts"),
        file.to_vec(),
    )
    .await
}

async fn send(world: &World, path: &str, body: Vec<u8>) -> Answer<Value> {
    let request = world
        .anonymous()
        .post(world.operators(path))
        .bearer_auth(first_token(world));
    answer(request.body(body).send().await.unwrap()).await
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/tests/artifacts/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn ami(region: &str, id: &str) -> Vec<u8> {
    serde_json::to_vec(&json!({"platform": "aws", "ids": {region: id}})).unwrap()
}

async fn everything(world: &World) -> (Value, Value, usize) {
    let kept = std::fs::read_dir(world.collector.app.config.data.join("manifests")).unwrap();
    (
        world.get("/v1/images").await,
        world.get("/v1/channels").await,
        kept.count(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_registered_with_what_it_is_called_and_found_by_it() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let ec2 = sample("ec2-get-image.json");
    let docker = sample("docker.iid");
    let signed = signature(&image, "1.2", &key);
    let added = upload(&world, "", &signed, &[&ec2, &docker], &image.bytes)
        .await
        .unwrap();
    assert_eq!(added["artifacts"].as_array().unwrap().len(), 2);
    assert_eq!(
        added["artifacts"][1]["ids"]["eu-west-1"],
        "ami-0123456789abcdef0"
    );
    assert_eq!(added["artifacts"][1]["format"], "ec2-image-builder");
    assert_eq!(added["artifacts"][1]["added_by"], "first");
    // More of it later, and the same again is no news.
    let azure = sample("azure-show-runs.json");
    add(&world, "web/1.2/amd64", &azure).await.unwrap();
    let entries = world.ledger_kinds().await.len();
    let again = add(&world, "web/1.2/amd64", &azure).await.unwrap();
    assert_eq!(again["artifacts"].as_array().unwrap().len(), 3);
    assert_eq!(world.ledger_kinds().await.len(), entries);
    let kinds = world.ledger_kinds().await;
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "image-artifact")
            .count(),
        3
    );
    // Azure's ids are the same in any case.
    let gallery = "%2FSUBSCRIPTIONS%2F00000000-0000-0000-0000-00000000aaaa%2FresourceGroups%2Fimages%2Fproviders%2F\
                   Microsoft.Compute%2Fgalleries%2Fcompany%2Fimages%2Fweb%2Fversions%2F1.2.0";
    for (id, found) in [
        ("ami-0fedcba9876543210", 1),
        (gallery, 1),
        ("ami-0000000000000000f", 0),
    ] {
        let listed = world.get(&format!("/v1/images?artifact={id}")).await;
        assert_eq!(listed.as_array().unwrap().len(), found, "{id}");
    }
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_another_build_is_refused_and_nothing_is_added() {
    let (world, key) = (World::start().await, key());
    trust(&world, &key).await;
    let (first, second) = (baked(0o755), baked(0o777));
    let taken = ami("eu-west-1", "ami-0123456789abcdef0");
    upload(
        &world,
        "",
        &signature(&first, "1.2", &key),
        &[&taken],
        &first.bytes,
    )
    .await
    .unwrap();
    let before = everything(&world).await;
    let signed = signature(&second, "1.3", &key);
    let free = ami("eu-west-1", "ami-0fedcba9876543210");
    let answer = upload(&world, "", &signed, &[&free, &taken], &second.bytes).await;
    assert_eq!(refused(answer), (409, "artifact-taken".into()));
    assert_eq!(everything(&world).await, before);
    // Not even under another platform's name.
    upload(&world, "", &signed, &[], &second.bytes)
        .await
        .unwrap();
    let before = everything(&world).await;
    let elsewhere =
        serde_json::to_vec(&json!({"platform": "AWS", "ids": {"x": "AMI-0123456789ABCDEF0"}}))
            .unwrap();
    for file in [&taken, &elsewhere] {
        assert_eq!(
            refused(add(&world, "web/1.3/amd64", file).await),
            (409, "artifact-taken".into())
        );
    }
    assert_eq!(everything(&world).await, before);
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_what_was_expected_and_found() {
    let (world, good, stranger) = (World::start().await, key(), key());
    let image = baked(0o755);
    let signed = signature(&image, "1.2", &good);
    let message = async |answer: Answer<Value>, query: &str, signature: &[u8], file: &[u8]| {
        let (status, code) = refused(answer);
        let path = format!(
            "/v1/images?signature_bytes={}&artifact_bytes={}{query}",
            signature.len(),
            file.len()
        );
        let sent = world
            .anonymous()
            .post(world.operators(&path))
            .bearer_auth(first_token(&world))
            .body([signature, file, &image.bytes].concat())
            .send()
            .await
            .unwrap();
        let refusal: Value = sent.json().await.unwrap();
        (
            status,
            code,
            refusal["message"].as_str().unwrap().to_owned(),
        )
    };
    let own = ami("eu-west-1", "ami-0123456789abcdef0");
    let try_it = async |query: &str, signature: &[u8], file: &[u8]| {
        let answer = upload(&world, query, signature, &[file], &image.bytes).await;
        message(answer, query, signature, file).await
    };
    let (_, code, said) = try_it("", &signed, &own).await;
    assert!(
        code == "bad-signature" && said.contains("no key is trusted yet"),
        "{said}"
    );
    trust(&world, &good).await;
    let before = everything(&world).await;
    let strangers = signature(&image, "1.2", &stranger);
    let (status, code, said) = try_it("", &strangers, &own).await;
    assert_eq!((status, code.as_str()), (403, "bad-signature"));
    for id in [good.public().id(), stranger.public().id()] {
        assert!(said.contains(&id.to_string()), "{said}");
    }
    for (query, expected, found) in [
        ("&name=db", "expected db", "web"),
        ("&version=1.3", "expected 1.3", "1.2"),
        ("&build=arm64", "expected arm64", "amd64"),
    ] {
        let (status, code, said) = try_it(query, &signed, &own).await;
        assert_eq!((status, code.as_str()), (409, "does-not-fit"), "{said}");
        assert!(said.contains(expected) && said.contains(found), "{said}");
    }
    let packer = sample("refused/packer-of-another-version.json");
    let (status, code, said) = try_it("", &signed, &packer).await;
    assert_eq!((status, code.as_str()), (409, "does-not-fit"));
    assert!(said.contains("expected 1.2, found 1.3"), "{said}");
    let (status, code, _) = try_it("", &signed, b"{\"hello\": \"world\"}").await;
    assert_eq!((status, code.as_str()), (400, "bad-artifact"));
    // Somebody signed what an artifact is of, and is nobody; or meant another manifest.
    for (signer, sha256, refusal) in [
        (&stranger, image.identity.sha256, (403, "bad-signature")),
        (&good, baked(0o777).identity.sha256, (409, "does-not-fit")),
    ] {
        let (status, code, said) = try_it("", &signed, &artifact(signer, sha256)).await;
        assert_eq!((status, code.as_str()), refusal, "{said}");
    }
    assert_eq!(everything(&world).await, before, "nothing was added");
    let path = format!("/v1/keys/{}/revoke", good.public().id());
    world.post(&path, json!({"reason": "stolen"})).await;
    trust(&world, &stranger).await;
    let (_, code, said) = try_it("", &signed, &own).await;
    assert!(
        code == "bad-signature"
            && said.contains(&format!("{}, which is revoked", good.public().id())),
        "{said}"
    );
    assert_eq!(everything(&world).await, before);
    let vouched = artifact(&stranger, image.identity.sha256);
    let query = "&name=web&version=1.2&build=amd64";
    let added = upload(&world, query, &strangers, &[&vouched], &image.bytes)
        .await
        .unwrap();
    assert_eq!(
        added["artifacts"][0]["signers"],
        json!([stranger.public().id().to_string()])
    );
    world.collector.stop().await;
}

fn artifact(key: &drift::key::SigningKey, sha256: drift::Sha256) -> Vec<u8> {
    let own: Artifact = serde_json::from_slice(&ami("eu-west-1", "ami-0123456789abcdef0")).unwrap();
    let digest = SubjectDigest {
        sha256,
        blake3: None,
    };
    let statement = Statement {
        subject: Subject {
            name: "image.manifest".parse().unwrap(),
            digest,
        },
        predicate: Predicate::Artifact(own),
    };
    Envelope::sign(statement.to_json(), key, &SystemRandom::new())
        .unwrap()
        .to_json()
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_bounded_and_a_body_that_lies_about_them_is_refused() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let signed = signature(&image, "1.2", &key);
    for lengths in ["x", "", "1,", "1048577", "-1", &["1"; 17].join(",")] {
        let path = format!(
            "/v1/images?signature_bytes={}&artifact_bytes={lengths}",
            signed.len()
        );
        let body = [&signed[..], &image.bytes].concat();
        assert_eq!(
            refused(send(&world, &path, body).await).1,
            "bad-artifact",
            "{lengths:?}"
        );
    }
    let path = format!(
        "/v1/images?signature_bytes={}&artifact_bytes=1000000",
        signed.len()
    );
    let short = send(&world, &path, [&signed[..], &image.bytes].concat()).await;
    assert_eq!(refused(short), (400, "bad-body".into()));
    upload(&world, "", &signed, &[], &image.bytes)
        .await
        .unwrap();
    assert_eq!(
        refused(add(&world, "web/1.2/arm64", &ami("r", "ami-1")).await),
        (404, "not-found".into())
    );
    let long = vec![b' '; 2 * 1024 * 1024];
    assert_eq!(refused(add(&world, "web/1.2/amd64", &long).await).0, 413);
    for number in 0..64 {
        let file = ami("region", &format!("ami-{number}"));
        add(&world, "web/1.2/amd64", &file).await.unwrap();
    }
    let one_more = add(&world, "web/1.2/amd64", &ami("region", "ami-64")).await;
    assert_eq!(refused(one_more), (409, "too-many".into()));
    let listed = world.get("/v1/images?artifact=ami-64").await;
    assert_eq!(listed, json!([]), "and its id is nobody's");
    world.collector.stop().await;
}

fn runs_from(hash: &str) -> VerityRoot {
    VerityRoot {
        mount_point: TreePath::root(),
        root_hash: hash.to_owned(),
        algorithm: "sha256".to_owned(),
        corrupted: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_run_from_what_its_build_was_sealed_with_is_drifted_until_it_does()
 {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let signed = signature(&image, "1", &key);
    upload(&world, "", &signed, &[], &image.bytes)
        .await
        .unwrap();
    let mut agent = world.agent("vm-1").await;
    let (good, other) = ("ab".repeat(32), "cd".repeat(32));
    let corrupted = VerityRoot {
        corrupted: true,
        ..runs_from(&good)
    };
    let states = async |agent: &mut Agent, roots: Option<Vec<VerityRoot>>| {
        let mut report = agent.heartbeat();
        report.image.as_mut().unwrap().manifest = image.identity.blake3;
        report.coverage.verity_roots = roots;
        agent.send(&report).await.unwrap().state
    };
    let shown = async |agent: &Agent| {
        let id = &agent.identity.instance;
        world.get(&format!("/v1/instances/{id}")).await
    };

    // No statement says a root hash: what it runs from is shown, and nothing is held against it.
    let state = states(&mut agent, Some(vec![runs_from(&other)])).await;
    assert_eq!(state, InstanceState::Clean);
    let instance = shown(&agent).await;
    assert_eq!(
        instance["coverage"]["verity_roots"][0]["root_hash"],
        json!(other)
    );
    assert_eq!(instance["sealed_root_hashes"], json!([]));

    let sealed = json!({"platform": "metal", "verityRootHash": good});
    add(&world, "web/1/amd64", &serde_json::to_vec(&sealed).unwrap())
        .await
        .unwrap();
    for (roots, word) in [
        (vec![runs_from(&other)], "runs from"),
        (vec![], "neither / nor /usr"),
        (vec![corrupted], "met a block"),
    ] {
        let state = states(&mut agent, Some(roots)).await;
        assert_eq!(state, InstanceState::Drifted, "{word}");
        // Who does not tell says nothing new.
        let state = states(&mut agent, None).await;
        assert_eq!(state, InstanceState::Drifted, "{word}");
        let instance = shown(&agent).await;
        let drifts = instance["drifts"].as_array().unwrap();
        assert_eq!(drifts.len(), 1, "{instance:#}");
        assert_eq!(drifts[0]["drift"]["kind"], "baseline");
        assert_eq!(drifts[0]["drift"]["severity"], "critical");
        assert_eq!(drifts[0]["raised"], true);
        assert!(
            drifts[0]["drift"]["detail"]
                .as_str()
                .unwrap()
                .contains(word),
            "{instance:#}"
        );
        assert_eq!(instance["sealed_root_hashes"], json!([good]));
        let state = states(&mut agent, Some(vec![runs_from(&good)])).await;
        assert_eq!(state, InstanceState::Clean, "{word}");
        assert_eq!(shown(&agent).await["drifts"], json!([]));
    }
    world.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_hash_that_only_a_revoked_key_signed_is_held_against_nobody() {
    let (world, key, image) = (World::start().await, key(), baked(0o755));
    trust(&world, &key).await;
    let signed = signature(&image, "1", &key);
    let random = SystemRandom::new();
    let other = drift::key::SigningKey::generate(&random).unwrap().0;
    trust(&world, &other).await;
    let digest = SubjectDigest {
        sha256: image.identity.sha256,
        blake3: None,
    };
    let statement = Statement {
        subject: Subject {
            name: "image.manifest".parse().unwrap(),
            digest,
        },
        predicate: Predicate::Artifact(Artifact {
            platform: "metal".parse().unwrap(),
            ids: Default::default(),
            verity_root_hash: Some(drift::Sha256::from_bytes([0xab; 32])),
        }),
    };
    let sealed = Envelope::sign(statement.to_json(), &other, &random)
        .unwrap()
        .to_json();
    upload(&world, "", &signed, &[&sealed], &image.bytes)
        .await
        .unwrap();
    let mut agent = world.agent("vm-1").await;
    let mut report = agent.heartbeat();
    report.image.as_mut().unwrap().manifest = image.identity.blake3;
    report.coverage.verity_roots = Some(Vec::new());
    let state = agent.send(&report).await.unwrap().state;
    assert_eq!(state, InstanceState::Drifted);
    let id = other.public().id();
    world
        .post(
            &format!("/v1/keys/{id}/revoke"),
            json!({"reason": "it was stolen"}),
        )
        .await;
    let mut report = agent.heartbeat();
    report.image.as_mut().unwrap().manifest = image.identity.blake3;
    report.coverage.verity_roots = Some(Vec::new());
    let state = agent.send(&report).await.unwrap().state;
    assert_eq!(state, InstanceState::Clean);
    world.collector.stop().await;
}
