//! `bake` and `check`, by what they ask of the kernel: they are confined before they walk a tree, of which they know the
//! fstab by then.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use driftmark_tests::Program;
use driftmark_tests::process::{finish, run};

use crate::is_unconfined;

/// How a tree is read, and by what call on what this shows in a trace.
const READERS: [(&str, &str, &str); 4] = [
    ("bake --root root --output out", " openat", "\"tool\""),
    (
        "bake --tar image.tar --output of-tar",
        " read(",
        "image.tar>",
    ),
    (
        "bake --tar - --output of-pipe < image.tar",
        " read(",
        "image.tar>",
    ),
    (
        "check --root root --manifest out/image.manifest --trust keys/driftmark.pub --state state",
        " openat",
        "\"tool\"",
    ),
];

#[test]
fn a_tar_is_found_by_a_way_that_is_closed_to_whoever_is_confined() -> Result<()> {
    let home = tempfile::tempdir()?;
    let story = "mkdir -p root/etc; echo seen > root/etc/file; tar -C root -cf image.tar .
        sleep 60 & there=/proc/$!/root$PWD; trap 'kill %1' EXIT
        \"$AGENT\" bake --name web --version 1 --rules none --tar $there/image.tar --output out";
    run(Command::new("bash")
        .args(["-euc", story])
        .current_dir(home.path())
        .env("AGENT", Program::Agent.path()?))?;
    ensure!(home.path().join("out/image.manifest").exists());
    Ok(())
}

#[test]
fn a_tree_is_walked_by_whoever_is_confined() -> Result<()> {
    let home = tempfile::tempdir()?;
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-euc", line])
            .current_dir(home.path())
            .env("TMPDIR", home.path().join("temporary"));
        command
    };
    run(&mut shell(
        "mkdir -p root/usr/bin root/etc root/var/lib/dpkg out state temporary; echo tool > root/usr/bin/tool; \
         printf 'Package: tool\\nStatus: install ok installed\\nVersion: 1\\n\\n' > root/var/lib/dpkg/status; \
         tar -C root -cf image.tar .",
    ))?;
    let agent = Program::Agent.path()?;
    run(Command::new(&agent)
        .args(["keygen", "--output"])
        .arg(home.path().join("keys")))?;
    // With all rights, and without those by which a file system in memory is made.
    let is_root = nix::unistd::geteuid().is_root();
    let ways: &[&str] = if is_root {
        &["", "setpriv --bounding-set=-sys_admin "]
    } else {
        &[""]
    };
    for way in ways {
        for (reader, call, shows) in READERS {
            let told = way.to_string() + reader;
            let (verb, arguments) = reader.split_once(' ').context("a verb")?;
            let more = match verb {
                "bake" => "--name web --version 1 --rules none --key keys/driftmark.key",
                _ => "",
            };
            let line = format!(
                "{way}strace -f -qq -y -o trace -e trace=openat,openat2,read,landlock_restrict_self \
                 {} {verb} {more} {arguments}",
                agent.display()
            );
            let ended = finish(&mut shell(&line))?;
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            // Without these rights a check is not sure what lies beneath mounts.
            let is_unsure = verb == "check" && ended.status.code() == Some(2);
            ensure!(ended.status.success() || is_unsure, "{told}: {ended:?}");
            if is_unconfined(&said) {
                return Ok(());
            }
            let trace = fs::read_to_string(home.path().join("trace"))?;
            let confined = trace
                .lines()
                .position(|line| line.contains("landlock_restrict_self") && line.ends_with("= 0"))
                .with_context(|| format!("{told} is not confined:\n{trace}"))?;
            let read = trace
                .lines()
                .position(|line| line.contains(call) && line.contains(shows))
                .with_context(|| format!("{told} reads no {shows}:\n{trace}"))?;
            ensure!(
                confined < read,
                "{told} is confined after it read:\n{trace}"
            );
            let left = fs::read_dir(home.path().join("temporary"))?.count();
            ensure!(left == 0, "{told} leaves {left} files");
        }
    }
    Ok(())
}

#[test]
fn a_tree_that_another_process_sees_is_refused_however_it_is_named() -> Result<()> {
    if !driftmark_tests::sandbox::possible("a tree of another process") {
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    let agent = Program::Agent.path()?;
    // Here the directory is empty; there something is mounted on it.
    let story = "mkdir root; \"$AGENT\" keygen --output keys > /dev/null
        bake() { \"$AGENT\" bake --name web --version 1 --rules none --key keys/driftmark.key \"$@\" > /dev/null; }
        check() { \"$AGENT\" check --manifest made/image.manifest --trust keys/driftmark.pub --state . \"$@\"; }
        bake --root root --output made
        unshare --mount sh -c 'mount -t tmpfs none root; echo mounted; exec sleep 60' > told & trap 'kill %1' EXIT
        until grep -q mounted told; do sleep 0.1; done
        there=/proc/$!/root$PWD; ln -s $there/root link
        for root in $there/root link; do
            bake --root $root --output out || echo $?
            check --root $root || echo $?
        done
        test ! -e out";
    let output = finish(
        Command::new("bash")
            .args(["-euc", story])
            .current_dir(home.path())
            .env("AGENT", agent),
    )?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    // The last by the kernel itself: by a link, a confined check does not get as far as to see that it is elsewhere.
    let codes = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        ["65\n65\n65\n77\n", "65\n65\n65\n65\n"].contains(&&*codes),
        "{codes}"
    );
    ensure!(
        told.matches("what another process sees").count() == codes.matches("65").count(),
        "{told}"
    );
    Ok(())
}
