//! What cannot be read is a gap and never drift: a failing disk must not kill a machine.

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass};

/// Damages one byte of the disk beneath the tree, whose checksum then does not fit, and repairs it.
///
/// `inode PATH` and `block PATH` say where on the disk a path's inode or first block lies; `damage` and `repair` work
/// on that place while the file system is not mounted.
const DAMAGE: &str = r#"
set -o pipefail; disk="${WORK}disk"; mounted="$(dirname "$KEEP")"; cd /
ask() { debugfs -R "$1" "$disk" 2> /dev/null; }
size=$(dumpe2fs -h "$disk" 2> /dev/null | sed -n 's/^Block size: *//p')
inode() { ask "imap $1" | sed -n 's/.*located at block \([0-9]*\), offset 0x\([0-9a-f]*\).*/\1 0x\2/p' | { read b o; echo $((b * size + o + 8)); }; }
block() { ask "blocks $1" | { read b rest; echo $((b * size + 16)); }; }
damage() { dd if="$disk" of="${WORK}saved" bs=1 skip="$1" count=1 status=none
    b=$(od -An -tu1 "${WORK}saved"); printf "\\$(printf %03o $((b ^ 255)))" | dd of="$disk" bs=1 seek="$1" conv=notrunc status=none; }
repair() { dd if="${WORK}saved" of="$disk" bs=1 seek="$1" conv=notrunc status=none; }
offline() { umount "$mounted"; place=$("$2" "$3"); "$1" "$place"; mount -o loop "$disk" "$mounted"; }
"#;

fn on_disk(ground: &Ground, what: &str) -> Result<()> {
    ground.shell("", &format!("{DAMAGE}\n{what}")).map(drop)
}

#[test]
fn a_damaged_inode_is_a_gap_and_exit_code_2() -> Result<()> {
    if !possible("a damaged inode") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell(
        "",
        "mkdir -p tree/etc; cd tree; echo a > etc/a; echo b > etc/b; mkdir lib; echo c > lib/c",
    )?;
    ground.bake_well("tree", "baked", None)?;
    on_disk(&ground, "offline damage inode /tree/etc/a")?;
    for pass in [Pass::Full, Pass::Quick] {
        let checked = ground.check("tree", "baked", pass)?;
        checked.is(&[], &["/etc/a unreadable"])?;
        let coverage = &checked.summary["coverage"];
        ensure!(
            coverage["gap_count"] == 1 && coverage["verified_entries"] == 5,
            "the coverage says so: {coverage}"
        );
    }
    ground.shell("tree", "echo evil > lib/d")?;
    ground
        .check("tree", "baked", Pass::Full)?
        .is(&["added /lib/d"], &["/etc/a unreadable"])
        .context("drift beside it")?;
    let refused = ground.bake("tree", "other", &["--rules", "none"])?;
    ensure!(
        refused.code == 65 && refused.err.contains("/etc/a"),
        "what cannot be read cannot be promised: {refused:?}"
    );
    ensure!(!ground.outside("other").exists(), "nothing is written");
    ground.shell("tree", "rm lib/d")?;
    on_disk(&ground, "offline repair inode /tree/etc/a")?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])
}

#[test]
fn a_damaged_directory_is_a_gap_and_nothing_of_it_is_called_removed() -> Result<()> {
    if !possible("a damaged directory") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc/deep; cd tree; echo a > etc/a; echo b > etc/deep/b; mkdir lib; echo c > lib/c")?;
    ground.bake_well("tree", "baked", None)?;
    on_disk(&ground, "offline damage block /tree/etc")?;
    let checked = ground.check("tree", "baked", Pass::Full)?;
    ensure!(
        checked.drifts.is_empty(),
        "a damaged directory has lost nothing: {:?}",
        checked.drifts
    );
    ensure!(
        checked.code == 2 && !checked.gaps.is_empty(),
        "it is a gap: {checked:?}"
    );
    on_disk(&ground, "offline repair block /tree/etc")?;
    ground.check("tree", "baked", Pass::Full)?.is(&[], &[])
}

/// Images that are filled from outside have no index in their directories, and there ext4 lists nothing of a damaged
/// block and tells no error.
#[test]
fn a_damaged_block_of_a_directory_without_an_index_is_a_gap_too() -> Result<()> {
    if !possible("a damaged directory without an index") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 64)?;
    ground.shell(
        "",
        r#"truncate -s 32M "${WORK}plain"; mkfs.ext4 -q -F -O ^dir_index "${WORK}plain"
        mkdir plain; mount -o loop "${WORK}plain" plain
        mkdir -p plain/tree/etc; touch plain/tree/etc/file-{1..400}; echo a > plain/tree/a"#,
    )?;
    ground.bake_well("plain/tree", "baked", None)?;
    let damaged = |what: &str| {
        let script = format!(
            "{DAMAGE}\ndisk=\"${{WORK}}plain\"; mounted=\"$mounted/plain\"\n\
             size=$(dumpe2fs -h \"$disk\" 2> /dev/null | sed -n 's/^Block size: *//p')\n\
             block() {{ ask \"blocks $1\" | {{ read first second rest; echo $((second * size + 40)); }}; }}\n\
             offline {what} block /tree/etc"
        );
        ground.shell("", &script)
    };
    damaged("damage")?;
    let checked = ground.check("plain/tree", "baked", Pass::Full)?;
    ensure!(
        checked.drifts.is_empty(),
        "nothing is lost: {:?}",
        checked.drifts
    );
    ensure!(checked.code == 2 && !checked.gaps.is_empty(), "{checked:?}");
    ground.shell("plain/tree", "echo b > b; keep a")?;
    let checked = ground.check("plain/tree", "baked", Pass::Full)?;
    let told: Vec<&str> = checked.drifts.iter().map(String::as_str).collect();
    ensure!(
        told == ["added /b", "removed /a"],
        "what really changed is told: {told:?}"
    );
    ground.shell("plain/tree", "rm b; back a")?;
    damaged("repair")?;
    ground
        .check("plain/tree", "baked", Pass::Full)?
        .is(&[], &[])
}
