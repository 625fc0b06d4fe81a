//! Between scans: a thousand files that apt-get replaces are each told of at once, with the program that did it.

use anyhow::{Context as _, Result, ensure};
use driftmark_tests::patience::until;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Fleet, FleetOptions, Recipe};
use serde_json::Value;

use crate::{LIMIT, package};

const FILES: usize = 1000;
/// Nothing that is found here is found because it was time for a scan.
const RARE_SCANS: &str = "[scan]\nquick-interval = \"1h\"\n";

#[test]
fn each_of_a_thousand_files_that_apt_get_replaces_is_told_with_dpkg_as_who_did_it() -> Result<()> {
    if !possible("installing packages on an instance") {
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let first = drift::base64(&package(place.path(), "many", "1", FILES)?);
    let recipe = Recipe::new("many", "1")
        .step(&format!(
            "base64 -d > /many.deb <<'END'\n{first}\nEND\ndpkg -i /many.deb && rm /many.deb"
        ))
        .file(
            "/srv/many.deb",
            0o644,
            package(place.path(), "many", "2", FILES)?,
        );
    let fleet = Fleet::new(&FleetOptions {
        policy: "mode = \"observe\"\n".to_owned(),
        agent: RARE_SCANS.to_owned(),
        recipe: Some(recipe),
        ..FleetOptions::default()
    })?;
    let vm = fleet.launch_clean(1)?.remove(0);
    until("the watch to begin", LIMIT, || {
        let journal = fleet.cloud.with(&vm, |machine| {
            machine.exec("journalctl --no-pager --unit=driftmark-agent.service")
        })?;
        Ok(journal.contains("the watch begins").then_some(()))
    })?;
    let install = "DEBIAN_FRONTEND=noninteractive apt-get -q -y install /srv/many.deb";
    fleet.cloud.with(&vm, |machine| machine.exec(install))?;
    let mut by = Vec::new();
    let told = until("each file, with who did it", LIMIT, || {
        by = programs(&fleet)?;
        Ok((by.len() == FILES && by.iter().all(|by| by == "/usr/bin/dpkg")).then_some(()))
    });
    by.sort();
    by.dedup();
    told.with_context(|| format!("by {by:?}"))?;
    let notes = &fleet.show(&fleet.id(&vm)?)?["coverage"]["notes"];
    ensure!(
        !notes.to_string().contains("blind"),
        "nothing was lost: {notes}"
    );
    Ok(())
}

/// The program that is said to have changed each of the files.
fn programs(fleet: &Fleet) -> Result<Vec<String>> {
    let rows = fleet
        .collector
        .database("SELECT drift FROM drifts WHERE drift IS NOT NULL")?;
    let mut programs = Vec::new();
    for row in rows {
        let drift: Value = serde_json::from_str(&row).context("read a drift")?;
        let path = drift["path"].as_str().unwrap_or_default();
        if path.starts_with("/usr/share/many/") && drift["kind"] == "changed" {
            let program = &drift["attribution"]["process"]["executable"]["path"];
            programs.push(program.as_str().unwrap_or("nobody knows").to_owned());
        }
    }
    Ok(programs)
}
