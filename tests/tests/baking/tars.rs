//! A tar gives the values that the tree itself gives, as far as it carries them, whoever wrote it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::Program;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::possible;
use serde_json::Value;

use crate::studio::Studio;

/// Who writes it, how, and what of a tree it does not carry.
const TARS: [(&str, &str, &[&str]); 8] = [
    (
        "pax",
        "tar --xattrs --xattrs-include='*' --numeric-owner -C root -cf pax .",
        &[],
    ),
    (
        "sparse",
        "tar --xattrs --xattrs-include='*' --numeric-owner --sparse -C root -cf sparse .",
        &[],
    ),
    (
        "sparse-0.1",
        "tar --xattrs --xattrs-include='*' --numeric-owner --sparse --sparse-version=0.1 -C root -cf sparse-0.1 .",
        &[],
    ),
    (
        "gnu",
        "tar --format=gnu --sparse -C root -cf gnu .",
        &["xattr"],
    ),
    (
        "old",
        "tar --format=oldgnu --sparse -C root -cf old $(ls -A root)",
        &["xattr"],
    ),
    (
        "bsd",
        "bsdtar --format=pax --numeric-owner -C root -cf bsd .",
        &[],
    ),
    (
        "twice",
        "mkdir -p other/etc other/usr/bin; echo other > other/etc/owned; echo other > other/usr/bin/tool; ln -s / other/etc/annotated
         tar --format=pax -C other -cf twice .
         tar --xattrs --xattrs-include='*' --numeric-owner -C root -rf twice .",
        &[],
    ),
    (
        "podman",
        "engine='podman --storage-driver vfs --root s --runroot r'
         $engine import -q pax web:1 >/dev/null; $engine export $($engine create web:1 /bin/true) > podman",
        &["trusted.note"],
    ),
];

#[test]
fn a_tar_gives_the_values_of_its_tree_whoever_wrote_it() -> Result<()> {
    if !possible("tars of an image") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell("furnish root; : > root/etc/fstab")?;
    let of_root = entries(&studio, "mounted", &["--root", &studio.path("root")])?;
    for (name, write, lacks) in TARS {
        studio.shell(write).context(name)?;
        let path = studio.path(name);
        let of_tar = studio.untouched(name, || entries(&studio, name, &["--tar", &path]))?;
        let without = |lines: &[Value]| -> Vec<Value> {
            let mut lines = lines.to_vec();
            for line in lines.iter_mut().filter_map(Value::as_object_mut) {
                line.retain(|key, _| !lacks.contains(&&**key));
                if let Some(xattr) = line.get_mut("xattr").and_then(Value::as_object_mut) {
                    xattr.retain(|name, _| !lacks.contains(&&**name));
                }
            }
            lines
        };
        let (tar, root) = (without(&of_tar), without(&of_root));
        for (tar, root) in tar.iter().zip(&root) {
            ensure!(tar == root, "{name}:\n{tar}\nand not\n{root}");
        }
        ensure!(tar.len() == root.len(), "{name}: {} entries", tar.len());
    }
    Ok(())
}

#[test]
fn a_tar_from_a_pipe_gets_the_rules_of_its_programs_and_says_what_is_not_held() -> Result<()> {
    if !possible("a tar from a pipe") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        r#"furnish root; : > root/etc/fstab; mkdir -p root/var/spool/some
        printf '[[rule]]\ntype = "content"\npath = "/etc/owned"\nwith = "/usr/bin/tool"\nreason = "a"\n[[rule]]\ntype = "content"\npath = "/etc/annotated"\nwith = "/usr/bin/none"\nreason = "b"\n' > rules.toml
        bake="$AGENT bake --name web --version 1 --rules rules.toml"
        $bake --root root --output mounted >/dev/null
        tar --xattrs --xattrs-include='*' --numeric-owner -C root -c . | $bake --tar - --output piped >/dev/null
        tar -C root -c . | $bake --tar - --output plain >/dev/null"#,
    )?;
    let rules = |output: &str| -> Result<(Value, Value)> {
        let header = inspected(&studio, output)?.remove(0);
        let header = &header["manifest"];
        Ok((header["rules"].clone(), header["not_held"].clone()))
    };
    let (mounted, piped, plain) = (rules("mounted")?, rules("piped")?, rules("plain")?);
    ensure!(mounted.0.as_array().is_some_and(|rules| !rules.is_empty()));
    ensure!(mounted.0.to_string().contains("/etc/owned"), "{mounted:?}");
    ensure!(!mounted.0.to_string().contains("/etc/annotated"));
    ensure!(piped.0 == mounted.0 && plain.0 == mounted.0, "{piped:?}");
    ensure!(mounted.1 == serde_json::json!([]), "{mounted:?}");
    ensure!(piped.1 == serde_json::json!(["flags"]), "{piped:?}");
    ensure!(
        plain.1.to_string().contains("xattr") && plain.1.to_string().contains("flags"),
        "{plain:?}"
    );
    Ok(())
}

#[test]
fn an_identity_and_traces_are_found_in_a_tar_too() -> Result<()> {
    if !possible("a tar with an identity in it") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        "furnish root; mkdir -p root/etc/ssh root/home/admin; echo key > root/etc/ssh/ssh_host_rsa_key; echo ls > root/home/admin/.bash_history
        echo 0123456789abcdef0123456789abcdef > root/etc/machine-id; tar -C root -cf traces .
        mkdir root/var/lib/driftmark/identity; echo key > root/var/lib/driftmark/identity/instance.key; tar -C root -cf identity .",
    )?;
    let path = studio.path("identity");
    let refused = studio.bake("out", &["--tar", &path, "--rules", "none"])?;
    ensure!(
        refused.code == 65
            && refused
                .err
                .contains("/var/lib/driftmark/identity/instance.key"),
        "{refused:?}"
    );
    ensure!(!Path::new(&studio.path("out")).exists());
    studio.shell("rm -r root/var/lib/driftmark/identity; : > root/etc/fstab")?;
    let (root, tar) = (studio.path("root"), studio.path("traces"));
    let warnings = |output: &str, source: &[&str]| -> Result<Value> {
        let baked = studio.bake(output, &[source, &["--rules", "none"]].concat())?;
        let said: Value = serde_json::from_str(&baked.out).with_context(|| baked.err.clone())?;
        Ok(said["warnings"].clone())
    };
    let of_root = warnings("mounted", &["--root", &root])?;
    ensure!(
        of_root.as_array().map(Vec::len) == Some(3),
        "three traces: {of_root}"
    );
    let of_tar = warnings("tarred", &["--tar", &tar])?;
    ensure!(of_tar == of_root, "{of_tar}");
    Ok(())
}

/// Every entry of the manifest that is baked from there, as `inspect` shows it.
fn entries(studio: &Studio, output: &str, source: &[&str]) -> Result<Vec<Value>> {
    let output = format!("out-{output}");
    let manifest = studio.manifest(&output, source)?;
    ensure!(!manifest.is_empty());
    let mut lines = inspected(studio, &output)?;
    lines.remove(0);
    Ok(lines)
}

fn inspected(studio: &Studio, output: &str) -> Result<Vec<Value>> {
    let manifest = studio.path(&format!("{output}/image.manifest"));
    fs::metadata(&manifest).context("the manifest")?;
    let said = run(Command::new(Program::Agent.path()?)
        .args(["inspect", "--json"])
        .arg(&manifest))?;
    said.lines()
        .map(|line| serde_json::from_str(line).context("a line of JSON"))
        .collect()
}
