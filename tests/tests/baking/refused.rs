//! Files that are no disk, or one that means harm: a clear error, nothing written, no file of the host read.

use anyhow::{Result, ensure};
use driftmark_tests::sandbox::possible;

use crate::studio::Studio;

/// What is made, how, and what the refusal says.
const DISKS: [(&str, &str, &str); 11] = [
    ("empty", ": > empty", "no root of a Linux"),
    ("text", "echo hello > text", "no root of a Linux"),
    (
        "directory",
        "mkdir directory",
        "neither a file nor a block device",
    ),
    (
        "fifo",
        "ln -s /dev/null fifo",
        "neither a file nor a block device",
    ),
    ("vmdk", "qemu-img create -q -f vmdk vmdk 4M", "VMDK"),
    (
        "backed",
        "qemu-img create -q -f qcow2 -b /etc/passwd -F raw backed",
        "backing file",
    ),
    (
        "outside",
        "qemu-img create -q -f qcow2 -o data_file=data outside 4M",
        "external data file",
    ),
    (
        "cut",
        "qemu-img create -q -f qcow2 cut 4M; truncate -s 90 cut",
        "read the header",
    ),
    (
        "bent",
        "qemu-img create -q -f qcow2 bent 4M; printf '\\377\\377\\377\\377\\377\\377' | dd of=bent bs=1 seek=40 conv=notrunc status=none",
        "qemu-img says",
    ),
    (
        "gpt",
        "truncate -s 8M gpt; printf 'label: gpt\\nsize=1M\\n' | sfdisk -q gpt; printf x | dd of=gpt bs=1 seek=1030 conv=notrunc status=none",
        "the GPT is damaged",
    ),
    ("swap", "truncate -s 8M swap; mkswap -q swap", ", swap)"),
];

#[test]
fn what_is_no_disk_or_means_harm_is_refused() -> Result<()> {
    if !possible("disks that are refused") {
        return Ok(());
    }
    let studio = Studio::new()?;
    for (name, make, says) in DISKS {
        studio.shell(make)?;
        let refused = studio.bake("out", &["--disk", &studio.path(name), "--rules", "none"])?;
        ensure!(
            refused.code != 0 && refused.err.contains(says),
            "{name} is to be refused with {says:?}: {refused:?}"
        );
        ensure!(
            !std::path::Path::new(&studio.path("out")).exists(),
            "{name}"
        );
        studio.has_no_loop_device(name)?;
    }
    Ok(())
}
