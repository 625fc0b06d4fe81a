//! The same bytes from inside, from a mounted root, from a raw disk and from a qcow2.

use std::process::Command;

use anyhow::{Result, ensure};
use driftmark_tests::sandbox::possible;

use crate::studio::{BOOT_UUID, ROOT_UUID, Studio};

/// A GPT disk with an ESP, a `/boot` and a root; a tree of the same beside it.
const GPT: &str = r#"
furnish root; mkdir -p bootfs/grub; echo kernel > bootfs/vmlinuz; echo menu > bootfs/grub/cfg; chmod 600 bootfs/vmlinuz
part rootfs ext4 96 $ROOT_UUID root; part boot ext4 16 $BOOT_UUID bootfs
truncate -s 130M disk
printf 'label: gpt\nstart=2048,size=8M,type=U\nstart=20480,size=16M,type=L\nstart=61440,size=96M,type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n' | sfdisk -q disk
mkfs.vfat --offset 2048 -i 12AB34CD disk 8192 >/dev/null
put disk 20480 boot; put disk 61440 rootfs
"#;

/// Bakes the mounted image as if from inside: chrooted, with this machine's `/usr` mounted over its own.
const INSIDE: &str = r#"
mkdir mnt; mount -o loop,ro rootfs mnt; mount -o loop,ro boot mnt/boot
mount -t tmpfs tmpfs mnt/tmp; cp "$AGENT" mnt/tmp/agent; mount --bind /usr mnt/usr; mount --bind /proc mnt/proc
chroot mnt /tmp/agent bake --root / --name web --version 1 --rules none --output /tmp/out >/dev/null
cp -r mnt/tmp/out inside; umount mnt/usr mnt/proc mnt/tmp
"#;

#[test]
fn inside_mounted_raw_and_qcow2_give_the_same_bytes() -> Result<()> {
    if !possible("an image on a disk") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(&format!(
        "{GPT}\nqemu-img convert -O qcow2 -c disk disk.qcow2\n{INSIDE}"
    ))?;
    let inside = std::fs::read(studio.path("inside/image.manifest"))?;
    let mounted = studio.manifest("mounted", &["--root", &studio.path("mnt")])?;
    ensure!(mounted == inside, "a mounted root is not as from inside");
    studio.shell("umount mnt/boot mnt")?;
    for (file, output) in [("disk", "raw"), ("disk.qcow2", "qcow2")] {
        let path = studio.path(file);
        let baked = studio.untouched(file, || studio.manifest(output, &["--disk", &path]))?;
        ensure!(baked == inside, "{file} is not as from inside");
    }
    // The whole-disk file system too, and the partition by its number.
    let asked = ["--disk", &studio.path("disk"), "--partition", "3"];
    ensure!(studio.manifest("third", &asked)? == inside);
    let whole = ["--disk", &studio.path("rootfs"), "--filesystem", "none"];
    let third = [&asked[..], &["--filesystem", "none"]].concat();
    ensure!(studio.manifest("whole", &whole)? == studio.manifest("alone", &third)?);
    Ok(())
}

#[test]
fn an_xfs_on_a_logical_partition_is_read_and_a_second_root_is_a_question() -> Result<()> {
    if !possible("an image on an MBR disk") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(
        r#"furnish root; : > root/etc/fstab; part rootfs xfs 320 $(uuid) root
        mkdir mnt; mount -o loop,ro,nouuid rootfs mnt
        truncate -s 800M disk
        printf 'label: dos\nstart=2048,size=16M,type=82\nstart=40960,type=5\nstart=43008,size=320M,type=83\n' | sfdisk -q disk
        put disk 43008 rootfs"#,
    )?;
    let mounted = studio.manifest("mounted", &["--root", &studio.path("mnt")])?;
    let disk = ["--disk", &studio.path("disk")];
    // The same file system is mounted here all the while, by the same UUID.
    let baked = studio.untouched("disk", || studio.manifest("raw", &disk))?;
    ensure!(baked == mounted);
    studio.shell(
        "umount mnt; printf 'start=700416,size=330M,type=83\\n' | sfdisk -q --append disk; put disk 700416 rootfs",
    )?;
    let asked = studio.bake("two", &[&disk[..], &["--rules", "none"]].concat())?;
    ensure!(
        asked.code == 65
            && asked.err.contains("--partition N")
            && asked.err.contains("partition 6"),
        "{asked:?}"
    );
    let second = [&disk[..], &["--partition", "6"]].concat();
    ensure!(studio.manifest("second", &second)? == mounted);
    Ok(())
}

#[test]
fn a_journal_that_has_to_be_replayed_is_refused() -> Result<()> {
    if !possible("a disk of a running machine") {
        return Ok(());
    }
    let studio = Studio::new()?;
    for (kind, mebibytes, says) in [("ext4", 64, "e2fsck -p"), ("xfs", 320, "mount and unmount")] {
        studio.shell(&format!(
            r#"rm -rf root; furnish root; part {kind} {kind} {mebibytes} $(uuid) root
            mount -t {kind} -o loop {kind} at; echo more > at/etc/more; sync -f at; cp --sparse=always {kind} dirty-{kind}; umount at"#
        ))?;
        let dirty = format!("dirty-{kind}");
        let path = studio.path(&dirty);
        let source = ["--disk", &path, "--rules", "none", "--filesystem", "none"];
        let refused = studio.untouched(&dirty, || studio.bake("out", &source))?;
        ensure!(
            refused.code == 65 && refused.err.contains("cleanly") && refused.err.contains(says),
            "{refused:?}"
        );
        ensure!(!std::path::Path::new(&studio.path("out")).exists());
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_bake_that_was_killed() -> Result<()> {
    if !possible("a bake that is killed") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell("furnish root; : > root/etc/fstab; truncate -s 1T root/var/endless; part disk ext4 64 $ROOT_UUID root")?;
    for signal in ["KILL", "INT"] {
        let script = format!(
            r#""$AGENT" bake --disk disk --name web --version 1 --rules none --output out & pid=$!
            for n in $(seq 100); do losetup -nO NAME -j "$WORK/disk" | grep -q . && break; sleep 0.05; done
            losetup -nO RO,AUTOCLEAR -j "$WORK/disk"; sleep 0.1; kill -{signal} $pid; wait $pid || echo "code $?"; grep -c "$WORK/disk" /proc/mounts || true"#
        );
        let told = studio.untouched("disk", || studio.shell(&script))?;
        let words: Vec<&str> = told.split_whitespace().collect();
        let code = if signal == "KILL" { "137" } else { "130" };
        ensure!(words == ["1", "1", "code", code, "0"], "{signal}: {told}");
        ensure!(!std::path::Path::new(&studio.path("out")).exists());
    }
    Ok(())
}

#[test]
fn a_file_system_of_the_fstab_that_cannot_be_had_is_named_with_what_to_do() -> Result<()> {
    if !possible("an image whose file systems are elsewhere") {
        return Ok(());
    }
    let studio = Studio::new()?;
    studio.shell(GPT)?;
    let disk = studio.path("disk");
    let elsewhere =
        format!("UUID={ROOT_UUID} / ext4 defaults 0 1\nLABEL=data /data xfs defaults 0 2");
    let esp = format!(
        "UUID={BOOT_UUID} /boot ext4 defaults 0 2\nUUID=12AB-34CD /boot/efi vfat umask=77 0 1"
    );
    let has_vfat = driftmark_tests::loopfs::kernel_has("vfat");
    for (fstab, says) in [(elsewhere, "/data"), (esp, "vfat")] {
        studio.shell(&format!(
            "mkdir -p at; mount -o loop rootfs at; printf '%s\\n' '{fstab}' > at/etc/fstab; mkdir -p at/data; umount at; put disk 61440 rootfs"
        ))?;
        if says == "vfat" && has_vfat {
            continue;
        }
        let source = ["--disk", &disk, "--rules", "none"];
        let refused = studio.bake("out", &source)?;
        ensure!(
            refused.code != 0
                && refused.err.contains(says)
                && refused.err.contains("--filesystem none"),
            "{refused:?}"
        );
        let boot = [
            &source[..],
            &["--filesystem", "none", "--filesystem", "/boot"],
        ]
        .concat();
        let baked = studio.bake("boot-alone", &boot)?;
        ensure!(
            baked.code == usize::from(says == "/data") as i32 * 65,
            "{baked:?}"
        );
    }
    let inspected = Command::new(driftmark_tests::Program::Agent.path()?)
        .arg("inspect")
        .arg(studio.path("boot-alone/image.manifest"))
        .output()?;
    let inspected = String::from_utf8_lossy(&inspected.stdout);
    ensure!(inspected.contains("/boot"), "{inspected}");
    Ok(())
}
