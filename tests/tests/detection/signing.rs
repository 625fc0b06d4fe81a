//! Signatures made elsewhere and keys that change: openssl signs, the agent attaches and believes what it may.

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass, Run};

fn ground() -> Result<Ground> {
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc; echo a > tree/etc/a")?;
    let (root, output) = (ground.tree("tree"), ground.text("out"));
    ground.ok(&[
        "bake",
        "--root",
        &root,
        "--name",
        "web",
        "--version",
        "1",
        "--output",
        &output,
        "--rules",
        "none",
    ])?;
    Ok(ground)
}

/// A check that trusts these keys alone.
fn check(ground: &Ground, keys: &[&str]) -> Result<Run> {
    let mut arguments = ground.check_arguments("tree", "out", Pass::Full);
    let at = arguments
        .iter()
        .position(|argument| argument == "--trust")
        .context("the trust of a check")?;
    arguments.drain(at..at + 2);
    for key in keys {
        arguments.extend(["--trust".to_owned(), ground.text(key)]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    ground.agent(&arguments)
}

/// Signs with openssl what `--pae` prints, and attaches it.
fn sign_elsewhere(ground: &Ground, key: &str, options: &str) -> Result<Run> {
    let manifest = ground.text("out/image.manifest");
    let pae = ground.agent(&["sign", &manifest, "--pae"])?;
    ensure!(pae.code == 0, "{}", pae.err);
    fs::write(ground.outside("pae"), &pae.out).context("write what is to be signed")?;
    ground.shell("", &format!("openssl pkeyutl -sign -inkey ${{WORK}}{key}.key {options} -in ${{WORK}}pae -out ${{WORK}}signature"))?;
    let (signature, public) = (ground.text("signature"), ground.text(&format!("{key}.pub")));
    ground.agent(&[
        "sign", &manifest, "--attach", &signature, "--public", &public,
    ])
}

const MAKE_KEYS: &str = r#"cd "$WORK"
openssl genpkey -algorithm ed25519 -out ed.key; openssl pkey -in ed.key -pubout -out ed.pub
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.key 2> /dev/null; openssl pkey -in ec.key -pubout -out ec.pub
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.key 2> /dev/null; openssl pkey -in p384.key -pubout -out p384.pub
openssl genpkey -algorithm RSA -out rsa.key 2> /dev/null; openssl pkey -in rsa.key -pubout -out rsa.pub
"#;

#[test]
fn openssl_signs_and_either_key_is_enough() -> Result<()> {
    if !possible("signing with openssl") {
        return Ok(());
    }
    let ground = ground()?;
    ground.shell("", MAKE_KEYS)?;
    let unsigned = check(&ground, &["ed.pub"])?;
    ensure!(
        unsigned.code == 66 && unsigned.err.contains("image.manifest.sig"),
        "{unsigned:?}"
    );
    for (key, options) in [("ed", "-rawin"), ("ec", "-rawin -digest sha256")] {
        let signed = sign_elsewhere(&ground, key, options)?;
        ensure!(signed.code == 0, "{key}: {}", signed.err);
    }
    for keys in [
        &["ed.pub"][..],
        &["ec.pub"],
        &["keys/driftmark.pub", "ec.pub"],
        &["ed.pub", "ec.pub"],
    ] {
        let run = check(&ground, keys)?;
        ensure!(run.code == 0, "{keys:?}: {run:?}");
    }
    let untrusted = check(&ground, &["keys/driftmark.pub"])?;
    ensure!(
        untrusted.code == 65 && untrusted.err.contains("no trusted key"),
        "{untrusted:?}"
    );
    // A third signature, by the agent itself, and then the first key is gone from the image: rotated.
    let (manifest, own) = (
        ground.text("out/image.manifest"),
        ground.text("keys/driftmark.key"),
    );
    ground.ok(&["sign", &manifest, "--key", &own])?;
    for key in ["keys/driftmark.pub", "ed.pub", "ec.pub"] {
        ensure!(check(&ground, &[key])?.code == 0, "{key} is still enough");
    }
    let signature: serde_json::Value = serde_json::from_slice(
        &fs::read(ground.outside("out/image.manifest.sig")).context("read the signature")?,
    )?;
    ensure!(
        signature["signatures"]
            .as_array()
            .is_some_and(|list| list.len() == 3),
        "three signatures: {signature}"
    );
    Ok(())
}

#[test]
fn a_signature_over_anything_else_is_not_attached() -> Result<()> {
    if !possible("attaching a wrong signature") {
        return Ok(());
    }
    let ground = ground()?;
    ground.shell("", MAKE_KEYS)?;
    let manifest = ground.text("out/image.manifest");
    let made = [
        (
            "over the manifest itself",
            "openssl pkeyutl -sign -inkey ed.key -rawin -in out/image.manifest -out signature",
            "ed",
        ),
        (
            "over the statement itself",
            "openssl pkeyutl -sign -inkey ed.key -rawin -in out/image.statement.json -out signature",
            "ed",
        ),
        (
            "of another key",
            "openssl pkeyutl -sign -inkey ed.key -rawin -in out/image.manifest -out signature",
            "ec",
        ),
        ("empty", ": > signature", "ed"),
        ("too short", "head -c 63 /dev/zero > signature", "ed"),
        ("zeros", "head -c 64 /dev/zero > signature", "ec"),
        ("not DER", "head -c 72 /dev/urandom > signature", "ec"),
        ("large", "head -c 100000 /dev/zero > signature", "ec"),
        (
            "by P-384",
            "openssl pkeyutl -sign -inkey p384.key -rawin -digest sha384 -in out/image.manifest -out signature",
            "p384",
        ),
        (
            "by RSA",
            "openssl pkeyutl -sign -inkey rsa.key -rawin -digest sha256 -in out/image.manifest -out signature",
            "rsa",
        ),
    ];
    for (name, make, key) in made {
        ground.shell("", &format!("cd \"$WORK\"; {make}"))?;
        let (signature, public) = (ground.text("signature"), ground.text(&format!("{key}.pub")));
        let run = ground.agent(&[
            "sign", &manifest, "--attach", &signature, "--public", &public,
        ])?;
        ensure!(run.code == 65 && !run.err.is_empty(), "{name}: {run:?}");
        ensure!(
            !ground.outside("out/image.manifest.sig").exists(),
            "{name}: nothing is written"
        );
    }
    Ok(())
}

#[test]
fn a_key_pair_is_never_written_over_and_its_private_half_is_the_owners() -> Result<()> {
    if !possible("making keys") {
        return Ok(());
    }
    let ground = ground()?;
    let modes = ground.shell("", "stat -c '%a %n' \"$WORK\"keys/* | sed 's,/.*/,,'")?;
    ensure!(modes == "600 driftmark.key\n644 driftmark.pub\n", "{modes}");
    let again = ground.agent(&["keygen", "--output", &ground.text("keys")])?;
    ensure!(
        again.code == 73 && again.err.contains("exists already"),
        "{again:?}"
    );
    ground.shell("", "openssl pkey -in \"$WORK\"keys/driftmark.key -noout -check 2>&1; openssl pkey -pubin -in \"$WORK\"keys/driftmark.pub -noout")?;
    Ok(())
}
