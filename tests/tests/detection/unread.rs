//! What can be known of a file without reading it is told, whatever keeps it from being read.

use anyhow::{Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass};

/// Holds a write lease on every file that is named: opening one then fails, or waits for as long as the kernel lets.
const LEASE: &str = r#"perl -e '$SIG{IO} = "IGNORE"; $| = 1;
    for (@ARGV) { open(my $f, "+<", $_) or die; push @held, $f; fcntl($f, 1024, 1) or die "lease: $!"; }
    print "held\n"; sleep 120' "#;

#[test]
fn a_lease_does_not_hide_what_the_inode_tells() -> Result<()> {
    if !possible("a file under a lease") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell(
        "",
        "mkdir -p tree/bin; cd tree/bin; echo tool > tool; chmod 755 tool; echo same > same",
    )?;
    ground.bake_well("tree", "baked", None)?;
    ground.shell(
        "tree",
        &format!(
            "cp /bin/sh bin/tool; chmod 4755 bin/tool; cp /bin/sh bin/new; \
             ( {LEASE} bin/tool bin/same bin/new > \"${{WORK}}lease\" 2>&1 & echo $! > \"${{WORK}}holder\" ); \
             until grep -q held \"${{WORK}}lease\"; do :; done"
        ),
    )?;
    let checked = ground.check("tree", "baked", Pass::Full)?;
    ground.shell("tree", "kill \"$(cat \"${WORK}holder\")\"")?;
    checked.is(
        &["added /bin/new", "changed /bin/tool mode size"],
        &[
            "/bin/new unreadable",
            "/bin/same unreadable",
            "/bin/tool unreadable",
        ],
    )?;
    let found = &checked.line("/bin/tool")?["found"];
    ensure!(
        found["mode"] == "4755" && found["content"].is_null(),
        "what is not known is not made up: {found}"
    );
    Ok(())
}

#[test]
fn a_file_of_terabytes_does_not_keep_a_scan_busy() -> Result<()> {
    if !possible("a huge sparse file") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Xfs, 320)?;
    ground.shell("", "mkdir -p tree/bin; echo tool > tree/bin/tool")?;
    ground.bake_well("tree", "baked", None)?;
    ground.shell("tree", "truncate -s 4T bin/huge; truncate -s 2T bin/tool")?;
    let checked = ground.check("tree", "baked", Pass::Full)?;
    checked.is(&["added /bin/huge", "changed /bin/tool size"], &[])?;
    ensure!(
        checked.summary["bytes"] == 0,
        "nothing had to be read: {}",
        checked.summary
    );
    Ok(())
}
