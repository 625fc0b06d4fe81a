//! The collector: what it starts is as free as its unit leaves it, and it writes to its data alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Collector, CollectorOptions, Instance, Lab, Program, Tree};

use crate::{booted, holds_no_more_than, is_unconfined, property};

const COLLECTOR: &str = "driftmark-collector.service";
/// A scan a second, and a judge that looks every second, on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_replacer_writes_where_its_collector_cannot() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (script, elsewhere) = (home.path().join("replace"), home.path().join("elsewhere"));
    fs::create_dir(&elsewhere)?;
    let order = elsewhere.join("order");
    let text = format!("#!/bin/sh\ncat > {order:?}\necho '{{\"replacement\":\"vm-2\"}}'\n");
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let fleets = format!(
        "[[fleet]]\nname = \"web\"\nchannel = \"stable\"\nmode = \"replace\"\ngrace = \"0s\"\nstop-above = \"100%\"\n\
         replacer = {{ command = [{script:?}], timeout = \"10s\" }}\n"
    );
    let collector = Collector::here(CollectorOptions {
        fleets,
        configuration: "heartbeat = \"1s\"\n".to_owned(),
        ..CollectorOptions::default()
    })?;
    let mut tree = Tree::new("web", "1")?;

    // A place in its data that leads out of it, as a mistaken or hostile name would.
    if is_unconfined(&collector.output()) {
        tree.register(&collector)?;
    } else {
        let manifests = collector.data().join("manifests");
        fs::remove_dir(&manifests)?;
        symlink(&elsewhere, &manifests)?;
        let refused = format!("{:#}", tree.register(&collector).unwrap_err());
        ensure!(
            refused.contains("disk does not take or give manifests"),
            "{refused}"
        );
        ensure!(fs::read_dir(&elsewhere)?.next().is_none(), "it was written");
        fs::remove_file(&manifests)?;
        fs::create_dir(&manifests)?;
        let manifest = tree.manifest();
        let manifest = manifest.to_str().context("a path in UTF-8")?;
        collector.cli(["image", "add", manifest, "--channel", "stable"])?;
    }

    tree.give_token(&collector.join_token("web", Some("vm-1"))?)?;
    tree.start("[scan]\nquick-interval = \"1s\"\n")?;
    tree.wait_for("its image is verified", LIMIT, |status| {
        !status["coverage"]["seen"].is_null() && status["waiting_reports"] == 0
    })?;
    tree.write("usr/bin/intruder", "#!/bin/sh\n")?;
    let told = until("the replacer to have run", LIMIT, || {
        let told = fs::read_to_string(&order).unwrap_or_default();
        Ok(told.ends_with('\n').then_some(told))
    })
    .with_context(|| format!("the collector: {}", collector.output()))?;
    ensure!(told.contains("\"cloud_id\":\"vm-1\""), "{told}");
    Ok(())
}

#[test]
fn a_collector_runs_without_privileges_and_writes_to_its_data_alone() -> Result<()> {
    if !possible("a confined collector") {
        return Ok(());
    }
    let lab = Lab::new()?;
    let instance = booted(&lab)?;
    install(&instance)?;
    // `start` comes back when the collector said that it is ready.
    instance.exec(
        "systemd-sysusers; systemctl daemon-reload; systemctl start driftmark-collector.service",
    )?;
    assert_eq!(property(&instance, COLLECTOR, "ActiveState")?, "active");
    holds_no_more_than(&instance, COLLECTOR, 0)?;
    let id = property(&instance, COLLECTOR, "MainPID")?;
    // What its unit leaves: even root's rights write nothing elsewhere in its view, but for the temporary directories.
    for (place, is_writable) in [
        ("/etc", false),
        ("/usr", false),
        ("/home", false),
        ("/var/lib", false),
        ("/tmp", true),
        ("/var/lib/driftmark-collector", true),
    ] {
        let line = format!("nsenter --target {id} --mount touch {place}/x");
        let written = instance.try_exec(&line)?;
        ensure!(
            written.status.success() == is_writable,
            "{place}: {written:?}"
        );
    }
    writes_no_temporary_files(&instance)?;
    instance.exec("systemctl stop driftmark-collector.service")?;
    assert_eq!(property(&instance, COLLECTOR, "Result")?, "success");
    instance.terminate()
}

/// Puts the collector where its package would put it.
fn install(instance: &Instance) -> Result<()> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/usr/lib");
    let install = |from: &Path, to: &str| {
        let target = instance.root().join(to);
        fs::copy(from, &target).with_context(|| format!("install {}", target.display()))
    };
    install(&Program::Collector.path()?, "usr/bin/driftmark-collector")?;
    for file in [
        "systemd/system/driftmark-collector.service",
        "sysusers.d/driftmark-collector.conf",
    ] {
        install(&shipped.join(file), &format!("usr/lib/{file}"))?;
    }
    Ok(())
}

/// What the unit leaves open the collector does not write all the same: it keeps no manifest where one would lie in /tmp.
fn writes_no_temporary_files(instance: &Instance) -> Result<()> {
    if is_unconfined(&instance.journal(COLLECTOR)?) {
        return Ok(());
    }
    let command = "driftmark-collector --data /var/lib/driftmark-collector";
    let add = format!("{command} image add /usr/lib/driftmark/image.manifest");
    instance.exec(&format!(
        "{command} key add /usr/lib/driftmark/trust.d/driftmark.pub; \
         cd /var/lib/driftmark-collector; mv manifests kept; ln -s /tmp manifests"
    ))?;
    let refused = instance.try_exec(&add)?;
    ensure!(!refused.status.success(), "{refused:?}");
    instance.exec(&format!(
        "cd /var/lib/driftmark-collector; rm manifests; mv kept manifests; {add}"
    ))?;
    Ok(())
}
