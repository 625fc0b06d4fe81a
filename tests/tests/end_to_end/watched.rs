//! Between scans: what an intruder does is known at the collector at once, with the program that did it.

use anyhow::{Context, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Recipe};
use serde_json::Value;

use crate::{LIMIT, OBSERVE};

/// A fleet of which nothing that is found between starts is found by a scan, and that is left as it is.
pub(crate) fn rarely_scanned(recipe: Option<Recipe>) -> Result<Fleet> {
    Fleet::new(&FleetOptions {
        policy: OBSERVE.to_owned(),
        agent: "[scan]\nquick-interval = \"1h\"\n".to_owned(),
        recipe,
        ..FleetOptions::default()
    })
}

#[test]
fn what_changes_is_known_at_the_collector_between_scans_with_who_did_it() -> Result<()> {
    if !possible("watching an instance") {
        return Ok(());
    }
    let fleet = rarely_scanned(None)?;
    let vm = fleet.launch_clean(1)?.remove(0);
    let id = fleet.id(&vm)?;
    until("the watch to begin", LIMIT, || {
        let shown = fleet.show(&id)?;
        let limits = &shown["coverage"]["limits"];
        ensure!(limits.is_null(), "it is watched whole: {limits}");
        let journal = fleet.cloud.with(&vm, |machine| {
            machine.exec("journalctl --no-pager --unit=driftmark-agent.service")
        })?;
        Ok(journal.contains("the watch begins").then_some(()))
    })?;
    fleet.cloud.with(&vm, |machine| {
        machine.exec(
            "cp /bin/sh /usr/lib/.helper; chmod 4755 /usr/lib/.helper; echo intruder >> /etc/issue; sleep 3",
        )
    })?;
    fleet.wait_for(&vm, "drifted", LIMIT)?;
    for (path, program) in [
        ("/usr/lib/.helper", "/usr/bin/chmod"),
        ("/etc/issue", "/usr/bin/dash"),
    ] {
        let by = until(&format!("who changed {path}"), LIMIT, || {
            let shown = fleet.show(&id)?;
            Ok(executable(&shown, path))
        })?;
        assert_eq!(by["path"], program, "{path}");
        assert_eq!(by["origin"], "image", "{path}");
    }
    let shown = fleet.show(&id)?;
    // All of it is told of who lives on for a moment.
    let drift = at(&shown, "/etc/issue").context("it is open")?;
    let process = &drift["attribution"]["process"];
    ensure!(process["uid"] == 0, "{process:#}");
    // Put back, and known to be, as soon.
    fleet.cloud.with(&vm, |machine| {
        machine.exec("rm /usr/lib/.helper; sed -i '/intruder/d' /etc/issue")
    })?;
    fleet.wait_for(&vm, "clean", LIMIT)?;
    Ok(())
}

fn at<'a>(shown: &'a Value, path: &str) -> Option<&'a Value> {
    let mut drifts = shown["drifts"]
        .as_array()?
        .iter()
        .map(|open| &open["drift"]);
    drifts.find(|drift| drift["path"] == path)
}

fn executable(shown: &Value, path: &str) -> Option<Value> {
    let executable = &at(shown, path)?["attribution"]["process"]["executable"];
    executable.is_object().then(|| executable.clone())
}
