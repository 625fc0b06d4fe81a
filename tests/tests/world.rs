//! The harness itself: what it makes is real, and nothing of it is left behind.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use driftmark_tests::intrusion::Intrusion;
use driftmark_tests::patience::until;
use driftmark_tests::process::run;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{FileSystem, InstanceOptions, Lab, LoopFs, Recipe, Sandbox, Workshop};

/// What of a sandbox could be left on this machine: mounts, named networks, control groups, processes.
fn left_of(sandbox: &str, directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut left: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(&directory))
        .map(str::to_owned)
        .collect();
    let loops =
        run(Command::new("losetup").args(["--list", "--noheadings", "--output", "BACK-FILE"]))
            .unwrap_or_default();
    left.extend(
        loops
            .lines()
            .filter(|line| line.contains(&directory))
            .map(str::to_owned),
    );
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&directory) {
            left.push(command);
        }
    }
    for hierarchy in [
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ] {
        let group = Path::new(hierarchy).join(sandbox);
        left.extend(group.exists().then(|| group.display().to_string()));
    }
    left
}

fn assert_nothing_left(sandbox: &str, directory: &Path) -> Result<()> {
    let gone = until("the sandbox to be gone", Duration::from_secs(10), || {
        Ok((left_of(sandbox, directory).is_empty() && !directory.exists()).then_some(()))
    });
    gone.with_context(|| format!("left: {:?}", left_of(sandbox, directory)))
}

#[test]
fn three_instances_boot_to_running_and_are_gone_afterwards() -> Result<()> {
    if !possible("booting a fleet") {
        return Ok(());
    }
    let image = Recipe::new("world", "1").build_without_agent(&Workshop::open()?)?;
    let lab = Lab::new()?;
    let (name, directory) = (lab.sandbox().name().to_owned(), lab.directory().to_owned());
    let fleet = ["one", "two", "three"].map(|name| {
        let cloud_id = Some(format!("i-{name}"));
        (
            name,
            InstanceOptions {
                token: Some("secret".to_owned()),
                cloud_id,
                ..InstanceOptions::default()
            },
        )
    });
    let mut instances = lab.boot_all(&image, &fleet)?;
    for instance in &instances {
        assert_eq!(
            instance.exec("systemctl is-system-running")?.trim(),
            "running"
        );
        assert_eq!(instance.exec("hostname")?.trim(), instance.name());
        let cloud_id = instance.exec("cat /run/host/credentials/driftmark.cloud-id")?;
        assert_eq!(cloud_id, format!("i-{}", instance.name()));
        assert!(
            instance
                .exec("ip -brief address show eth0")?
                .contains(instance.address())
        );
        println!(
            "{} was ready after {:?}",
            instance.name(),
            instance.boot_time()
        );
    }

    let marker = instances[0].written().join("root/marker");
    instances[0].exec("echo kept > /root/marker")?;
    assert_eq!(fs::read_to_string(&marker)?, "kept\n");
    instances[0].reboot()?;
    assert_eq!(instances[0].exec("cat /root/marker")?, "kept\n");

    for intrusion in Intrusion::ALL {
        let before = fs::metadata(instances[1].root().join(&intrusion.path()[1..])).ok();
        intrusion.plant(&instances[1])?;
        let after = fs::metadata(instances[1].root().join(&intrusion.path()[1..]))?;
        if let Some(before) = before {
            assert_eq!(
                (before.len(), before.modified()?),
                (after.len(), after.modified()?)
            );
        }
    }
    assert!(instances[1].exec("id")?.contains("uid=0(root)"));

    instances.remove(2).terminate()?;
    instances[1].poweroff()?;
    assert!(!instances[1].is_running() && instances[0].is_running());
    drop(instances);
    drop(lab);
    assert_nothing_left(&name, &directory)
}

#[test]
fn a_person_on_this_machine_reaches_the_lab_when_it_is_joined() -> Result<()> {
    if !possible("joining a lab") {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.join_from_here()?;
    let closed_port = "10.77.0.1:9".parse()?;
    let refused = TcpStream::connect_timeout(&closed_port, Duration::from_secs(5));
    assert_eq!(
        refused.map(drop).map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionRefused)
    );
    Ok(())
}

#[test]
fn a_sandbox_ends_with_the_process_that_made_it() -> Result<()> {
    if !possible("a sandbox") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let (name, directory) = (sandbox.name().to_owned(), sandbox.directory().to_owned());
    let sleeper = directory.join("sleeper");
    sandbox.shell(&format!(
        "mkdir -p '{0}'; mount -t tmpfs tmpfs '{0}'",
        sleeper.display()
    ))?;
    sandbox.shell(&format!(
        "sh -c 'cd {0}; sleep 1000; : {0}' >/dev/null 2>&1 &",
        sleeper.display()
    ))?;
    assert!(
        !left_of(&name, &directory).is_empty(),
        "the sleeper is seen while it runs"
    );
    drop(sandbox);
    assert_nothing_left(&name, &directory)
}

#[test]
fn bytes_written_below_a_file_system_show_once_its_cache_is_dropped() -> Result<()> {
    if !possible("a loop file system") {
        return Ok(());
    }
    for (file_system, mebibytes) in [(FileSystem::Ext4, 64), (FileSystem::Xfs, 320)] {
        let made = LoopFs::new(file_system, mebibytes)?;
        let file = made.root().join("file");
        fs::write(&file, vec![b'a'; 100_000])?;
        made.raw_write("file", 50_000, b"EVIL")?;
        assert_eq!(
            &fs::read(&file)?[50_000..50_004],
            b"aaaa",
            "{file_system:?} has it in its cache"
        );
        made.drop_caches("file")?;
        assert_eq!(
            &fs::read(&file)?[50_000..50_004],
            b"EVIL",
            "{file_system:?} reads its disk"
        );
        assert_eq!(fs::metadata(&file)?.len(), 100_000);
        made.remount()?;
        assert_eq!(&fs::read(&file)?[49_999..50_005], b"aEVILa");
        let (name, directory) = (
            made.sandbox().name().to_owned(),
            made.sandbox().directory().to_owned(),
        );
        drop(made);
        assert_nothing_left(&name, &directory)?;
    }
    Ok(())
}
