//! Manifests, signatures and keys that mean harm: each is refused with a message, none is believed, none stops the agent.

mod bytes;

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass, Run};

/// The input is wrong, or not there (sysexits).
const REFUSED: [i32; 2] = [65, 66];

/// A small tree, baked and signed, and the same tree baked and signed by somebody else.
fn ground() -> Result<Ground> {
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc; cd tree; echo a > etc/a; setfattr -n user.note -v x etc/a; ln -s a etc/link")?;
    ground.bake_well("tree", "baked", None)?;
    ground.ok(&["keygen", "--output", &ground.text("evil-keys")])?;
    let (root, key) = (ground.tree("tree"), ground.text("evil-keys/driftmark.key"));
    ground.shell("tree", "echo evil > etc/evil")?;
    let evil = ground.text("evil");
    ground.ok(&[
        "bake",
        "--root",
        &root,
        "--name",
        "web",
        "--version",
        "1",
        "--rules",
        "none",
        "--output",
        &evil,
        "--key",
        &key,
    ])?;
    ground.shell("tree", "rm etc/evil")?;
    Ok(ground)
}

fn check(ground: &Ground) -> Result<Run> {
    let arguments = ground.check_arguments("tree", "baked", Pass::Full);
    ground.agent(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn refused(run: &Run, message: &str) -> Result<()> {
    ensure!(
        REFUSED.contains(&run.code),
        "the exit code is {}: {run:?}",
        run.code
    );
    ensure!(
        run.err.starts_with("error: ") && run.err.contains(message),
        "no word of {message:?}: {}",
        run.err
    );
    ensure!(
        run.out.is_empty(),
        "a verdict is given: {}",
        String::from_utf8_lossy(&run.out)
    );
    Ok(())
}

/// What is done to the files around a good manifest, and what the refusal says.
const SWAPS: &[(&str, &str, &str)] = &[
    ("no manifest", "rm baked/image.manifest", "image.manifest"),
    (
        "no signature",
        "rm baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    ("no key", "rm keys/driftmark.pub", "no trusted key"),
    (
        "the signature of another manifest",
        "cp evil/image.manifest.sig baked/",
        "no trusted key",
    ),
    (
        "another manifest with its own signature",
        "cp evil/image.manifest evil/image.manifest.sig baked/",
        "no trusted key",
    ),
    (
        "another manifest under the old signature",
        "cp evil/image.manifest baked/",
        "another manifest",
    ),
    (
        "another manifest, both signatures in one file",
        r#"cp evil/image.manifest baked/; perl -pi -e 'BEGIN { open F, "evil/image.manifest.sig"; ($s) = <F> =~ /"signatures":\[(.*)\]/ } s/\]\}$/,$s]}/' baked/image.manifest.sig"#,
        "another manifest",
    ),
    (
        "a payload of another under a good signature",
        r#"cp evil/image.manifest baked/; perl -pi -e 'BEGIN { open F, "evil/image.manifest.sig"; ($s) = <F> =~ /("payload":"[^"]*")/ } s/"payload":"[^"]*"/$s/' baked/image.manifest.sig"#,
        "is wrong",
    ),
    (
        "an empty manifest",
        ": > baked/image.manifest",
        "not a Driftmark manifest",
    ),
    (
        "an empty signature",
        ": > baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    (
        "no signature in the signature",
        r#"perl -pi -e 's/"signatures":\[.*\]/"signatures":[]/' baked/image.manifest.sig"#,
        "has no signature",
    ),
    (
        "too many signatures",
        r#"perl -pi -e 's/"signatures":\[(.*)\]/q("signatures":[).join(q(,), ($1) x 17).q(])/e' baked/image.manifest.sig"#,
        "more than 16",
    ),
    (
        "another payload type",
        "sed -i 's/in-toto+json/other/' baked/image.manifest.sig",
        "payload type",
    ),
    (
        "a signature of two megabytes",
        "head -c 2M /dev/zero > baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    (
        "a signature of deep JSON",
        "perl -e 'print q([) x 500000' > baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    (
        "a signature without an end",
        "ln -sf /dev/zero baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    (
        "a manifest without an end",
        "ln -sf /dev/zero baked/image.manifest",
        "image.manifest",
    ),
    (
        "a FIFO for a manifest",
        "rm baked/image.manifest; mkfifo baked/image.manifest",
        "image.manifest",
    ),
    (
        "a FIFO for a signature",
        "rm baked/image.manifest.sig; mkfifo baked/image.manifest.sig",
        "image.manifest.sig",
    ),
    (
        "a FIFO for a key",
        "rm keys/driftmark.pub; mkfifo -m 600 keys/driftmark.pub",
        "driftmark.pub",
    ),
    (
        "a directory for a manifest",
        "rm baked/image.manifest; mkdir baked/image.manifest",
        "image.manifest",
    ),
    (
        "a manifest of a hundred gigabytes",
        "truncate -s 100G baked/image.manifest",
        "malformed",
    ),
    (
        "a key that anyone may write",
        "chmod 666 keys/driftmark.pub",
        "chmod o-w",
    ),
    (
        "a private key for a public one",
        "cp keys/driftmark.key keys/driftmark.pub",
        "driftmark.pub",
    ),
    (
        "a key cut short",
        "perl -pi -e 's/^M/N/' keys/driftmark.pub",
        "driftmark.pub",
    ),
    (
        "no key in the file of keys",
        "echo hello > keys/driftmark.pub",
        "driftmark.pub",
    ),
    (
        "somebody else's key",
        "cp evil-keys/driftmark.pub keys/driftmark.pub",
        "no trusted key",
    ),
];

#[test]
fn what_is_swapped_around_a_manifest_is_refused() -> Result<()> {
    if !possible("hostile manifests") {
        return Ok(());
    }
    let ground = ground()?;
    ensure!(check(&ground)?.code == 0, "the good one is good");
    ground.shell("", "cd \"$WORK\"; mkdir good; cp -a baked keys good/")?;
    let mut wrong = Vec::new();
    for (name, swap, message) in SWAPS {
        ground
            .shell("", &format!("cd \"$WORK\"; {swap}"))
            .with_context(|| (*name).to_owned())?;
        let told = check(&ground).and_then(|run| refused(&run, message));
        wrong.extend(told.err().map(|error| format!("{name}: {error:#}")));
        ground.shell("", "cd \"$WORK\"; rm -r baked keys; cp -a good/* .")?;
    }
    ensure!(check(&ground)?.code == 0, "the good one is good again");
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        SWAPS.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn a_directory_of_keys_that_anyone_may_write_is_refused() -> Result<()> {
    if !possible("a directory of keys") {
        return Ok(());
    }
    let ground = ground()?;
    let mut arguments = ground.check_arguments("tree", "baked", Pass::Full);
    let trust = arguments
        .iter()
        .position(|argument| argument == "--trust")
        .context("the trust of a check")?
        + 1;
    arguments[trust] = ground.text("trust.d");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    ground.shell("", "cd \"$WORK\"; mkdir trust.d; cp evil-keys/driftmark.pub trust.d/old.pub; echo junk > trust.d/README")?;
    refused(&ground.agent(&arguments)?, "no trusted key")?;
    ground.shell("", "cd \"$WORK\"; cp keys/driftmark.pub trust.d/new.pub")?;
    ensure!(
        ground.agent(&arguments)?.code == 0,
        "one of the two keys is the right one"
    );
    ground.shell("", "chmod 777 \"$WORK\"trust.d")?;
    refused(&ground.agent(&arguments)?, "chmod o-w")
}

#[test]
fn a_statement_of_another_kind_by_the_right_key_is_refused() -> Result<()> {
    if !possible("a statement of another kind") {
        return Ok(());
    }
    let ground = ground()?;
    let path = ground.outside("baked/image.manifest.sig");
    let good =
        drift::signature::Envelope::from_json(&fs::read(&path).context("read the signature")?)?;
    let statement =
        String::from_utf8(good.unverified_statement().to_vec()).context("a statement is text")?;
    let pem = fs::read(ground.outside("keys/driftmark.key")).context("read the key")?;
    let random = ring::rand::SystemRandom::new();
    let key = drift::key::SigningKey::from_pem(&pem, &random)?;
    let digest: serde_json::Value = serde_json::from_str(&statement)?;
    let artifact = serde_json::json!({
        "_type": digest["_type"], "subject": digest["subject"],
        "predicateType": "https://driftmark.dev/artifact/v1", "predicate": {"ids": ["ami-1"]},
    });
    let statements = [
        statement.replace("driftmark.dev/manifest/v1", "slsa.dev/provenance/v1"),
        statement.replace("driftmark.dev/manifest/v1", "driftmark.dev/manifest/v2"),
        statement.replace("driftmark.dev/manifest/v1", "driftmark.dev/artifact/v1"),
        artifact.to_string(),
        statement.replace("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1"),
        statement.replace("\"name\":\"web\"", "\"name\":\"w\\u001b[31meb\""),
        statement.replacen("\"sha256\":", "\"sha512\":", 1),
        statement
            .replacen('{', "{\"extra\":1,", 1)
            .replace("\"predicate\":{", "\"predicate\":{\"extra\":1,"),
        "null".to_owned(),
        String::new(),
    ];
    for statement in statements {
        let envelope =
            drift::signature::Envelope::sign(statement.clone().into_bytes(), &key, &random)?;
        fs::write(&path, envelope.to_json()).context("write the signature")?;
        refused(&check(&ground)?, "image.manifest").with_context(|| statement)?;
    }
    Ok(())
}
