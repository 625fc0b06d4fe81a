//! Manifests and signatures that an operator is led to register: only what a trusted key signed is an image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::wire::{Answer, Wire};
use crate::world::World;

/// What is uploaded: signature and manifest, and the refusals that fit it.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], &'a [(u16, &'a str)]);

/// Uploads a signature and a manifest as the first operator.
fn upload(world: &World, signature: &[u8], manifest: &[u8]) -> Result<Answer> {
    upload_saying(world, signature.len(), &[signature, manifest].concat())
}

fn upload_saying(world: &World, signature_bytes: usize, body: &[u8]) -> Result<Answer> {
    let wire = Wire::to(world.collector.operators(), None)?;
    let bearer = format!("Bearer {}", world.admin_token()?);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/octet-stream"),
    ];
    wire.send(
        "POST",
        &format!("/v1/images?signature_bytes={signature_bytes}"),
        &headers,
        body,
    )
}

/// Manifest and signature of what was baked into a directory.
fn baked(world: &World, directory: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let read = |name: &str| {
        fs::read(world.path(directory).join(name)).with_context(|| format!("read {name}"))
    };
    Ok((read("image.manifest")?, read("image.manifest.sig")?))
}

#[test]
fn only_what_a_trusted_key_signed_becomes_an_image() -> Result<()> {
    let world = World::new()?;
    let images = || -> Result<Value> { world.ask("GET", "/v1/images", &Value::Null)?.json() };
    let before = (images()?, world.ledger()?.len());
    world.agent(["keygen", "--output", &world.text("strangers-keys")])?;
    world.bake("2", "the second")?;
    world.bake_as("foreign", "3", "the third", "strangers-keys")?;
    world.bake_as("again", "1", "the first, otherwise", "keys")?;
    let (first, first_signature) = baked(&world, "1")?;
    let (second, second_signature) = baked(&world, "2")?;
    let (foreign, foreign_signature) = baked(&world, "foreign")?;
    let (again, again_signature) = baked(&world, "again")?;
    let mut unsigned: Value = serde_json::from_slice(&second_signature)?;
    unsigned["signatures"] = json!([]);
    let unsigned = serde_json::to_vec(&unsigned)?;
    let mut relabelled: Value = serde_json::from_slice(&foreign_signature)?;
    let ours: Value = serde_json::from_slice(&second_signature)?;
    relabelled["signatures"][0]["keyid"] = ours["signatures"][0]["keyid"].clone();
    let relabelled = serde_json::to_vec(&relabelled)?;
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let cases: [Case<'_>; 14] = [
        (
            "without a signature",
            b"",
            &second,
            &[(400, "bad-signature")],
        ),
        (
            "with an empty list of them",
            &unsigned,
            &second,
            &[(400, "bad-signature"), (403, "bad-signature")],
        ),
        (
            "by a key that is not trusted",
            &foreign_signature,
            &foreign,
            &[(403, "bad-signature")],
        ),
        (
            "by such a key under a trusted name",
            &relabelled,
            &foreign,
            &[(403, "bad-signature")],
        ),
        (
            "with another's signature",
            &first_signature,
            &second,
            &[(403, "bad-signature")],
        ),
        (
            "the other way around",
            &second_signature,
            &first,
            &[(403, "bad-signature")],
        ),
        (
            "known, with another content",
            &again_signature,
            &again,
            &[(409, "refused")],
        ),
        ("nothing", &second_signature, b"", &[(400, "bad-manifest")]),
        (
            "cut off",
            &second_signature,
            &second[..second.len() - 1],
            &[(400, "bad-manifest")],
        ),
        (
            "half of it",
            &second_signature,
            &second[..second.len() / 2],
            &[(400, "bad-manifest")],
        ),
        (
            "with a flipped bit in its head",
            &second_signature,
            &flipped(&second, 9),
            &[(400, "bad-manifest"), (403, "bad-signature")],
        ),
        (
            "with a flipped bit in the middle",
            &second_signature,
            &flipped(&second, second.len() / 2),
            &[(400, "bad-manifest"), (403, "bad-signature")],
        ),
        (
            "something else",
            &second_signature,
            &[0x7f; 100_000],
            &[(400, "bad-manifest")],
        ),
        (
            "more behind it",
            &second_signature,
            &[&second[..], b"more"].concat(),
            &[(400, "bad-manifest")],
        ),
    ];
    for (what, signature, manifest, refusals) in cases {
        let answer = upload(&world, signature, manifest)?;
        let refusal = answer.json()?;
        println!("{what}: {} {refusal}", answer.status);
        let code = refusal["code"].as_str().unwrap_or_default();
        assert!(
            refusals.contains(&(answer.status, code)),
            "{what}: {} {refusal}",
            answer.status
        );
        answer.is_refused(answer.status, code);
    }
    assert_eq!(images()?, before.0);
    let left = fs::read_dir(world.collector.data().join("manifests"))?.count();
    assert!(left <= 2, "{left} files on the shelf");
    assert_eq!(
        upload(&world, &second_signature, &second)?.status,
        200,
        "and the good one is taken"
    );
    // Signatures that do not hold are in the ledger: somebody tries.
    let refused = world.recorded(before.1, "request-refused")?;
    let wrong = refused
        .iter()
        .filter(|entry| entry["detail"]["code"] == "bad-signature")
        .count();
    assert!(wrong >= 5, "{refused:#?}");
    Ok(())
}

#[test]
fn a_signature_that_lies_about_its_length_is_refused() -> Result<()> {
    let world = World::new()?;
    let (manifest, signature) = baked(&world, "1")?;
    let body = [&signature[..], &manifest].concat();
    upload_saying(&world, body.len() + 1, &body)?.is_refused(400, "bad-body");
    for length in [0, 1, signature.len() - 1, signature.len() + 1] {
        let answer = upload_saying(&world, length, &body)?;
        assert!(matches!(answer.status, 400 | 403), "{length}: {answer:?}");
    }
    upload_saying(&world, usize::MAX, &body)?.is_refused(400, "bad-signature");
    Ok(())
}

#[test]
fn the_command_line_refuses_files_that_are_no_image() -> Result<()> {
    let world = World::new()?;
    let add = |manifest: &Path| {
        world
            .collector
            .try_cli(["image".as_ref(), "add".as_ref(), manifest.as_os_str()])
    };
    let missing = add(&world.path("nowhere"))?;
    assert_eq!(missing.status.code(), Some(66));
    let (manifest, _) = baked(&world, "1")?;
    fs::write(world.path("unsigned.manifest"), &manifest)?;
    assert_eq!(
        add(&world.path("unsigned.manifest"))?.status.code(),
        Some(66),
        "its signature is missing"
    );
    fs::write(world.path("unsigned.manifest.sig"), "{}")?;
    let output = add(&world.path("unsigned.manifest"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("bad-signature"),
        "{said}"
    );
    let huge = fs::File::create(world.path("huge.manifest"))?;
    huge.set_len(513 * 1024 * 1024)?;
    fs::copy(
        world.path("1/image.manifest.sig"),
        world.path("huge.manifest.sig"),
    )?;
    let output = add(&world.path("huge.manifest"))?;
    assert_eq!(
        output.status.code(),
        Some(64),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let big = fs::File::create(world.path("1/image.manifest.sig"))?;
    big.set_len(64 * 1024 * 1024)?;
    assert_eq!(
        add(&world.path("1/image.manifest"))?.status.code(),
        Some(64)
    );
    Ok(())
}

#[test]
fn a_revoked_key_signs_nothing_any_more() -> Result<()> {
    let world = World::new()?;
    world.bake("2", "the second")?;
    let (manifest, signature) = baked(&world, "2")?;
    let keys: Vec<Value> = world.ask("GET", "/v1/keys", &Value::Null)?.granted()?;
    let id = keys[0]["id"].as_str().context("a key")?;
    world
        .ask(
            "POST",
            &format!("/v1/keys/{id}/revoke"),
            &json!({"reason": "stolen"}),
        )?
        .granted::<Value>()?;
    upload(&world, &signature, &manifest)?.is_refused(403, "bad-signature");
    let output = world
        .collector
        .try_cli(["key", "add", &world.text("keys/driftmark.pub")])?;
    assert_eq!(output.status.code(), Some(1), "a revoked key stays revoked");
    let channels: Vec<Value> = world.ask("GET", "/v1/channels", &Value::Null)?.granted()?;
    assert_eq!(
        channels[0]["last_good"],
        Value::Null,
        "what only it signed is not good"
    );
    Ok(())
}

#[test]
fn the_command_line_says_what_a_build_became_and_finds_it() -> Result<()> {
    let world = World::new()?;
    world.bake("2", "the second")?;
    let manifest = world.text("2/image.manifest");
    let packer = |version: &str| {
        json!({"last_run_uuid": "a", "builds": [{
            "name": "web", "builder_type": "amazon-ebs", "build_time": 1, "files": null,
            "artifact_id": "eu-west-1:ami-0123456789abcdef0", "packer_run_uuid": "a",
            "custom_data": {"driftmark.version": version},
        }]})
    };
    fs::write(world.path("packer.json"), packer("2").to_string())?;
    fs::write(world.path("of-another.json"), packer("3").to_string())?;
    let file = |name: &str| world.text(name);
    let before: Value = world.collector.json(["image", "list"])?;
    for (arguments, said) in [
        (
            vec!["--artifact", &file("of-another.json")],
            "expected 2, found 3",
        ),
        (vec!["--artifact", &manifest], "no image builder"),
        (vec!["--version", "3"], "expected 3"),
    ] {
        let add = ["image", "add", &manifest].into_iter().chain(arguments);
        let output = world.collector.try_cli(add)?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && stderr.contains(said),
            "{stderr}"
        );
    }
    assert_eq!(world.collector.json(["image", "list"])?, before);
    let packer = file("packer.json");
    let add = [
        "image",
        "add",
        &manifest,
        "--artifact",
        &packer,
        "--name",
        "web",
        "--version",
        "2",
    ];
    // The same again is no news.
    for _ in 0..2 {
        world.collector.cli(add)?;
    }
    fs::write(
        world.path("own.json"),
        r#"{"platform": "azure", "ids": {"image": "/subscriptions/x/\u2026"}}"#,
    )?;
    let own = file("own.json");
    let refused = world
        .collector
        .try_cli(["image", "artifact", "web", "2", &own])?;
    assert_eq!(refused.status.code(), Some(1), "an id is printable ASCII");
    fs::write(
        world.path("own.json"),
        r#"{"platform": "azure", "ids": {"image": "/subscriptions/x"}}"#,
    )?;
    world
        .collector
        .cli(["image", "artifact", "web", "2", &own])?;
    let shown = world.collector.cli(["image", "show", "web", "2"])?;
    for line in [
        "aws: eu-west-1 ami-0123456789abcdef0",
        "azure: image",
        "unsigned",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let id = "AMI-0123456789ABCDEF0";
    let found = world.collector.json(["image", "list", "--artifact", id])?;
    assert_eq!(found[0]["version"], "2");
    let nothing = world
        .collector
        .cli(["image", "list", "--artifact", "ami-x"])?;
    assert!(
        nothing.contains("no registered build has artifact ami-x"),
        "{nothing}"
    );
    let taken = world
        .collector
        .try_cli(["image", "artifact", "web", "1", &own])?;
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert!(said.contains("belongs to web 2 (test) already"), "{said}");
    Ok(())
}
