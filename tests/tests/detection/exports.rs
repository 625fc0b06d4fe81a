//! What is shown of manifests and checks: to people without a raw control byte, to programs line by line.

use std::fs;

use anyhow::{Context, Result, ensure};
use driftmark_tests::FileSystem;
use driftmark_tests::sandbox::{possible, skip};
use serde_json::Value;

use crate::base::{self, ODD_NAMES};
use crate::ground::{Ground, Pass, has_control_bytes};

fn plain(what: &str, bytes: &[u8]) -> Result<()> {
    ensure!(
        !has_control_bytes(bytes),
        "{what} has raw control bytes: {:?}",
        String::from_utf8_lossy(bytes)
    );
    Ok(())
}

/// Changes every odd name in some way, and adds what has odd link targets, attributes and mount points.
fn make_odd_changes(ground: &Ground) -> Result<()> {
    let mut script = String::new();
    for name in &ODD_NAMES {
        let name = name.bash;
        script += &format!(
            "chmod 600 names/{name}; rm -r trash/{name}; mkdir opt/empty/{name}; ln -s -- {name} opt/full/{name}\n"
        );
    }
    script += "ln -sfn $'\\e[32m\\n\\xff' names/link; mknod opt/empty/$'d\\e' c 1 1\n";
    script += "mkdir $'\\e]0;m\\a'; mount -t tmpfs $'\\e[5msource' $'\\e]0;m\\a'\n";
    script += "setfattr -n $'user.\\e[31m' -v x data/plain\n";
    ground.shell("tree", &script).map(drop)
}

#[test]
fn no_raw_control_byte_reaches_a_terminal() -> Result<()> {
    if !possible("odd names in text") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    plain("bake", ground.bake_well("tree", "baked", None)?.as_bytes())?;
    make_odd_changes(&ground)?;
    let arguments = ground.check_arguments("tree", "baked", Pass::Full);
    let run = ground.agent(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(run.code == 1, "{run:?}");
    plain("check", &run.out)?;
    plain("the errors of check", run.err.as_bytes())?;
    let text = String::from_utf8_lossy(&run.out).into_owned();
    for name in &ODD_NAMES {
        ensure!(
            text.contains(&format!("/names/{}  mode 0644→0600", name.shown)),
            "{} is not told:\n{text}",
            name.shown
        );
    }
    ensure!(
        text.lines()
            .last()
            .is_some_and(|line| line.contains("drift")),
        "the last line says what it means:\n{text}"
    );
    ground.shell("tree", "umount $'\\e]0;m\\a'")?;
    ground.bake_well("tree", "new", None)?;
    let (old, new) = (
        ground.text("baked/image.manifest"),
        ground.text("new/image.manifest"),
    );
    let diff = ground.agent(&["diff", &old, &new])?;
    ensure!(diff.code == 1, "{diff:?}");
    plain("diff", &diff.out)?;
    for arguments in [
        &["inspect", &new][..],
        &["inspect", &new, "--mtree"],
        &["inspect", &new, "names/link"],
        &["inspect", &new, "data/plain"],
    ] {
        plain(
            arguments.last().context("an argument")?,
            ground.ok(arguments)?.as_bytes(),
        )?;
    }
    let missing = ground.agent(&["inspect", &new, "etc/\u{1b}[31mred"])?;
    ensure!(missing.code == 65 || missing.code == 66, "{missing:?}");
    plain("the errors of inspect", missing.err.as_bytes())?;
    let state = ground.text("never");
    let missing = ground.agent(&[
        "check",
        "--manifest",
        "/\u{1b}[31m",
        "--trust",
        "/\u{1b}[32m",
        "--state",
        &state,
    ])?;
    plain("the errors of check", missing.err.as_bytes())?;
    ensure!(
        !std::path::Path::new(&state).exists(),
        "a check without a manifest has nothing to remember"
    );
    Ok(())
}

#[test]
fn json_of_a_check_has_the_bytes_of_every_path() -> Result<()> {
    if !possible("odd names in JSON") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    ground.bake_well("tree", "baked", None)?;
    make_odd_changes(&ground)?;
    // Reading holds every line against its path bytes.
    let checked = ground.check("tree", "baked", Pass::Full)?;
    for name in &ODD_NAMES {
        let told = format!("changed /names/{} mode", name.shown);
        ensure!(
            checked.drifts.contains(&told),
            "{told}: {:#?}",
            checked.drifts
        );
    }
    let line = checked.line(r"/names/\xff\xfe")?;
    ensure!(
        line["path_bytes"] == drift::base64(b"/names/\xff\xfe"),
        "{line}"
    );
    ensure!(
        line["expected"]["mode"] == "0644" && line["found"]["mode"] == "0600",
        "{line}"
    );
    Ok(())
}

#[test]
fn diff_says_what_changed_between_two_images() -> Result<()> {
    if !possible("a diff") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 32)?;
    ground.shell("", r"mkdir -p tree/etc tree/old; cd tree; echo a > etc/a; echo b > etc/b; touch old/x $'etc/\xff'")?;
    ground.bake_well("tree", "old", None)?;
    let (old, new) = (
        ground.text("old/image.manifest"),
        ground.text("new/image.manifest"),
    );
    ground.ok(&["diff", &old, &old])?;
    ground.shell(
        "tree",
        r"echo A > etc/a; chmod 600 etc/b; rm -r old; ln -s a etc/c; chmod 600 $'etc/\xff'",
    )?;
    ground.bake_well("tree", "new", None)?;
    let text = ground.agent(&["diff", &old, &new])?;
    ensure!(text.code == 1, "{text:?}");
    let shown: Vec<String> = String::from_utf8(text.out)?
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    ensure!(
        shown
            == [
                "~ /etc/a  content",
                "~ /etc/b  mode",
                "+ /etc/c",
                r"~ /etc/\xff  mode",
                "- /old",
                "- /old/x"
            ],
        "{shown:?}"
    );
    let json = ground.agent(&["diff", &old, &new, "--json"])?;
    let lines = String::from_utf8(json.out)?
        .lines()
        .map(serde_json::from_str::<Value>)
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(lines.len() == 6, "{lines:?}");
    ensure!(
        lines[1]["expected"]["mode"] == "0644" && lines[1]["found"]["mode"] == "0600",
        "{}",
        lines[1]
    );
    let odd = &lines[3];
    ensure!(
        odd["path"].is_string() && odd["path_bytes"] == drift::base64(b"/etc/\xff"),
        "as in a check: {odd}"
    );
    Ok(())
}

#[test]
fn inspect_shows_one_path_or_everything_line_by_line() -> Result<()> {
    if !possible("inspecting") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    ground.bake_well(
        "tree",
        "baked",
        Some("[[rule]]\ntype = \"content\"\npath = \"/etc/hosts\"\n"),
    )?;
    let manifest = ground.text("baked/image.manifest");
    let one = ground.ok(&["inspect", &manifest, "/etc/hosts"])?;
    for word in [
        "path     /etc/hosts",
        "mode     0644",
        "blake3",
        "sha256",
        "rule     content /etc/hosts",
    ] {
        ensure!(one.contains(word), "no {word:?} in {one}");
    }
    let sum = ground.shell("tree", "sha256sum etc/hosts")?;
    ensure!(
        one.contains(sum.split_whitespace().next().context("a digest")?),
        "{one}"
    );
    let json = ground.ok(&["inspect", &manifest, "--json"])?;
    let lines = json
        .lines()
        .map(serde_json::from_str::<Value>)
        .collect::<Result<Vec<_>, _>>()?;
    let count = ground.shell("tree", "find . -printf x | wc -c")?;
    ensure!(
        lines[0]["manifest"]["entries"] == count.trim().parse::<u64>()?,
        "{} are not {count}",
        lines[0]
    );
    ensure!(
        (lines.len() - 1).to_string() == count.trim(),
        "{} lines for {count}",
        lines.len()
    );
    let odd: Vec<&Value> = lines
        .iter()
        .filter(|line| line.get("path_bytes").is_some())
        .collect();
    ensure!(odd.len() >= 4, "the bytes of what is not UTF-8: {odd:?}");
    Ok(())
}

#[test]
fn mtree_and_bsdtar_read_what_inspect_exports() -> Result<()> {
    if !possible("an export to mtree") {
        return Ok(());
    }
    let ground = Ground::new(FileSystem::Ext4, 96)?;
    base::make(&ground, "tree")?;
    // These programs name what they look at by whole paths, and tar knows no sockets.
    ground.shell(
        "tree",
        "rm run/socket; rm -r \"$(printf 'd%.0s' {1..200})\"",
    )?;
    ground.bake_well("tree", "baked", None)?;
    let mtree = ground.ok(&["inspect", &ground.text("baked/image.manifest"), "--mtree"])?;
    fs::write(ground.outside("spec"), mtree).context("write the specification")?;
    if ground.shell("", "command -v mtree").is_ok() {
        let said = ground.shell("tree", "mtree -f \"${WORK}spec\" -p . 2>&1")?;
        ensure!(said.is_empty(), "mtree finds no difference: {said}");
        let said = ground.shell(
            "tree",
            "poke etc/passwd 0 R; chmod 600 etc/hosts; mtree -f \"${WORK}spec\" -p . 2>&1 || :",
        )?;
        ensure!(
            said.contains("etc/passwd") && said.contains("etc/hosts"),
            "mtree finds both: {said}"
        );
        ensure!(
            !said.contains("names/") && !said.contains("dev/"),
            "and nothing else: {said}"
        );
        ground.shell("tree", "poke etc/passwd 0 r; chmod 644 etc/hosts")?;
    } else {
        skip("mtree", "is not there (mtree-netbsd)");
    }
    if ground.shell("", "command -v bsdtar").is_ok() {
        let listed = ground.shell("tree", "bsdtar -tf \"${WORK}spec\" 2>&1")?;
        let count = ground.shell("tree", "find . -printf x")?.len();
        ensure!(
            listed.lines().count() == count,
            "bsdtar lists {} of {count}:\n{listed}",
            listed.lines().count()
        );
    } else {
        skip("bsdtar", "is not there (libarchive-tools)");
    }
    Ok(())
}
