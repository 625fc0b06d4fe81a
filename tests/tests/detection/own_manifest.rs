//! The manifest lies in the image that it describes: held as far as it can be, and no hindrance to itself.

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass};

/// What is done, what undoes it, what must be told.
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "chmod 666 image.manifest",
        "chmod 644 image.manifest",
        &["changed /usr/lib/driftmark/image.manifest mode"],
    ),
    (
        "chown 1 image.manifest.sig",
        "chown 0 image.manifest.sig",
        &["changed /usr/lib/driftmark/image.manifest.sig uid"],
    ),
    ("touch evil", "rm evil", &["added /usr/lib/driftmark/evil"]),
    (
        "echo x >> trust.d/driftmark.pub",
        "sed -i '$d' trust.d/driftmark.pub",
        &["changed /usr/lib/driftmark/trust.d/driftmark.pub size content"],
    ),
    ("touch image.statement.json", "rm image.statement.json", &[]),
    (
        "touch image.statement.json; chmod 600 image.statement.json",
        "rm image.statement.json",
        &["changed /usr/lib/driftmark/image.statement.json mode"],
    ),
    (
        "mkdir image.statement.json",
        "rmdir image.statement.json",
        &["changed /usr/lib/driftmark/image.statement.json kind mode"],
    ),
    // What a system puts on every file of an image when it is installed.
    (
        "setfattr -n security.selinux -v system_u:object_r:lib_t:s0 image.manifest",
        "setfattr -x security.selinux image.manifest",
        &[],
    ),
    ("chattr +i image.manifest", "chattr -i image.manifest", &[]),
];

#[test]
fn a_manifest_in_its_own_image_is_held_and_does_not_change_itself() -> Result<()> {
    if !possible("a manifest in its own image") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc tree/usr/lib/driftmark/trust.d; echo a > tree/etc/a; cp \"$WORK\"keys/driftmark.pub tree/usr/lib/driftmark/trust.d/")?;
    ground.bake_well("tree", "outside", None)?;
    let (root, key) = (ground.tree("tree"), ground.text("keys/driftmark.key"));
    let home = ground.tree("tree/usr/lib/driftmark");
    let inside = [
        "bake",
        "--root",
        &root,
        "--name",
        "other",
        "--version",
        "2",
        "--rules",
        "none",
        "--output",
        &home,
        "--key",
        &key,
    ];
    let read = || {
        fs::read(ground.root().join("tree/usr/lib/driftmark/image.manifest"))
            .context("read the manifest")
    };
    ground.ok(&inside)?;
    let first = read()?;
    ground.ok(&inside)?;
    ensure!(read()? == first, "baked again over itself it is the same");
    let outside =
        fs::read(ground.outside("outside/image.manifest")).context("read the manifest")?;
    ensure!(
        outside == first,
        "and the same as one that was written elsewhere"
    );
    ground.check("tree", "outside", Pass::Full)?.is(&[], &[])?;
    let mut wrong = Vec::new();
    for (make, undo, drifts) in ROWS {
        ground.shell("tree/usr/lib/driftmark", make)?;
        let told = ground.check("tree", "outside", Pass::Full)?.is(drifts, &[]);
        wrong.extend(told.err().map(|error| format!("{make}: {error:#}")));
        ground.shell("tree/usr/lib/driftmark", undo)?;
        ground
            .check("tree", "outside", Pass::Full)?
            .is(&[], &[])
            .context(*undo)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
