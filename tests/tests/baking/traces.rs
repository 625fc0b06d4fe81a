//! Nothing that identifies an instance is in the image: the agent's own state is refused, the rest is told.

use anyhow::{Context, Result, ensure};
use driftmark_tests::sandbox::possible;
use serde_json::Value;

use crate::studio::Studio;

#[test]
fn an_agents_identity_is_refused_wherever_the_image_is_read_from() -> Result<()> {
    if !possible("an image with an identity in it") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        "furnish root; : > root/etc/fstab; mkdir root/var/lib/driftmark/identity; echo key > root/var/lib/driftmark/identity/instance.key
        part disk ext4 64 $ROOT_UUID root",
    )?;
    let (root, disk) = (studio.path("root"), studio.path("disk"));
    let state = format!("rm -rf {root}/var/lib/driftmark/*");
    for (source, clean) in [
        (["--root", &*root], &*state),
        (["--disk", &*disk], "rm -rf /var/lib/driftmark/*"),
    ] {
        let refused = studio.bake("out", &[&source[..], &["--rules", "none"]].concat())?;
        ensure!(
            refused.code == 65
                && refused
                    .err
                    .contains("/var/lib/driftmark/identity/instance.key")
                && refused.err.contains(clean),
            "{refused:?}"
        );
        ensure!(!std::path::Path::new(&studio.path("out")).exists());
    }
    studio.shell(&state)?;
    studio.manifest("clean", &["--root", &root]).map(drop)
}

#[test]
fn what_an_instance_left_is_told_and_refused_when_strict() -> Result<()> {
    if !possible("an image with traces of an instance") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        "furnish root; echo 0123456789abcdef0123456789abcdef > root/etc/machine-id; mkdir -p root/etc/ssh root/etc/driftmark/agent.d
        echo key > root/etc/ssh/ssh_host_rsa_key; echo ls > root/root/.bash_history
        echo 'token = \"dmjt1.secret\"' > root/etc/driftmark/agent.d/join.toml",
    )?;
    let root = studio.path("root");
    let source = ["--root", &root, "--rules", "none", "--filesystem", "none"];
    let baked = studio.bake("out", &source)?;
    ensure!(baked.code == 0, "{baked:?}");
    let said: Value = serde_json::from_str(&baked.out)?;
    let warnings = said["warnings"].as_array().context("a list")?;
    let told: Vec<&str> = warnings
        .iter()
        .filter_map(|warning| warning["path"].as_str())
        .collect();
    assert_eq!(
        told,
        [
            "/etc/machine-id",
            "/etc/driftmark/agent.d/join.toml",
            "/etc/ssh/ssh_host_rsa_key",
            "/root/.bash_history"
        ]
    );
    ensure!(
        warnings
            .iter()
            .all(|warning| warning["clean"].is_string() && warning["reason"].is_string())
    );
    let strict = studio.bake("strict", &[&source[..], &["--strict"]].concat())?;
    ensure!(
        strict.code == 65 && strict.err.contains("4 traces"),
        "{strict:?}"
    );
    ensure!(!std::path::Path::new(&studio.path("strict")).exists());
    studio.shell(
        ": > root/etc/machine-id; rm -r root/etc/ssh root/etc/driftmark root/root/.bash_history",
    )?;
    let clean = studio.bake("cleaned", &[&source[..], &["--strict"]].concat())?;
    ensure!(
        clean.code == 0
            && serde_json::from_str::<Value>(&clean.out)?["warnings"] == serde_json::json!([]),
        "{clean:?}"
    );
    Ok(())
}
