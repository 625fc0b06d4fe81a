//! An image with a second file system, and a check without the rights to look beneath mounts.

use anyhow::{Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::possible;

use crate::ground::{Ground, Pass, Run};

/// A tree with a file system of its own at `/boot`, named in its fstab.
fn ground() -> Result<Ground> {
    let ground = Ground::new(FileSystem::Ext4, 48)?;
    ground.shell("", r#"mkdir -p tree/etc tree/boot tree/usr; cd tree; echo a > etc/a; echo beneath > boot/beneath
        echo 'UUID=1 /boot ext4 defaults 0 2' > etc/fstab
        truncate -s 8M "${WORK}boot"; mkfs.ext4 -q -F "${WORK}boot"
        mount -o loop "${WORK}boot" boot; mkdir boot/grub; echo kernel > boot/kernel; echo menu > boot/grub/menu"#)?;
    Ok(ground)
}

#[test]
fn a_second_file_system_of_the_image_is_held_and_missing_it_is_a_gap() -> Result<()> {
    if !possible("a second file system") {
        return Ok(());
    }
    let ground = ground()?;
    ground.bake_well("tree", "baked", None)?;
    let check = || ground.check("tree", "baked", Pass::Full);
    check()?.is(&[], &[])?;
    ground.shell(
        "tree",
        "poke boot/kernel 0 K; touch boot/grub/new; poke etc/a 0 A",
    )?;
    check()?.is(
        &[
            "changed /boot/kernel content",
            "added /boot/grub/new",
            "changed /etc/a content",
        ],
        &[],
    )?;
    ground.shell(
        "tree",
        "poke boot/kernel 0 k; rm boot/grub/new; poke etc/a 0 a; mount -t tmpfs none boot/grub",
    )?;
    check()?.is(&["covered /boot/grub"], &[])?;
    ground.shell("tree", "umount boot/grub; umount boot")?;
    check()?.is(&[], &["/boot filesystem-missing"])?;
    ground.shell("tree", "mount -t tmpfs none boot; touch boot/kernel")?;
    check()?.is(&["covered /boot"], &["/boot filesystem-missing"])?;
    let refused = ground.bake("tree", "other", &["--rules", "none"])?;
    ensure!(
        refused.code == 0,
        "what is mounted there is baked as it is: {refused:?}"
    );
    ground.shell("tree", "umount boot")?;
    let refused = ground.bake("tree", "none", &["--rules", "none"])?;
    ensure!(
        refused.code == 65 && refused.err.contains("/boot"),
        "a file system of the fstab is not mounted: {refused:?}"
    );
    ensure!(!ground.outside("none").exists(), "nothing is written");
    let without = ground.bake(
        "tree",
        "without",
        &["--rules", "none", "--filesystem", "none"],
    )?;
    ensure!(without.code == 0, "{without:?}");
    ground.check("tree", "without", Pass::Full)?.is(&[], &[])?;
    ground.shell("tree", "mount -o loop \"${WORK}boot\" boot")?;
    ground
        .check("tree", "without", Pass::Full)?
        .is(&["covered /boot"], &[])?;
    check()?.is(&[], &[])
}

/// Runs the agent as root that may read everything and mount nothing.
fn unprivileged(ground: &Ground, arguments: &[&str]) -> Result<Run> {
    let agent = ground.command(arguments);
    let mut script = "exec setpriv --bounding-set=-sys_admin".to_owned();
    let words = agent
        .get_args()
        .skip_while(|word| !word.as_encoded_bytes().ends_with(b"timeout"));
    for word in words {
        script += &format!(" '{}'", word.display());
    }
    let mut command = ground.fs().sandbox().command("sh");
    let output = driftmark_tests::process::finish(command.args(["-c", &script]))?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Run {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err,
    })
}

#[test]
fn without_the_right_to_look_beneath_mounts_that_is_said_and_no_verdict_is_clean() -> Result<()> {
    if !possible("a check without CAP_SYS_ADMIN") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", "mkdir -p tree/etc tree/opt/app; cd tree; echo a > etc/a; echo b > opt/app/b; setfattr -n user.note -v x etc/a")?;
    ground.bake_well("tree", "baked", None)?;
    let mut arguments = ground.check_arguments("tree", "baked", Pass::Full);
    arguments.push("--json".to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let plain = crate::ground::Checked::read(unprivileged(&ground, &arguments)?)?;
    ensure!(
        plain.drifts.is_empty() && plain.code == 2,
        "a limit is a gap: {plain:?}"
    );
    let limits = plain.summary["coverage"]["limits"].to_string();
    ensure!(limits.contains("CAP_SYS_ADMIN"), "and it is told: {limits}");
    ground.shell(
        "tree",
        "poke opt/app/b 0 B; poke etc/a 0 A; mount -t tmpfs none opt",
    )?;
    let plain = crate::ground::Checked::read(unprivileged(&ground, &arguments)?)?;
    plain.is(
        &["covered /opt", "changed /etc/a content"],
        &["/opt under-mount"],
    )?;
    let full = ground.check("tree", "baked", Pass::Full)?;
    full.is(
        &[
            "covered /opt",
            "changed /etc/a content",
            "changed /opt/app/b content",
        ],
        &[],
    )
}

#[test]
fn an_interrupted_check_gives_no_verdict() -> Result<()> {
    if !possible("an interrupted check") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 600)?;
    ground.shell(
        "",
        "mkdir tree; for n in 1 2 3 4; do head -c 128M /dev/zero > tree/$n; done",
    )?;
    ground.bake_well("tree", "baked", None)?;
    let mut words = ground.check_arguments("tree", "baked", Pass::Full);
    words.push("--json".to_owned());
    let agent = driftmark_tests::Program::Agent.path()?;
    let line = words
        .iter()
        .map(|word| format!(" '{word}'"))
        .collect::<String>();
    let script = format!(
        "timeout --preserve-status --signal=INT 0.05 '{}'{line} || echo code $?",
        agent.display()
    );
    let said = ground.shell("", &script)?;
    ensure!(said.trim() == "code 130", "{said}");
    Ok(())
}
