//! The page for a new user, as a new user: every block of shell on it, in order, in one shell, on a machine with nothing
//! of ours installed. That machine is this one, seen through an overlay that is thrown away.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::apt::Source;
use driftmark_tests::process::finish;
use driftmark_tests::sandbox::possible;
use driftmark_tests::{Sandbox, packages};

use crate::world::scripts;

/// The shell blocks of a page, each with its heading.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let (mut heading, mut found) = ("", Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with('#') {
            heading = line;
        }
        if line == "```sh" {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((heading, block.join("\n")));
        }
    }
    found
}

#[test]
#[ignore = "uses the network and the ports of the machine itself: run it by hand after `make packages`"]
fn a_new_user_who_follows_the_page_has_an_image_that_is_watched_and_sees_drift() -> Result<()> {
    if !possible("following the page") {
        return Ok(());
    }
    let page = fs::read_to_string(scripts().join("README.md"))?;
    let blocks = blocks(&page);
    ensure!(blocks.len() >= 15, "the page has {} blocks", blocks.len());
    let shell: String = blocks
        .iter()
        .map(|(heading, block)| format!("echo '=== {}'\n{block}\n", heading.replace('\'', "")))
        .collect();
    let sandbox = Sandbox::new()?;
    let machine = Machine::of(&sandbox)?;
    let output = finish(
        machine
            .command(&sandbox)
            .env("MIRROR", Source::of_this_machine()?.mirror)
            .env("PACKAGES", packages::directory().canonicalize()?)
            .env("SCRIPTS", scripts().canonicalize()?)
            .args(["/bin/bash", "-euo", "pipefail", "-c"])
            .arg(format!("cd /srv\n{shell}")),
    )?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complete = format!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success(),
        "the page does not work:\n{complete}"
    );
    for (heading, line) in [
        (
            "## 6. Boot it once, and learn",
            "added /var/lib/web/greeting",
        ),
        ("## 9. Boot it, and test it", "clean"),
        ("## 10. See drift", "/usr/bin/openssl"),
        ("## 9. Boot it, and test it", "channel stable"),
    ] {
        let heading = heading.trim_start_matches('#').trim();
        let from = said
            .split("=== ")
            .filter(|part| part.trim_start_matches('#').trim().starts_with(heading));
        let found = from.flat_map(str::lines).any(|said| said.contains(line));
        ensure!(found, "{heading} does not say {line:?}:\n{complete}");
    }
    Ok(())
}

/// This machine, seen through an overlay: what is installed there is gone afterwards.
struct Machine {
    root: std::path::PathBuf,
}

impl Machine {
    fn of(sandbox: &Sandbox) -> Result<Self> {
        let directory = sandbox.directory().display();
        sandbox
            .shell(&format!(
                "cd '{directory}'; mkdir rw machine; mount -t tmpfs -o mode=755 tmpfs rw; mkdir rw/upper rw/work; \
                 mount -t overlay overlay -o lowerdir=/,upperdir=rw/upper,workdir=rw/work machine; \
                 mount -t tmpfs -o size=3g,mode=755 tmpfs machine/srv; mount -t tmpfs -o mode=1777 tmpfs machine/tmp; \
                 mount -t proc proc machine/proc; mount --rbind /sys machine/sys; mount --rbind /dev machine/dev; \
                 mount -t tmpfs -o mode=755 tmpfs machine/run"
            ))
            .context("see this machine through an overlay")?;
        Ok(Self {
            root: sandbox.directory().join("machine"),
        })
    }

    /// A command on it. Its network is this machine's, for what the page installs comes from there.
    fn command(&self, sandbox: &Sandbox) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &sandbox.anchor().to_string(),
                "--mount",
                "--pid",
                "--",
            ])
            .args(["env", "DEBIAN_FRONTEND=noninteractive", "chroot"])
            .arg(&self.root);
        command
    }
}

#[test]
fn what_the_page_links_to_is_there() -> Result<()> {
    let page = fs::read_to_string(scripts().join("README.md"))?;
    let links = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let links: Vec<_> = links.collect();
    ensure!(links.len() > 10, "{links:?}");
    for link in links {
        match link.split_once('#') {
            Some(("", heading)) => {
                let slug = |line: &str| {
                    let text = line.trim_start_matches('#').trim().to_lowercase();
                    let text: String = text
                        .chars()
                        .filter(|letter| letter.is_alphanumeric() || " -".contains(*letter))
                        .collect();
                    text.replace(' ', "-")
                };
                let found = page
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| slug(line) == heading);
                ensure!(found, "no heading {link}");
            }
            _ if link.starts_with("https://") => {}
            _ => ensure!(scripts().join(Path::new(link)).exists(), "no file {link}"),
        }
    }
    Ok(())
}
